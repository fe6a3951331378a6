"""The pooled audit of a model: what its last jobs made forgotten, judged together at each version.

Samples whose rows are still in the dataset's files are measured again, in the new version: so what
one version forgot and this one lets return is seen. For the others, what their own job measured
stands in. Shapes: H hold-out samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
import torch
from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from domain import outbox, tombstones, trail
from domain.errors import JobError
from domain.events import MemoryReturned
from domain.states import Objective, Split, Verdict
from domain.tables import DeletionTarget, Job, PooledAudit, PooledStatistic, Sample, Tombstone
from worker.data import decode, groups
from worker.engine.workbench import Workbench
from worker.jobs.unlearn.inputs import BATCH
from worker.jobs.unlearn.rounds import Basis, JudgedVersion
from worker.unlearning.audit import pooled
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.pooled import Unit
from worker.unlearning.errors import NotFinite
from worker.unlearning.evaluation import Observed, Outputs

REMEASURED = 1000
"""The most samples that a job measures again: those of the newest jobs."""

LOOKED_THROUGH = 200_000
"""The most training samples that are looked through for forgotten ones: a digest for each."""

log = structlog.get_logger()

Standing = Mapping[UUID, Sequence[tuple[str, int]]]
"""By job: ids and positions of what it made forgotten and is still in the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What a job adds to the pool, and what the pool says."""

    mine: Sequence[tuple[Unit, Unit]]
    """Of each unit that the job makes forgotten: before, and after."""

    found: pooled.Pooled
    requests: int
    remeasured: int
    """How many of the samples were measured in the new version, those of this job included."""

    days: int


def measure(bench: Workbench, basis: Basis, made: JudgedVersion) -> Pool | None:
    """Judge all that was forgotten in the policy's days, this job's samples included.

    None where the policy keeps nothing.
    """
    days = basis.order.policy.pooled_audit_days
    if days == 0:
        return None
    bench.report("judging all that was forgotten together", 0.98)
    mine = [
        (before, after)
        for before, after in zip(
            *(_units(each, basis.inputs.groups) for each in (basis.before, made.observed)),
            strict=True,
        )
        if before is not None and after is not None
    ]
    for attempt in bench.transaction():
        with attempt as session:
            earlier = _earlier(session, basis.order.model.id, bench.claim.job_id, days)
            jobs = [*earlier, bench.claim.job_id]
            requests = session.scalar(
                select(func.count(DeletionTarget.request_id.distinct())).where(
                    DeletionTarget.job_id.in_(jobs)
                )
            )
            standing = _standing(session, basis, list(earlier))
    again = _measured_again(bench, basis, made, standing)
    before, after = ([pair[side] for pair in mine] for side in (0, 1))
    remeasured = sum(unit.samples for unit in after)
    for job_id, pairs in earlier.items():
        before += [old for old, _ in pairs]
        new = again.get(job_id, [])
        if sum(unit.samples for unit in new) == sum(old.samples for old, _ in pairs):
            remeasured += sum(unit.samples for unit in new)
            after += new
        else:
            after += [unit for _, unit in pairs]
    return Pool(
        mine=mine,
        found=pooled.judge(after, before),
        requests=requests or 0,
        remeasured=remeasured,
        days=days,
    )


def store(session: Session, pool: Pool | None, job: Job, *, version: int, served: bool) -> None:
    """Keep the job's units, and what the pool says of a version that is served. If what was
    forgotten can be told apart now and could not before, it is made known."""
    session.execute(delete(PooledStatistic).filter_by(job_id=job.id))
    if pool is None or job.model_id is None:
        return
    session.add_all(
        PooledStatistic(
            job_id=job.id,
            unit=number,
            model_id=job.model_id,
            samples=after.samples,
            label=after.label,
            before=before.share,
            after=after.share,
            peers=after.peers,
            everyone=after.everyone,
        )
        for number, (before, after) in enumerate(pool.mine)
    )
    if not served:
        return
    verdict = Verdict(pool.found.verdict)
    last = session.scalars(
        select(PooledAudit.verdict)
        .filter_by(model_id=job.model_id)
        .order_by(PooledAudit.version.desc())
        .limit(1)
    ).first()
    returned = verdict is Verdict.FAIL and last in (Verdict.PASS, Verdict.NO_POWER)
    session.add(
        PooledAudit(
            job_id=job.id,
            model_id=job.model_id,
            version=version,
            verdict=verdict,
            returned=returned,
            figures=_figures(pool),
        )
    )
    if returned:
        event = MemoryReturned(
            version=version,
            job=job.id,
            requests=pool.requests,
            samples=pool.found.samples,
            remeasured=pool.remeasured,
        )
        trail.record(session, "worker", job.model_id, event)
        asked = select(DeletionTarget.request_id).where(DeletionTarget.job_id == job.id)
        outbox.announce(session, "memory_returned", session.scalars(asked.distinct()).all())


def _figures(pool: Pool) -> dict[str, Any]:
    told = asdict(pool.found)
    del told["verdict"]
    return {
        **told,
        "requests": pool.requests,
        "remeasured": pool.remeasured,
        "days": pool.days,
    }


def _units(observed: Observed, together: Groups | None) -> list[Unit | None]:
    mine, unseen = observed.forget, observed.holdout
    return pooled.units(mine.losses(), mine.labels, unseen.losses(), unseen.labels, together)


def _earlier(
    session: Session, model_id: UUID, job_id: UUID, days: int
) -> dict[UUID, list[tuple[Unit, Unit]]]:
    """The units of earlier jobs whose samples the model has forgotten, the newest job first."""
    forgotten = exists().where(Job.id == PooledStatistic.job_id, Job.forgotten_at.is_not(None))
    rows = session.scalars(
        select(PooledStatistic)
        .where(
            PooledStatistic.model_id == model_id,
            PooledStatistic.job_id != job_id,
            PooledStatistic.created_at > func.now() - timedelta(days=days),
            forgotten,
        )
        .order_by(PooledStatistic.created_at.desc(), PooledStatistic.job_id, PooledStatistic.unit)
    )
    found: dict[UUID, list[tuple[Unit, Unit]]] = {}
    for row in rows:
        pair = tuple(
            Unit(
                samples=row.samples,
                label=row.label,
                share=share,
                peers=row.peers,
                everyone=row.everyone,
            )
            for share in (row.before, row.after)
        )
        found.setdefault(row.job_id, []).append((pair[0], pair[1]))
    return found


def _standing(session: Session, basis: Basis, jobs: Sequence[UUID]) -> Standing:
    """The samples of these jobs that are still in the dataset's files: whole jobs, in this order,
    as long as they are at most REMEASURED together."""
    if not jobs or int(basis.inputs.class_counts.sum()) > LOOKED_THROUGH:
        return {}
    model = basis.order.model
    # One digest and one look into the index for each sample, as in `tombstones.has`.
    digest = tombstones.digest(tombstones.key_of(model.id), Sample.sample_id)
    once = select(digest).correlate_except(None).scalar_subquery()
    by = select(Tombstone.job_id).where(Tombstone.model_id == model.id, Tombstone.digest == once)
    each = (
        select(by.scalar_subquery().label("job_id"), Sample.sample_id, Sample.position)
        .where(Sample.dataset_id == model.dataset_id, Sample.split == Split.TRAIN)
        .offset(0)
        .subquery()
    )
    rows = session.execute(
        select(each.c.job_id, each.c.sample_id, each.c.position)
        .where(each.c.job_id.in_(jobs))
        .order_by(each.c.position)
    )
    found: dict[UUID, list[tuple[str, int]]] = {}
    for job_id, sample_id, position in rows:
        found.setdefault(job_id, []).append((sample_id, position))
    chosen, left = {}, REMEASURED
    for job_id in jobs:
        if job_id in found and len(found[job_id]) <= left:
            chosen[job_id] = found[job_id]
            left -= len(found[job_id])
    return chosen


def _measured_again(
    bench: Workbench, basis: Basis, made: JudgedVersion, standing: Standing
) -> dict[UUID, list[Unit]]:
    """The units of these jobs under the new version; none if the files changed meanwhile, or if it
    has no finite answer to one of the samples: what others asked for does not stop this job."""
    named = [each for samples in standing.values() for each in samples]
    if not named:
        return {}
    order, inputs = basis.order, basis.inputs
    try:
        samples = decode.fetch(inputs.source, named, order.model.preprocessing)
        shown = Outputs.of(made.network, samples, BATCH)
    except (JobError, NotFinite) as error:
        log.warning("pool.not_measured_again", samples=len(named), kind=type(error).__name__)
        return {}
    ids = [sample_id for sample_id, _ in named]
    leaving = order.outside.union(order.forget_ids)
    for attempt in bench.transaction():
        with attempt as session:
            codes = groups.codes(session, order.model, [*ids, *inputs.audit_ids, *order.forget_ids])
            in_part = groups.in_part(session, order.model, ids, leaving=leaving)
            removing = session.scalars(
                select(Job.id).where(
                    Job.id.in_(list(standing)), Job.objective == Objective.REMOVE_CLASS
                )
            ).all()
    sizes = [len(ids), len(inputs.audit_ids), len(order.forget)]
    _, theirs, later = torch.split(codes, sizes)
    unseen, start, found = made.observed.holdout, 0, {}
    for job_id, samples_of_job in standing.items():  # the newest first
        here = slice(start, start := start + len(samples_of_job))
        mine = codes[here]
        others = ~torch.isin(theirs, mine)
        # a group that later jobs had more of was in part when this job measured it
        known = in_part[here] | torch.isin(mine, later)
        units = pooled.units(
            shown.losses()[here],
            shown.labels[here],
            unseen.losses()[others],
            unseen.labels[others],
            Groups(
                forget=mine,
                holdout=theirs[others],
                in_part=None if job_id in removing else known,
            ),
        )
        found[job_id] = [unit for unit in units if unit is not None]
        later = torch.cat([later, mine])
    return found
