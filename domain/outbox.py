"""What webhooks are to be told, as rows: written in the transaction of the state they report.

Somebody else sends them. Bodies are CloudEvents 1.0 in JSON; they hold no sample id, no subject
reference and no free text.
"""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    SQLColumnExpression,
    Uuid,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from domain import trail
from domain.states import DeliveryFailure, DeliveryStatus, Event, WebhookStatus, delivery_sources
from domain.tables import (
    DeletionRequest,
    DeletionTarget,
    LogCheckpoint,
    Model,
    WebhookDelivery,
    WebhookEndpoint,
)
from domain.trail import Actor
from domain.webhook_events import WebhookDisabled

SOURCE = "urn:lethe"
TEST = "lethe.webhook.test"
NEWEST_NOTE = (
    select(LogCheckpoint.note).order_by(LogCheckpoint.size.desc()).limit(1).scalar_subquery()
)
"""Of the audit trail: so everyone who is told of a request can show later what stood in it."""


def event_type(event: Event) -> str:
    """The type of the CloudEvent that reports it."""
    return f"lethe.deletion_request.{event}"


def announce(session: Session, event: Event, request_ids: Collection[UUID]) -> None:
    """Tell every enabled endpoint that asked for such events of these requests, as they are now.

    Two statements, however many requests; one, and a small one, where nobody wants to know.
    """
    if not request_ids:
        return
    # Locked, so that one that is being deleted is waited for: else its deliveries would fail, and
    # with them the transaction they are a part of.
    endpoints = session.scalars(
        select(WebhookEndpoint.id)
        .where(
            WebhookEndpoint.status == WebhookStatus.ENABLED,
            or_(
                WebhookEndpoint.events.is_(None),
                literal(str(event)) == func.any(WebhookEndpoint.events),
            ),
        )
        .with_for_update(read=True, key_share=True)
    ).all()
    if not endpoints:
        return
    requests = literal(list(request_ids), ARRAY(Uuid))
    rows = [(uuid7(), endpoint, request) for request in request_ids for endpoint in endpoints]
    columns = [literal(list(column), ARRAY(Uuid)) for column in zip(*rows, strict=True)]
    queued = (
        func.unnest(*columns)
        .table_valued("id", "endpoint_id", "request_id", name="queued")
        .render_derived()
    )
    models = (
        select(
            DeletionTarget.request_id,
            func.json_agg(
                aggregate_order_by(
                    func.json_build_object("model", Model.name, "status", DeletionTarget.status),
                    Model.name,
                )
            ).label("read"),
        )
        .join(Model, Model.id == DeletionTarget.model_id)
        .where(DeletionTarget.request_id == func.any(requests))
        .group_by(DeletionTarget.request_id)
        .subquery()
    )
    data = func.json_build_object(
        "id", DeletionRequest.id,
        "status", DeletionRequest.status,
        "due_at", trail.instant_of(DeletionRequest.due_at),
        "finished_at", trail.instant_of(DeletionRequest.finished_at),
        "models", models.c.read,
        "checkpoint", NEWEST_NOTE,
    )  # fmt: skip
    kind = event_type(event)
    body = _cloud_event(queued.c.id, kind, DeletionRequest.id, data)
    deliveries = (
        select(
            queued.c.id,
            queued.c.endpoint_id,
            literal(kind),
            body,
            literal(DeliveryStatus.WAITING, WebhookDelivery.status.type),
            literal(0),
        )
        .select_from(queued)
        .join(DeletionRequest, DeletionRequest.id == queued.c.request_id)
        .join(models, models.c.request_id == queued.c.request_id)
    )
    session.execute(
        insert(WebhookDelivery).from_select(
            ["id", "endpoint_id", "event", "body", "status", "attempt"], deliveries
        )
    )


def announce_test(session: Session, endpoint_id: UUID) -> WebhookDelivery:
    """Tell one endpoint that this is a test."""
    delivery_id = uuid7()
    data = func.json_build_object("webhook_id", literal(endpoint_id))
    delivery = WebhookDelivery(
        id=delivery_id,
        endpoint_id=endpoint_id,
        event=TEST,
        body=_cloud_event(literal(delivery_id), TEST, literal(endpoint_id), data),
    )
    session.add(delivery)
    session.flush()
    return delivery


def disable(
    session: Session, endpoint_id: UUID, *, actor: Actor, reason: str, failure: DeliveryFailure
) -> None:
    """Send an endpoint nothing any more: what waits for it is given up. No step if it is disabled.

    The endpoint is locked before its deliveries, as it is when it is deleted; transactions that
    are telling it something are waited for, so that what they told it is given up too.
    """
    session.get(WebhookEndpoint, endpoint_id, with_for_update=True)
    disabled = session.scalar(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.status == WebhookStatus.ENABLED)
        .values(status=WebhookStatus.DISABLED, disabled_reason=reason)
        .returning(WebhookEndpoint.id)
        .execution_options(synchronize_session=False)
    )
    if disabled is None:
        return
    session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.endpoint_id == endpoint_id,
            WebhookDelivery.status.in_(delivery_sources(DeliveryStatus.DEAD)),
        )
        .values(status=DeliveryStatus.DEAD, failure=failure, finished_at=func.now())
        .execution_options(synchronize_session=False)
    )
    trail.record(session, actor, endpoint_id, WebhookDisabled(why=failure))


def _cloud_event(
    delivery_id: SQLColumnExpression[UUID], kind: str, subject: SQLColumnExpression[UUID], data: Any
) -> ColumnElement[str]:
    return cast(
        func.json_build_object(
            "specversion", "1.0",
            "id", delivery_id,
            "source", SOURCE,
            "type", kind,
            "subject", subject,
            "time", trail.instant_of(func.clock_timestamp()),
            "datacontenttype", "application/json",
            "data", data,
        ),
        SqlText,
    )  # fmt: skip
