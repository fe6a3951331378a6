"""How long a deletion request waits, so that others can share its job: the one place of that rule.

When a request comes in, each of its targets is given the instant until which it may wait. Of those
that wait for one model with one objective, the first instant that comes ends the waiting of all:
one job takes them together, the earliest due first, as many as it may have. A request that was in a
job before does not wait again.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, String, and_, case, func, literal_column, or_, select
from sqlalchemy.orm import aliased

from domain.requests import NEAR_DUE
from domain.states import RequestStatus
from domain.tables import DeletionRequest, DeletionTarget

SHARE = 4
"""By default a request waits at most for one part in so many of the time until its due date: the
other three are for the job, for another after a `fail`, and for a person's decision."""

LONGEST = timedelta(days=7)
"""A request with a month's time is unlearned within a week by default."""

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

UNTIL = "greatest(now(), least(%(last)s, now() + coalesce(held, %(usual)s)))"
"""In SQL, the instant for a request that comes in now, where `held` is the window that the model's
policy names, or null for the default; `limits` has the parameters."""


def limits(now: datetime, due_at: datetime, *, urgent: bool) -> dict[str, datetime | timedelta]:
    """The parameters of `UNTIL`: an urgent request does not wait, and none waits close to its due
    date."""
    return {
        "last": LONG_AGO if urgent else due_at - NEAR_DUE,
        "usual": usual(now, due_at),
    }


def usual(now: datetime, due_at: datetime) -> timedelta:
    """How long a request is held back where its model's policy names no window."""
    return min(LONGEST, max(timedelta(), (due_at - now) / SHARE))


def is_over() -> ColumnElement[bool]:
    """Whether a target need not wait for others, or not any more."""
    return or_(DeletionTarget.waits_until.is_(None), DeletionTarget.waits_until <= func.now())


def is_pressing() -> ColumnElement[bool]:
    """Whether a request does not wait for reference models, which only make its job better."""
    return or_(DeletionRequest.urgent, DeletionRequest.due_at < func.now() + NEAR_DUE)


def planned_for() -> ColumnElement[datetime | None]:
    """The instant at which the waiting of a target ends at the latest, as far as is known now; null
    once it is in a job, and where no job could help it.

    The statement around reads from `DeletionTarget` and `DeletionRequest`. However many wait, this
    looks at the first of them in an index, which Postgres must see to fit: so the status is no
    parameter, and what a person accepted is left out, which does not wait.
    """
    other, its = aliased(DeletionTarget), aliased(DeletionRequest)
    pending = literal_column(f"'{RequestStatus.PENDING.value}'", String)
    first = (
        select(other.waits_until)
        .join(its, its.id == other.request_id)
        .where(
            other.model_id == DeletionTarget.model_id,
            other.status == pending,
            other.accepted_job_id.is_(None),
            other.former == 0,
            its.objective == DeletionRequest.objective,
        )
        .order_by(other.waits_until.asc().nulls_first())
        .limit(1)
        .correlate(DeletionTarget, DeletionRequest)
        .scalar_subquery()
    )
    waits = and_(DeletionTarget.status == pending, DeletionTarget.former == 0)
    return case(
        (and_(waits, DeletionTarget.accepted_job_id.is_not(None)), DeletionRequest.created_at),
        (waits, func.greatest(DeletionRequest.created_at, first)),
        else_=None,
    )
