"""Destroys what links deletion requests to persons, for the API and the worker alike.

The audit trail stays whole and still verifies: what it holds of a request are digests under the key
that is destroyed here, and a commitment that nobody can open any more.
"""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, delete, func, literal, select, update
from sqlalchemy.orm import Session

from domain import trail
from domain.events import RequestShredded
from domain.states import FINAL_REQUESTS
from domain.tables import (
    DeletionRequest,
    IdempotencyKey,
    RequestKey,
    RequestSample,
    ReviewDecision,
)
from domain.trail import Actor


def shred(session: Session, request_ids: Collection[UUID], *, actor: Actor) -> None:
    """Destroy key, subject reference, reason and grounds of these requests, and ids that are left.

    Nothing happens to one that has not come to its end, or was shredded before. Its
    `Idempotency-Key` stands for nothing now: the fingerprint kept with it is of the ids, too.
    """
    those = func.any(literal(list(request_ids), ARRAY(Uuid)))
    session.execute(
        select(DeletionRequest.id)
        .where(DeletionRequest.id == those)
        .order_by(DeletionRequest.id)
        .with_for_update()
    )
    shredded = session.scalars(
        update(DeletionRequest)
        .where(
            DeletionRequest.id == those,
            DeletionRequest.status.in_(FINAL_REQUESTS),
            DeletionRequest.shredded_at.is_(None),
        )
        .values(subject_ref=None, reason=None, shredded_at=func.now())
        .returning(DeletionRequest.id)
        .execution_options(synchronize_session=False)
    ).all()
    gone = func.any(literal(list(shredded), ARRAY(Uuid)))
    for table in (RequestKey, IdempotencyKey, RequestSample):
        session.execute(delete(table).where(table.request_id == gone))
    session.execute(
        update(ReviewDecision)
        .where(ReviewDecision.request_id == gone)
        .values(ground=None)
        .execution_options(synchronize_session=False)
    )
    trail.record_each(session, actor, [(each, RequestShredded()) for each in sorted(shredded)])
