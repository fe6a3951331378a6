"""Registers webhooks, submits requests, and reads what is to be sent."""

from typing import Any
from uuid import uuid4

from sqlalchemy import select

from domain.tables import WebhookDelivery

URL = "/v1/webhooks"
HOOK = "https://dsr.example.com/hooks?token=SECRET"


async def register(client: Any, **body: Any) -> dict[str, Any]:
    response = await client.post(URL, json={"url": HOOK} | body)
    assert response.status_code == 201, response.text
    registered: dict[str, Any] = response.json()
    return registered


async def deliveries(sessions: Any) -> list[WebhookDelivery]:
    async with sessions() as session:
        return list(await session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))


async def submit(client: Any, **body: Any) -> Any:
    body = {"model": "cnn", "sample_ids": ["t1"]} | body
    key = {"Idempotency-Key": str(uuid4())}
    response = await client.post("/v1/deletion-requests", json=body, headers=key)
    assert response.status_code == 202, response.text
    return response.json()
