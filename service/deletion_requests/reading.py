"""Reads deletion requests, with everything that came of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, and_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from domain.errors import no_such
from domain.states import MOVING_REQUESTS, RequestStatus, RowsStatus
from domain.tables import (
    DeletionRequest,
    DeletionTarget,
    Evaluation,
    Job,
    Model,
    ModelVersion,
    ReviewDecision,
    Round,
)
from evidence import wording
from evidence.wording import ROWS
from service.deletion_requests import resolution, statements
from service.deletion_requests.schemas import (
    DecisionRead,
    DeletionRequestRead,
    RowsRead,
    TargetRead,
    TargetResult,
    planned,
)
from service.dependencies import Sessions
from service.fields import Failure, Scores
from service.jobs.accuracy import AccuracyChange
from service.paging import Page, Window

REVIEWED = (RequestStatus.COMPLETED, RequestStatus.NEEDS_REVIEW)
"""Statuses of a target that has a result."""

CLASSES_SHOWN = 100

Before, After = aliased(Evaluation), aliased(Evaluation)

Order = Literal["newest", "due"]


@dataclass(frozen=True, slots=True)
class Due:
    """The place of a request among those that are ordered by due date, as a cursor has it."""

    at: datetime
    id: UUID

    def __str__(self) -> str:
        return f"{self.at.astimezone(UTC).isoformat()} {self.id}"

    @classmethod
    def read(cls, text: str) -> "Due":
        """Raises ValueError for what is no place."""
        at, _, request_id = text.rpartition(" ")
        due = datetime.fromisoformat(at)
        if due.tzinfo is None:
            raise ValueError("a due date has a time zone")
        return cls(due, UUID(request_id))


Outcome = Row[Job, ModelVersion, str, Evaluation, Evaluation]
"""What came of a job: itself, then what it made, each None where there is none."""


async def get(sessions: Sessions, request_id: UUID) -> DeletionRequestRead:
    """One deletion request. Raises NotFound when there is none with this id."""
    async with sessions.begin() as session:
        rows = (await session.execute(statements.READ_ONE, {"id": request_id})).all()
        if not rows:
            raise no_such(f"deletion request {request_id}", listed_at="/v1/deletion-requests")
        [read] = await _whole(session, rows)
    return read


async def find(
    sessions: Sessions,
    window: Window,
    *,
    status: RequestStatus | None,
    model: str | None,
    order: Order = "newest",
) -> Page[DeletionRequestRead]:
    """Deletion requests: all, or those of one status or one model."""
    chosen = select(DeletionRequest.id, DeletionRequest.due_at).limit(window.limit + 1)
    if order == "due":
        due = window.after(Due.read)
        chosen = chosen.order_by(DeletionRequest.due_at, DeletionRequest.id)
        if due is not None:
            place = tuple_(DeletionRequest.due_at, DeletionRequest.id)
            chosen = chosen.where(place > tuple_(due.at, due.id))
    else:
        after = window.after(UUID)
        chosen = chosen.order_by(DeletionRequest.id.desc())
        if after is not None:
            chosen = chosen.where(DeletionRequest.id < after)
    if status is not None:
        chosen = chosen.where(DeletionRequest.status == status)
    if model is not None:
        model_id = select(Model.id).where(Model.name == model).scalar_subquery()
        chosen = chosen.join(DeletionTarget, DeletionTarget.request_id == DeletionRequest.id)
        chosen = chosen.where(DeletionTarget.model_id == model_id)
    async with sessions.begin() as session:
        found = (await session.execute(chosen)).all()
        found, next_cursor = window.cut(
            found, lambda row: row.id if order == "newest" else Due(row.due_at, row.id)
        )
        places = {row.id: place for place, row in enumerate(found)}
        rows = (await session.execute(statements.READ_MANY, {"ids": list(places)})).all()
        items = await _whole(session, rows)
        return Page(items=sorted(items, key=lambda item: places[item.id]), next_cursor=next_cursor)


async def _whole(session: AsyncSession, rows: Sequence[Row[Any]]) -> list[DeletionRequestRead]:
    """The requests in `rows` with all that belongs to them, newest first.

    Requests are read before the outcomes of their jobs: one that is seen completed is seen with its
    results. What most requests do not have is not asked for.
    """
    ended = {
        row.job_id
        for row in rows
        if row.target_status not in MOVING_REQUESTS and row.job_id is not None
    }
    outcomes = await _read_outcomes(session, ended) if ended else {}
    not_erased = {row.rows_job_id for row in rows if row.rows_status is RowsStatus.FAILED}
    failures = await _read_failures(session, not_erased) if not_erased else {}
    decided = {row.id for row in rows if row.is_decided}
    decisions = await _read_decisions(session, decided) if decided else {}
    return [
        DeletionRequestRead(
            id=request.id,
            status=request.status,
            objective=request.objective,
            exact=request.exact,
            urgent=request.urgent,
            dataset=request.dataset,
            samples=request.samples,
            subjects=request.subjects,
            resolved=resolution.read(request._asdict(), models=len(others) + 1),
            duplicates=request.duplicates,
            commitment=request.commitment,
            subject_ref=request.subject_ref,
            reason=request.reason,
            received_at=request.received_at,
            time_zone=request.time_zone,
            due_at=request.due_at,
            created_at=request.created_at,
            planned_for=planned(targets),
            finished_at=request.finished_at,
            overdue_at=request.overdue_at,
            shredded_at=request.shredded_at,
            rows=_rows(request, failures),
            targets=targets,
            decisions=decisions.get(request.id, []),
        )
        for _, (request, *others) in groupby(rows, lambda row: row.id)
        for targets in [[_target(row, outcomes.get(row.job_id)) for row in (request, *others)]]
    ]


async def _read_outcomes(session: AsyncSession, jobs: Collection[UUID]) -> dict[UUID, Outcome]:
    """What came of jobs that ended, with the version each made."""
    rows = await session.execute(
        select(Job, ModelVersion, Round.reason, Before, After)
        .outerjoin(ModelVersion, ModelVersion.job_id == Job.id)
        .outerjoin(Round, and_(Round.job_id == Job.id, Round.kept))
        .outerjoin(Before, and_(Before.job_id == Job.id, Before.moment == "before"))
        .outerjoin(After, and_(After.job_id == Job.id, After.moment == "after"))
        .where(Job.id.in_(jobs))
    )
    return {row[0].id: row for row in rows}


async def _read_failures(session: AsyncSession, jobs: Collection[UUID]) -> dict[UUID, Failure]:
    """Why jobs failed."""
    rows = await session.execute(select(Job.id, Job.failure).where(Job.id.in_(jobs)))
    return {id_: Failure.model_validate(failure) for id_, failure in rows if failure}


async def _read_decisions(
    session: AsyncSession, ids: Collection[UUID]
) -> dict[UUID, list[DecisionRead]]:
    rows = await session.scalars(
        select(ReviewDecision).where(ReviewDecision.request_id.in_(ids)).order_by(ReviewDecision.id)
    )
    decisions: dict[UUID, list[DecisionRead]] = {request_id: [] for request_id in ids}
    for row in rows:
        decisions[row.request_id].append(DecisionRead.model_validate(row))
    return decisions


def _rows(request: Row[Any], failures: Mapping[UUID, Failure]) -> RowsRead | None:
    if request.rows_status is None:
        return None
    return RowsRead(
        status=request.rows_status,
        left=request.rows_left,
        job_id=request.rows_job_id,
        at=request.rows_at,
        failure=failures.get(request.rows_job_id),
        meaning=ROWS[request.rows_status].replace("{id}", str(request.rows_job_id)),
    )


def _target(row: Row[Any], outcome: Outcome | None) -> TargetRead:
    failure = outcome[0].failure if outcome else None
    return TargetRead(
        model=row.model,
        status=row.target_status,
        job_id=row.job_id,
        planned_for=row.planned_for,
        accepted_job_id=row.accepted_job_id,
        already_forgotten=row.already_forgotten,
        not_trained_on=row.not_trained_on,
        former=row.former,
        result=_result(*outcome) if outcome and row.target_status in REVIEWED else None,
        failure=Failure.model_validate(failure) if failure else None,
    )


def _result(
    job: Job,
    version: ModelVersion | None,
    reason: str | None,
    before: Evaluation | None,
    after: Evaluation | None,
) -> TargetResult | None:
    if version is None:
        return None
    return TargetResult(
        version=version.number,
        weights_sha256=version.weights_sha256,
        mode=version.mode,
        mode_reason=job.mode_reason,
        verdict=job.verdict,
        verdict_reason=reason,
        meaning=wording.meaning(job.verdict, job.mode, job.config) if job.verdict else None,
        before=Scores.model_validate(before) if before else None,
        after=Scores.model_validate(after) if after else None,
        accuracy=AccuracyChange.of(before, after, most=CLASSES_SHOWN),
    )
