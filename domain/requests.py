"""Takes deletion requests from one status to the next, for the API and the worker alike.

What a request asks of one model is a target; the request's own status sums its targets up.
"""

from collections import defaultdict
from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    ScalarSelect,
    SQLColumnExpression,
    Uuid,
    case,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.orm import Session

from domain import erasure, outbox, trail
from domain.events import became
from domain.states import ENDED_REQUESTS, FINAL_REQUESTS, RequestStatus, sources
from domain.tables import DeletionRequest, DeletionTarget, RequestSample
from domain.trail import Actor

NEAR_DUE = timedelta(days=3)
"""From this long before its due date, a request no longer waits for others to join it, and no job
that serves it is given up for anything else."""

PLANNING_LOCK = 0x1E7E
"""The advisory lock of whoever plans, cancels or retries: while it is held, no request gets into a
job, nor out of one that does not end."""


def hold_planner(session: Session) -> None:
    """Wait for whoever plans, cancels or retries, and keep them waiting until the transaction ends.
    To be called before a job's row is locked."""
    session.execute(select(func.pg_advisory_xact_lock(PLANNING_LOCK)))


def move(
    session: Session,
    status: RequestStatus,
    *where: ColumnElement[bool],
    actor: Actor,
    job_id: UUID | ScalarSelect[UUID] | SQLColumnExpression[Any] | None,
) -> list[UUID]:
    """Take targets one lawful step on, and their requests with them.

    Targets from which no such step leads are left alone. One that was in a job, and is to have
    another, does not wait for others again.

    Args:
        where: which targets.
        job_id: the job that serves them from now on.

    Returns:
        The requests of the targets that moved.
    """
    waits = {"waits_until": None} if status is RequestStatus.PENDING else {}
    moved = session.scalars(
        update(DeletionTarget)
        .where(*where, DeletionTarget.status.in_(sources(status)))
        .values(status=status, job_id=job_id, **waits)
        .returning(DeletionTarget.request_id)
        .execution_options(synchronize_session=False)
    ).all()
    sum_up(session, moved, actor=actor)
    return list(moved)


def sum_up(session: Session, request_ids: Collection[UUID], *, actor: Actor) -> None:
    """Bring requests to the status their targets add up to; the audit trail and the webhooks are
    told of each change. The ids that a request named go with its end, or once their rows are gone.

    A request needs review as soon as one of its targets does. Else, while a target is open, it is
    as far as the furthest that a job works on or has worked on; when none is, it has failed if one
    has, is refused if one was, cancelled if one was, and completed otherwise.
    """
    those = func.any(literal(list(request_ids), ARRAY(Uuid)))
    # Locked first, in one order: jobs of two models may end targets of one request at once, and
    # the later of them must see what the earlier one stored.
    session.execute(
        select(DeletionRequest.id)
        .where(DeletionRequest.id == those)
        .order_by(DeletionRequest.id)
        .with_for_update()
    )
    total = (
        select(DeletionTarget.request_id, _sum_of_targets().label("status"))
        .where(DeletionTarget.request_id == those)
        .group_by(DeletionTarget.request_id)
        .subquery()
    )
    ended = total.c.status.in_([status.value for status in ENDED_REQUESTS])
    changed = session.execute(
        update(DeletionRequest)
        .where(DeletionRequest.id == total.c.request_id, DeletionRequest.status != total.c.status)
        .values(status=total.c.status, finished_at=case((ended, func.now()), else_=None))
        .returning(DeletionRequest.id, DeletionRequest.status)
    ).all()
    trail.record_each(session, actor, [(id_, became(now)) for id_, now in changed])
    awaited = erasure.expect(
        session, [each for each, now in changed if now is RequestStatus.COMPLETED]
    )
    final = [each for each, now in changed if now in FINAL_REQUESTS and each not in awaited]
    if final:
        session.execute(
            delete(RequestSample).where(
                RequestSample.request_id == func.any(literal(final, ARRAY(Uuid)))
            )
        )
    now_at: defaultdict[RequestStatus, list[UUID]] = defaultdict(list)
    for request_id, now in changed:
        now_at[now].append(request_id)
    for status, ids in now_at.items():
        outbox.announce(session, status, ids)


def _sum_of_targets() -> ColumnElement[str]:
    """The status that all targets of a request add up to."""
    status = DeletionTarget.status
    at_work = status == RequestStatus.RUNNING
    worked_on = status.in_([RequestStatus.COMPLETED, RequestStatus.FAILED])
    return case(
        (
            func.bool_or(status == RequestStatus.NEEDS_REVIEW),
            RequestStatus.NEEDS_REVIEW.value,
        ),
        (
            func.bool_and(status.in_(ENDED_REQUESTS)),
            case(
                (func.bool_or(status == RequestStatus.FAILED), RequestStatus.FAILED.value),
                (func.bool_or(status == RequestStatus.REFUSED), RequestStatus.REFUSED.value),
                (func.bool_or(status == RequestStatus.CANCELLED), RequestStatus.CANCELLED.value),
                else_=RequestStatus.COMPLETED.value,
            ),
        ),
        (
            func.bool_or(at_work | (worked_on & DeletionTarget.job_id.is_not(None))),
            RequestStatus.RUNNING.value,
        ),
        (func.bool_or(status == RequestStatus.SCHEDULED), RequestStatus.SCHEDULED.value),
        else_=RequestStatus.PENDING.value,
    )
