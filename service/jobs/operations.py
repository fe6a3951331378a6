"""What can be asked about jobs. One function, one transaction."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from domain.errors import no_such
from domain.states import JobKind, JobStatus
from domain.tables import (
    AlignmentScore,
    Dataset,
    DeletionTarget,
    Evaluation,
    Job,
    Model,
    ModelVersion,
    Round,
    VerdictTest,
)
from evidence import wording
from service.dependencies import Sessions
from service.fields import VersionBrief
from service.jobs.accuracy import AccuracyChange
from service.jobs.advantage import AdvantageChange
from service.jobs.fine_tuned import FineTunedRead
from service.jobs.schemas import (
    AlignmentCycle,
    AlignmentPoint,
    AlignmentRead,
    AuditRead,
    CycleRead,
    EvaluationRead,
    JobRead,
    JobSummary,
    TestRead,
)
from service.paging import Page, Window

Base, Made = aliased(ModelVersion), aliased(ModelVersion)


async def get(sessions: Sessions, job_id: UUID) -> JobRead:
    """One job with everything it measured. Raises NotFound when there is none with this id."""
    chosen = (
        _jobs()
        .add_columns(Base, Made)
        .outerjoin(Base, Base.id == Job.base_version_id)
        .outerjoin(Made, Made.job_id == Job.id)
        .where(Job.id == job_id)
    )
    async with sessions.begin() as session:
        row = (await session.execute(chosen)).one_or_none()
        if row is None:
            raise no_such(f"job {job_id}", listed_at="/v1/jobs")
        cycles, evaluations = await _measured(session, job_id)
        rounds = await _audits(session, job_id)
    job, model, dataset, requests, base, made = row
    return JobRead(
        **_common(job, model, dataset, requests),
        worker=job.worker,
        lease_until=job.lease_until,
        not_before=job.not_before,
        objective=job.objective,
        config=job.config,
        environment=job.environment,
        base_version=VersionBrief.model_validate(base) if base else None,
        new_version=VersionBrief.model_validate(made) if made else None,
        accepted_job_id=job.accepted_job_id,
        mode=job.mode,
        mode_reason=job.mode_reason,
        verdict=job.verdict,
        audit=next((tried for tried in rounds if tried.kept), None),
        rounds=rounds,
        before=_as(EvaluationRead, evaluations.get("before")),
        cycles=[CycleRead.model_validate(cycle) for cycle in cycles],
        after=_as(EvaluationRead, evaluations.get("after")),
        accuracy=AccuracyChange.of(evaluations.get("before"), evaluations.get("after")),
        advantage=AdvantageChange.of(evaluations.get("before"), evaluations.get("after")),
        fine_tuned=FineTunedRead.of(evaluations.get("after")),
    )


async def get_alignment(sessions: Sessions, job_id: UUID) -> AlignmentRead:
    """The alignment scores of a job. Raises NotFound when there is none with this id."""
    async with sessions.begin() as session:
        status = await session.scalar(select(Job.status).where(Job.id == job_id))
        if status is None:
            raise no_such(f"job {job_id}", listed_at="/v1/jobs")
        cycles, evaluations = await _measured(session, job_id)
    return AlignmentRead(
        job_id=job_id,
        status=status,
        before=_as(AlignmentPoint, evaluations.get("before")),
        cycles=[AlignmentCycle.model_validate(cycle) for cycle in cycles],
        after=_as(AlignmentPoint, evaluations.get("after")),
    )


async def find(
    sessions: Sessions,
    window: Window,
    *,
    status: JobStatus | None,
    kind: JobKind | None,
    model: str | None,
) -> Page[JobSummary]:
    """Jobs, newest first: all, or those of one status, kind or model."""
    after = window.after(UUID)
    chosen = _jobs().order_by(Job.id.desc()).limit(window.limit + 1)
    if after is not None:
        chosen = chosen.where(Job.id < after)
    if status is not None:
        chosen = chosen.where(Job.status == status)
    if kind is not None:
        chosen = chosen.where(Job.kind == kind)
    if model is not None:
        chosen = chosen.where(Model.name == model)
    async with sessions.begin() as session:
        rows = (await session.execute(chosen)).all()
    rows, next_cursor = window.cut(rows, lambda row: row[0].id)
    return Page(items=[JobSummary(**_common(*row)) for row in rows], next_cursor=next_cursor)


def _jobs() -> Select[Any]:
    """Every job with the names of its model and dataset, and how many requests it serves."""
    requests = select(func.count()).where(DeletionTarget.job_id == Job.id).scalar_subquery()
    return (
        select(Job, Model.name, Dataset.name, requests)
        .outerjoin(Model, Model.id == Job.model_id)
        .outerjoin(Dataset, Dataset.id == func.coalesce(Job.dataset_id, Model.dataset_id))
    )


def _common(job: Job, model: str | None, dataset: str | None, requests: int) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "status": job.status,
        "model": model,
        "dataset": dataset,
        "attempt": job.attempt,
        "losses": job.losses,
        "phase": job.phase,
        "progress": job.progress,
        "requests": requests,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "duration_seconds": _seconds(job),
        "failure": job.failure,
    }


def _seconds(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return (job.finished_at - job.started_at).total_seconds()


async def _measured(
    session: AsyncSession, job_id: UUID
) -> tuple[Sequence[AlignmentScore], dict[str, Evaluation]]:
    """The cycles of a job in their order, and its evaluations by moment."""
    cycles = await session.scalars(
        select(AlignmentScore)
        .filter_by(job_id=job_id)
        .order_by(AlignmentScore.round, AlignmentScore.cycle)
    )
    evaluations = await session.scalars(select(Evaluation).filter_by(job_id=job_id))
    return cycles.all(), {evaluation.moment: evaluation for evaluation in evaluations}


async def _audits(session: AsyncSession, job_id: UUID) -> list[AuditRead]:
    """What the audit said of each round of a job, in their order."""
    rounds = await session.scalars(select(Round).filter_by(job_id=job_id).order_by(Round.number))
    tests = await session.scalars(
        select(VerdictTest).filter_by(job_id=job_id).order_by(VerdictTest.position)
    )
    found: dict[tuple[int, str], list[TestRead]] = {}
    for test in tests:
        same = found.setdefault((test.round, test.moment), [])
        same.append(TestRead.model_validate(test))
    return [
        AuditRead(
            round=tried.number,
            step=tried.step,
            mode=tried.mode,
            kept=tried.kept,
            verdict=tried.verdict,
            reason=tried.reason,
            meaning=wording.meaning(tried.verdict, tried.mode, tried.config),
            alpha=tried.alpha,
            permutations=tried.permutations,
            seed=tried.seed,
            config=tried.config,
            before=found.get((tried.number, "before"), []),
            after=found.get((tried.number, "after"), []),
            guards=found.get((tried.number, "guard"), []),
        )
        for tried in rounds
    ]


def _as(schema: Any, evaluation: Evaluation | None) -> Any:
    return schema.model_validate(evaluation) if evaluation else None
