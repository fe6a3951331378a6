"""How the service is doing, in figures read from Postgres when they are asked for."""

from enum import StrEnum
from typing import Any

from pydantic import Field
from sqlalchemy import ColumnElement, extract, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from domain.states import (
    OPEN_REQUESTS,
    DeliveryStatus,
    JobKind,
    JobStatus,
    RegistrationStatus,
    RequestStatus,
    RowsStatus,
    Verdict,
    VersionStatus,
)
from domain.tables import (
    Dataset,
    DeletionRequest,
    Job,
    LogAnchor,
    LogCheckpoint,
    LogLeaf,
    Model,
    ModelVersion,
    PooledAudit,
    WebhookDelivery,
)
from service.fields import Out

DURATIONS = 100
ANSWERED = (RequestStatus.COMPLETED, RequestStatus.CANCELLED, RequestStatus.REFUSED)


class Durations(Out):
    """How long the last completed unlearning jobs took, from start to end."""

    jobs: int
    """How many jobs the figures cover, at most 100."""

    median: float | None
    """The median duration in seconds; null if there are no jobs."""

    p95: float | None
    """The 95th percentile of the durations in seconds; null if there are no jobs."""


class Figures(Out):
    """How the service is doing."""

    requests: dict[RequestStatus, int]
    """Number of deletion requests in each status."""

    overdue: int
    """Number of deletion requests past their due date that have not been answered, including failed
    ones."""

    decision_due_seconds: float | None
    """Seconds until the first due date among the deletion requests that await a person's decision;
    negative once it has passed, null if none awaits one."""

    oldest_wait_seconds: float
    """Age of the oldest open deletion request in seconds; 0 if there is none."""

    rows: dict[RowsStatus, int]
    """Number of completed deletion requests to datasets that erase, by what has become of the
    samples' rows in the files. `failed` needs an operator."""

    jobs: dict[JobKind, dict[JobStatus, int]]
    """Number of jobs of each kind in each status."""

    oldest_queued_job_seconds: float
    """Age of the oldest job that waits for a worker, in seconds; 0 if there is none."""

    queued_job_seconds: dict[JobKind, float] = Field(default={})
    """Age of the oldest job of each kind that waits for a worker, in seconds; 0 if there is none.
    A kind whose age alone grows may be taken by no worker."""

    expired_leases: int
    """Number of running jobs whose worker has fallen silent."""

    unlearn_seconds: Durations
    """How long the last completed unlearning jobs took."""

    datasets: dict[RegistrationStatus, int]
    """Number of datasets in each status."""

    models: dict[RegistrationStatus, int]
    """Number of models in each status."""

    pooled_audits: dict[Verdict, int]
    """Number of models by the verdict of their newest pooled audit, which judges together what
    they have forgotten lately."""

    purge_pending: int
    """Number of superseded model versions whose files have not been deleted yet. They may hold
    forgotten data."""

    purge_overdue_seconds: float
    """How long the oldest of those deletions has been due, in seconds; 0 if none is due."""

    audit_events: int
    """Number of events in the audit trail."""

    checkpoint_age_seconds: float | None
    """Seconds since the audit trail was last signed; null if it never was."""

    anchor_age_seconds: float | None
    """Seconds since a checkpoint was last stored outside the database; null if none ever was."""

    webhook_deliveries: dict[DeliveryStatus, int]
    """Number of webhook deliveries that wait to be sent, and of those that were given up."""


async def read(sessions: async_sessionmaker[AsyncSession]) -> Figures:
    """All figures, from one transaction."""
    silent = (Job.status == JobStatus.RUNNING) & (Job.lease_until < func.now())
    pending = (ModelVersion.status == VersionStatus.SUPERSEDED) & ModelVersion.purged_at.is_(None)
    async with sessions.begin() as session:
        return Figures(
            **await _requests(session),
            rows=await _rows(session),
            jobs=await _jobs(session),
            oldest_queued_job_seconds=await _age(
                session, Job.created_at, Job.status == JobStatus.QUEUED
            ),
            queued_job_seconds=await _queued(session),
            expired_leases=await _count(session, Job, silent),
            unlearn_seconds=await _durations(session),
            datasets=await _by_status(session, Dataset, RegistrationStatus),
            models=await _by_status(session, Model, RegistrationStatus),
            pooled_audits=await _pooled_audits(session),
            purge_pending=await _count(session, ModelVersion, pending),
            purge_overdue_seconds=await _age(session, ModelVersion.purge_after, pending),
            audit_events=await session.scalar(select(func.max(LogLeaf.position) + 1)) or 0,
            checkpoint_age_seconds=await _since(session, LogCheckpoint.created_at),
            anchor_age_seconds=await _since(session, LogAnchor.anchored_at),
            webhook_deliveries={
                status: await _count(session, WebhookDelivery, WebhookDelivery.status == status)
                for status in (DeliveryStatus.WAITING, DeliveryStatus.DEAD)
            },
        )


