"""What becomes of the rows of forgotten samples in a dataset's files, as told to who named them.

A completed request is not the end of its samples where the dataset erases: their rows are in the
files until a job took them out. Until then the request keeps the ids it named.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    ScalarSelect,
    Uuid,
    case,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from domain import outbox, trail
from domain.events import RequestRowsErased, RequestRowsKept
from domain.states import WITHOUT_VERSIONS, RequestStatus, RowsStatus
from domain.tables import (
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Job,
    Model,
    RequestSample,
    Sample,
)
from domain.trail import Actor

UNSETTLED = (RowsStatus.WAITING, RowsStatus.FAILED, RowsStatus.HELD)


def wants_rows_erased() -> ColumnElement[bool]:
    """The condition on a dataset that was registered so."""
    asked: ColumnElement[bool] = Dataset.definition["erase"]["parquet"].as_boolean()
    return asked.is_(True)


def expect(session: Session, request_ids: Collection[UUID]) -> set[UUID]:
    """Of requests that were just completed, those whose rows are to be erased from now on."""
    if not request_ids:
        return set()
    return set(
        session.scalars(
            update(DeletionRequest)
            .where(
                DeletionRequest.id == _any(request_ids),
                Dataset.id == DeletionRequest.dataset_id,
                wants_rows_erased(),
            )
            .values(rows_status=RowsStatus.WAITING)
            .returning(DeletionRequest.id)
            .execution_options(synchronize_session=False)
        )
    )


def expect_of_new(session: Session, request_id: UUID, sample_ids: Sequence[str]) -> None:
    """The same for a request that had nothing left to forget when it came: its ids are kept, too,
    where its rows are to be erased."""
    if expect(session, [request_id]):
        rows = [{"request_id": request_id, "sample_id": name} for name in sorted(sample_ids)]
        session.execute(insert(RequestSample).on_conflict_do_nothing(), rows)


def wait(session: Session, dataset_id: UUID | None) -> None:
    """Another job is about to erase what one could not."""
    session.execute(
        update(DeletionRequest)
        .where(
            DeletionRequest.dataset_id == dataset_id,
            DeletionRequest.rows_status == RowsStatus.FAILED,
        )
        .values(rows_status=RowsStatus.WAITING, rows_job_id=None, rows_at=None)
        .execution_options(synchronize_session=False)
    )


def fail(session: Session, job: Job, *, actor: Actor) -> None:
    """A job that was to erase rows failed: tell every request that has some left."""
    waiting = considered(session, job.dataset_id)
    _settle(
        session,
        DeletionRequest.id == _any(waiting),
        status=literal(RowsStatus.FAILED, DeletionRequest.rows_status.type),
        left=DeletionRequest.rows_left,
        job=job,
    )
    told = [(each, RequestRowsKept(job=job.id, why="failed")) for each in waiting]
    trail.record_each(session, actor, told)
    outbox.announce(session, "rows_kept", waiting)


def considered(session: Session, dataset_id: UUID | None) -> list[UUID]:
    """The completed requests whose rows are not known to be gone. A job that erases asks for them
    before it asks what all models have forgotten: who is completed after that waits for the next.
    """
    return list(
        session.scalars(
            select(DeletionRequest.id)
            .where(
                DeletionRequest.dataset_id == dataset_id,
                DeletionRequest.rows_status.in_(UNSETTLED),
            )
            .order_by(DeletionRequest.id)
        )
    )


def settle(session: Session, job: Job, request_ids: Collection[UUID], *, actor: Actor) -> None:
    """Rows were erased, and the samples with them: tell these requests what is left of theirs.

    A request that was completed by an older release kept no ids. Its rows are gone where every
    model of the dataset was to forget them; else nothing is known.
    """
    if not request_ids:
        return
    left = case((_ids_kept() < DeletionRequest.samples, None), else_=_samples_left())
    everywhere = case((_models_asked() >= _models_of_dataset(), 0), else_=None)
    counted = (
        select(DeletionRequest.id, func.coalesce(left, everywhere).label("left"))
        .where(
            DeletionRequest.id == _any(request_ids),
            DeletionRequest.rows_status.in_(UNSETTLED),
        )
        .order_by(DeletionRequest.id)
        .with_for_update()
    )
    found: dict[UUID, int | None] = {row.id: row.left for row in session.execute(counted)}
    before = {
        row.id: (row.rows_status, row.rows_left)
        for row in session.execute(
            select(
                DeletionRequest.id, DeletionRequest.rows_status, DeletionRequest.rows_left
            ).where(DeletionRequest.id == _any(found))
        )
    }
    erased = [each for each, number in found.items() if number == 0]
    held = [
        each
        for each, number in found.items()
        if number != 0 and before[each] != (RowsStatus.HELD, number)
    ]
    for number, ids in _by_number(found, [*erased, *held]).items():
        status = RowsStatus.HELD if number != 0 else RowsStatus.GONE
        _settle(
            session,
            DeletionRequest.id == _any(ids),
            status=literal(status, DeletionRequest.rows_status.type),
            left=number,
            job=job,
        )
    session.execute(delete(RequestSample).where(RequestSample.request_id == _any(erased)))
    gone = [(each, RequestRowsErased(job=job.id)) for each in erased]
    kept = [(each, RequestRowsKept(job=job.id, why="held", left=found[each])) for each in held]
    trail.record_each(session, actor, [*gone, *kept])
    outbox.announce(session, "rows_erased", erased)
    outbox.announce(session, "rows_kept", held)


def _settle(
    session: Session,
    which: ColumnElement[bool],
    *,
    status: ColumnElement[RowsStatus],
    left: object,
    job: Job,
) -> None:
    session.execute(
        update(DeletionRequest)
        .where(which)
        .values(rows_status=status, rows_left=left, rows_job_id=job.id, rows_at=func.now())
        .execution_options(synchronize_session=False)
    )


def _by_number(
    found: dict[UUID, int | None], wanted: Sequence[UUID]
) -> dict[int | None, list[UUID]]:
    by_number: dict[int | None, list[UUID]] = {}
    for each in wanted:
        by_number.setdefault(found[each], []).append(each)
    return by_number


def _ids_kept() -> ScalarSelect[int]:
    mine = RequestSample.request_id == DeletionRequest.id
    return select(func.count()).select_from(RequestSample).where(mine).scalar_subquery()


def _samples_left() -> ScalarSelect[int]:
    return (
        select(func.count())
        .select_from(RequestSample)
        .join(Sample, Sample.sample_id == RequestSample.sample_id)
        .where(
            RequestSample.request_id == DeletionRequest.id,
            Sample.dataset_id == DeletionRequest.dataset_id,
        )
        .scalar_subquery()
    )


def _models_asked() -> ScalarSelect[int]:
    return (
        select(func.count())
        .select_from(DeletionTarget)
        .where(
            DeletionTarget.request_id == DeletionRequest.id,
            DeletionTarget.status == RequestStatus.COMPLETED,
        )
        .scalar_subquery()
    )


def _models_of_dataset() -> ScalarSelect[int]:
    return (
        select(func.count())
        .select_from(Model)
        .where(
            Model.dataset_id == DeletionRequest.dataset_id,
            Model.status.not_in(WITHOUT_VERSIONS),
        )
        .scalar_subquery()
    )


def _any(ids: Collection[UUID]) -> ColumnElement[UUID]:
    return func.any(literal(list(ids), ARRAY(Uuid)))
