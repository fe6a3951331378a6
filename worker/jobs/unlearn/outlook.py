"""Reads what waits for a model and how long its jobs took, to choose between changing it and
retraining it; and has a retraining answer all that waits."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, exists, extract, func, literal, or_, select
from sqlalchemy.orm import Session

from domain import batching, due_dates, requests, training_time
from domain.requests import NEAR_DUE
from domain.states import JobKind, JobStatus, Mode, RequestStatus, Verdict
from domain.tables import DeletionRequest, DeletionTarget, Job, JobCheckpoint, Round
from worker.engine import environment, lease
from worker.engine.workbench import Workbench
from worker.jobs.unlearn import job_time
from worker.jobs.unlearn.cheaper import Outlook
from worker.jobs.unlearn.inputs import Order, read_order
from worker.jobs.unlearn.job_time import JobTime

RATE_OVER = timedelta(days=30)
"""The rate of requests is that of so long a time, or since the model is ready."""

REMEMBERED = 20
"""How many of the newest jobs a job's time is judged by."""

AT_ONCE = 800
"""Requests that one transaction takes into a job."""


def of_job(session: Session, bench: Workbench, order: Order, *, remaining: int) -> Outlook:
    """For a job that is about to run: its requests, and what else waits that it may serve.

    Args:
        remaining: number of training samples that the champion has not forgotten.
    """
    mine = DeletionTarget.job_id == order.job.id
    found = _outlook(session, bench, order, or_(mine, _may_join(order)), remaining)
    begun = select(exists().where(JobCheckpoint.job_id == order.job.id))
    return replace(found, begun=bool(session.scalar(begun)))


def of_question(session: Session, bench: Workbench, order: Order, *, remaining: int) -> Outlook:
    """For an estimate: the job that would serve such a request, received now, with all that waits,
    and with what may be expected until that job begins.

    Args:
        remaining: as for `of_job`.
    """
    found = _outlook(session, bench, order, _may_join(order), remaining)
    now = datetime.now(UTC)
    due = due_dates.month_later(now, UTC)
    month = (due - now).total_seconds()
    left = min(month, found.left) if found.requests else month
    a_second, named = _lately(session, order)
    held = _held(session, order, now, due)
    after = max(left - held, 0.0)
    expected, later = round(a_second * held), a_second * after
    jobs = min(later, after / held) if held else later
    return replace(
        found,
        requests=found.requests + 1 + expected,
        expected=expected,
        samples=found.samples + len(order.forget) + expected * named,
        left=left,
        later=round(later),
        later_seconds=jobs * found.job.of(later * named / jobs) if jobs and found.job else 0.0,
    )


def with_all_that_waits(bench: Workbench, order: Order) -> Order:
    """Take what waits and may share the job into it, for its retraining answers that at no cost;
    the order as it is then.

    Raises:
        LeaseLost: another worker has the job.
    """
    joined = True
    while joined:
        for attempt in bench.transaction():
            with attempt as session:
                requests.hold_planner(session)
                job = lease.hold(session, bench.claim)
                first = (
                    select(DeletionTarget.request_id)
                    .join(DeletionRequest, DeletionRequest.id == DeletionTarget.request_id)
                    .where(_may_join(order))
                    .order_by(DeletionRequest.due_at, DeletionRequest.id)
                    .limit(AT_ONCE)
                )
                those = (
                    DeletionTarget.model_id == order.model.id,
                    DeletionTarget.request_id.in_(session.scalars(first).all()),
                )
                for status in (RequestStatus.SCHEDULED, RequestStatus.RUNNING):
                    joined = bool(
                        requests.move(session, status, *those, actor="worker", job_id=job.id)
                    )
                session.flush()
                order = read_order(session, job.id)
    return order


def _may_join(order: Order) -> ColumnElement[bool]:
    """The condition on a target, with its request, that it waits and the order's job may serve
    it."""
    waits = DeletionTarget.status == RequestStatus.PENDING
    alike = DeletionRequest.objective == order.job.objective
    unaccepted = DeletionTarget.accepted_job_id.is_(None)
    others = literal(order.job.accepted_job_id is None)  # an acceptance covers no more
    return (
        (DeletionTarget.model_id == order.model.id)
        & (DeletionTarget.former == 0)
        & waits & alike & unaccepted & others
    )  # fmt: skip


