"""Which of the jobs that wait for a worker is to be done first: the one place of that order."""

from collections.abc import Collection, Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, case, func, or_, select
from sqlalchemy.orm import Session

from domain import batching, jobs
from domain.states import BESIDE_OTHERS, JobKind, RequestStatus
from domain.tables import DeletionRequest, DeletionTarget, Job

EVERY_KIND = frozenset(JobKind)

PLACES: Mapping[JobKind, int] = {
    JobKind.UNLEARN: 0,
    JobKind.ERASE_ROWS: 1,
    JobKind.PURGE: 1,
    JobKind.INDEX_DATASET: 2,
    JobKind.INDEX_STATE: 2,
    JobKind.REGISTER_MODEL: 2,
    JobKind.REGISTER_VERSION: 2,
    JobKind.CHECK_DATASET: 2,
    JobKind.ESTIMATE: 3,
    JobKind.TRAIN_REFERENCES: 4,
}
"""What a person has a right to comes first, and before all what has a legal due date. Then come the
files that still hold what is forgotten. Then what somebody waits for before they can go on, of
which requests for deletion may be the next step. An estimate changes nothing and is soon done; but
many of them must not keep a registration waiting. Reference models only make later jobs better, and
their training is the longest of all.

Nobody is let past for having waited long: there is one unlearning job a model at most, which takes
together what waited, so these can fill a worker for good only where there are too few workers. That
shows in `lethe_queued_job_seconds`, by kind.
"""

KEEP_WAITING = EVERY_KIND - BESIDE_OTHERS - {JobKind.UNLEARN} | {JobKind.TRAIN_REFERENCES}
"""While a job of these is open, its model gets no job that unlearns; beside the last one, none but
for pressing requests."""


def due() -> ColumnElement[datetime]:
    """When a request counts as due. An urgent one does so when it comes: before all that is not due
    yet, and after what is overdue for longer."""
    return case((DeletionRequest.urgent, DeletionRequest.created_at), else_=DeletionRequest.due_at)


def ready(session: Session, kinds: Collection[JobKind] = EVERY_KIND) -> list[UUID]:
    """The jobs of these kinds that a worker may take, the most urgent first.

    Of unlearning jobs that is the one with the earliest due date among its requests. What keeps a
    request from getting a job takes the request's place. Then the oldest comes first.
    """
    served = DeletionTarget.job_id == Job.id
    kept_waiting = (
        (DeletionTarget.model_id == Job.model_id)
        & (DeletionTarget.status == RequestStatus.PENDING)
        & or_(DeletionTarget.former > 0, batching.is_over())
    )
    first_due = case(
        (Job.kind == JobKind.UNLEARN, _first_due(served)),
        (Job.kind.in_(KEEP_WAITING), _first_due(kept_waiting)),
        else_=None,
    )
    place = case({kind.value: place for kind, place in PLACES.items()}, value=Job.kind)
    waiting = (
        select(Job.id, Job.created_at, place.label("place"), first_due.label("due"))
        .where(*jobs.is_ready(), Job.kind.in_(kinds))
        .subquery()
    )
    first = case((waiting.c.due.is_not(None), PLACES[JobKind.UNLEARN]), else_=waiting.c.place)
    ordered = select(waiting.c.id).order_by(
        first, waiting.c.due.asc().nulls_last(), waiting.c.created_at, waiting.c.id
    )
    return list(session.scalars(ordered))


def _first_due(where: ColumnElement[bool]) -> ScalarSelect[datetime]:
    return (
        select(func.min(due()))
        .select_from(DeletionTarget)
        .join(DeletionRequest, DeletionRequest.id == DeletionTarget.request_id)
        .where(where)
        .correlate(Job)
        .scalar_subquery()
    )
