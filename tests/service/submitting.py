"""Submits deletion requests, and counts what is stored."""

from typing import Any
from uuid import uuid4

from sqlalchemy import func, select

URL = "/v1/deletion-requests"


async def submit(client: Any, key: str | None = None, /, **body: Any) -> Any:
    body = {"model": "cnn", "sample_ids": ["t1", "t2"]} | body
    body = {name: value for name, value in body.items() if value is not None}
    return await client.post(URL, json=body, headers={"Idempotency-Key": key or str(uuid4())})


async def count(sessions: Any, *tables: Any) -> list[int]:
    async with sessions() as session:
        return [
            await session.scalar(select(func.count()).select_from(table)) or 0 for table in tables
        ]