def _held(session: Session, order: Order, now: datetime, due: datetime) -> float:
    """For how many seconds a request that comes now is held back at most: as long as it may be, or
    until the first that waits already need not any more."""
    window = order.policy.batch.window
    if window is None:
        window = batching.usual(now, due)
    seconds = extract("epoch", DeletionTarget.waits_until - func.now())
    first = session.scalar(
        select(func.min(func.coalesce(seconds, 0)))
        .select_from(DeletionTarget)
        .join(DeletionRequest, DeletionRequest.id == DeletionTarget.request_id)
        .where(_may_join(order))
    )
    own = min(window, due - NEAR_DUE - now).total_seconds()
    return max(own if first is None else min(own, float(first)), 0.0)


def _outlook(
    session: Session, bench: Workbench, order: Order, those: ColumnElement[bool], remaining: int
) -> Outlook:
    device = environment.name_of(bench.device)
    waiting = session.execute(
        select(
            func.count().label("requests"),
            func.coalesce(func.sum(DeletionRequest.samples), 0).label("samples"),
            extract("epoch", func.min(DeletionRequest.due_at) - func.now()).label("left"),
        )
        .select_from(DeletionTarget)
        .join(DeletionRequest, DeletionRequest.id == DeletionTarget.request_id)
        .where(those)
    ).one()
    timed = ((order.model.timings or {}).get(device) or {}).get("job")
    return Outlook(
        requests=waiting.requests,
        samples=int(waiting.samples),
        max_samples=order.policy.batch.max_samples,
        job=_job_time(session, order, device, timed),
        retraining=training_time.of_device(order.model.timings, device),
        remain=remaining - len(order.forget),
        around=2 * timed["evaluation"] if timed else 0.0,
        failed=_failed(session, order),
        left=float(waiting.left or 0),
        limit=bench.settings.job_time_limit.total_seconds(),
    )


def _failed(session: Session, order: Order) -> bool:
    """Whether the model's last retraining broke off, or lost more than its policy allows."""
    last = (
        select(Round.verdict)
        .join(Job, Job.id == Round.job_id)
        .where(Job.model_id == order.model.id, Round.mode == Mode.EXACT)
        .order_by(Job.id.desc(), Round.number.desc())
        .limit(1)
    )
    return session.scalar(last) is Verdict.FAIL


def _job_time(
    session: Session, order: Order, device: str, timed: dict[str, float] | None
) -> JobTime | None:
    """Of jobs of the model that began by changing it, with whatever they had to try after that; of
    what registration timed, before there are any."""
    named = (
        select(func.sum(DeletionRequest.samples))
        .join(DeletionTarget, DeletionTarget.request_id == DeletionRequest.id)
        .where(DeletionTarget.job_id == Job.id)
        .scalar_subquery()
    )
    rows = session.execute(
        select(named, extract("epoch", Job.finished_at - Job.started_at))
        .join(Round, (Round.job_id == Job.id) & (Round.number == 1))
        .where(
            Job.model_id == order.model.id,
            Job.kind == JobKind.UNLEARN,
            Job.status == JobStatus.COMPLETED,
            Job.attempt == 1,
            Job.environment["device"].astext == device,
            Round.mode == Mode.APPROXIMATE,
        )
        .order_by(Job.id.desc())
        .limit(REMEMBERED)
    ).all()
    if rows:
        last = "its last job" if len(rows) == 1 else f"its last {len(rows)} jobs"
        return job_time.line([(int(count or 0), float(took)) for count, took in rows], last)
    if timed is None:
        return None
    basis = "a few training steps timed at registration"
    return JobTime(timed["constant"], timed["per_sample"], basis)


def _lately(session: Session, order: Order) -> tuple[float, float]:
    """How many requests the model had in a second of late, and how many samples each of them named,
    on the average."""
    came = session.execute(
        select(
            func.count().label("requests"),
            func.coalesce(func.avg(DeletionRequest.samples), 0).label("samples"),
        )
        .select_from(DeletionTarget)
        .join(DeletionRequest, DeletionRequest.id == DeletionTarget.request_id)
        .where(
            DeletionTarget.model_id == order.model.id,
            DeletionRequest.created_at > func.now() - RATE_OVER,
        )
    ).one()
    since = order.model.ready_at
    age = RATE_OVER if since is None else datetime.now(UTC) - since
    lasts = min(max(age, timedelta(days=1)), RATE_OVER)
    return came.requests / lasts.total_seconds(), float(came.samples)
