"""Registers webhooks, submits requests, and reads pending messages."""

from typing import Any

from sqlalchemy import select

from domain.tables import WebhookDelivery
from tests.service import submitting

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
    """A request that is accepted."""
    response = await submitting.submit(client, **{"sample_ids": ["t1"]} | body)
    assert response.status_code == 202, response.text
    return response.json()