async def _count(session: AsyncSession, table: Any, *where: ColumnElement[bool]) -> int:
    return await session.scalar(select(func.count()).select_from(table).where(*where)) or 0


async def _by_status(session: AsyncSession, table: Any, kind: type[StrEnum]) -> dict[Any, int]:
    rows = await session.execute(select(table.status, func.count()).group_by(table.status))
    return dict.fromkeys(kind, 0) | {status: count for status, count in rows}


async def _requests(session: AsyncSession) -> dict[str, Any]:
    """The figures of deletion requests, from one look at them all."""
    late = DeletionRequest.due_at < func.now()
    age = extract("epoch", func.clock_timestamp() - func.min(DeletionRequest.created_at))
    left = extract("epoch", func.min(DeletionRequest.due_at) - func.clock_timestamp())
    query = select(DeletionRequest.status, func.count(), func.count().filter(late), age, left)
    counts, overdue, oldest = dict.fromkeys(RequestStatus, 0), 0, 0.0
    decision_due: float | None = None
    for status, count, overdue_count, age_s, left_s in await session.execute(
        query.group_by(DeletionRequest.status)
    ):
        counts[status] = count
        overdue += overdue_count if status not in ANSWERED else 0
        oldest = max(oldest, float(age_s)) if status in OPEN_REQUESTS else oldest
        decision_due = float(left_s) if status is RequestStatus.NEEDS_REVIEW else decision_due
    return {
        "requests": counts,
        "overdue": overdue,
        "decision_due_seconds": decision_due,
        "oldest_wait_seconds": oldest,
    }


async def _rows(session: AsyncSession) -> dict[RowsStatus, int]:
    known = DeletionRequest.rows_status
    query = select(known, func.count()).where(known.is_not(None)).group_by(known)
    found = {status: count for status, count in await session.execute(query) if status is not None}
    return dict.fromkeys(RowsStatus, 0) | found


async def _pooled_audits(session: AsyncSession) -> dict[Verdict, int]:
    place = func.row_number().over(
        partition_by=PooledAudit.model_id, order_by=PooledAudit.version.desc()
    )
    each = select(PooledAudit.verdict, place.label("place")).subquery()
    query = select(each.c.verdict, func.count()).where(each.c.place == 1).group_by(each.c.verdict)
    found = {verdict: count for verdict, count in await session.execute(query)}
    return dict.fromkeys(Verdict, 0) | found


async def _jobs(session: AsyncSession) -> dict[JobKind, dict[JobStatus, int]]:
    counts = {kind: dict.fromkeys(JobStatus, 0) for kind in JobKind}
    query = select(Job.kind, Job.status, func.count()).group_by(Job.kind, Job.status)
    for kind, status, count in await session.execute(query):
        counts[kind][status] = count
    return counts


async def _queued(session: AsyncSession) -> dict[JobKind, float]:
    """Age of the oldest queued job of each kind."""
    age = extract("epoch", func.clock_timestamp() - func.min(Job.created_at))
    query = select(Job.kind, age).where(Job.status == JobStatus.QUEUED).group_by(Job.kind)
    found = {kind: float(seconds) for kind, seconds in await session.execute(query)}
    return dict.fromkeys(JobKind, 0.0) | found


async def _age(session: AsyncSession, instant: Any, where: ColumnElement[bool]) -> float:
    """Of the earliest of these instants that has passed, in seconds; 0 when there is none."""
    age = extract("epoch", func.clock_timestamp() - func.min(instant))
    return max(0.0, float(await session.scalar(select(age).where(where)) or 0))


async def _since(session: AsyncSession, instant: Any) -> float | None:
    """Seconds since the last of these instants; None when there is none."""
    age = extract("epoch", func.clock_timestamp() - func.max(instant))
    seconds = await session.scalar(select(age))
    return None if seconds is None else max(0.0, float(seconds))


async def _durations(session: AsyncSession) -> Durations:
    last = (
        select(extract("epoch", Job.finished_at - Job.started_at).label("seconds"))
        .where(Job.kind == JobKind.UNLEARN, Job.status == JobStatus.COMPLETED)
        .order_by(Job.finished_at.desc())
        .limit(DURATIONS)
        .subquery()
    )

    def quantile(share: float) -> Any:
        return func.percentile_cont(share).within_group(last.c.seconds)

    summary = select(func.count(), quantile(0.5), quantile(0.95)).select_from(last)
    jobs, median, p95 = (await session.execute(summary)).one()
    return Durations(jobs=jobs, median=median, p95=p95)
