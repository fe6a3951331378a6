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
from domain.tables import (
    DeletionTarget,
    Job,
    Model,
    PooledAudit,
    PooledStatistic,
    Sample,
    Tombstone,
)
from worker.data import decode, groups
from worker.data.parquet import Source
from worker.engine.workbench import Workbench
from worker.jobs.unlearn.inputs import BATCH
from worker.jobs.unlearn.rounds import Basis, JudgedVersion
from worker.unlearning.audit import pooled
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.pooled import Unit
from worker.unlearning.errors import NotFinite
from worker.unlearning.evaluation import Observed, Outputs
from worker.unlearning.network import Network

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
    seen_before: Sequence[Unit] = ()
    """The units of those samples in the versions that knew them."""

    seen: Sequence[Unit] = ()
    """The same in the new version."""


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
    order, inputs = basis.order, basis.inputs
    version = Version(
        model=order.model,
        network=made.network,
        source=inputs.source,
        unseen=made.observed.holdout,
        unseen_ids=inputs.audit_ids,
        trained_on=int(inputs.class_counts.sum()),
        forgetting=order.forget_ids,
    )
    return judged_together(bench, version, mine, days)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What is to be judged by what was forgotten before it was made."""

    model: Model
    network: Network
    source: Source
    unseen: Outputs
    """Of hold-out samples (H) that the network never saw."""

    unseen_ids: Sequence[str]
    trained_on: int
    """Training samples."""

    forgetting: Sequence[str]
    """Ids that it is the first to be without."""


def judged_together(
    bench: Workbench, version: Version, mine: Sequence[tuple[Unit, Unit]], days: int
) -> Pool:
    """Judge these units together with those of the model's jobs in the last days."""
    for attempt in bench.transaction():
        with attempt as session:
            earlier = _earlier(session, version.model.id, bench.claim.job_id, days)
            jobs = [*earlier, bench.claim.job_id]
            requests = session.scalar(
                select(func.count(DeletionTarget.request_id.distinct())).where(
                    DeletionTarget.job_id.in_(jobs)
                )
            )
            standing = _standing(session, version, list(earlier))
    again = _measured_again(bench, version, standing)
    before, after = ([pair[side] for pair in mine] for side in (0, 1))
    seen_before, seen = [*before], [*after]
    for job_id, pairs in earlier.items():
        old, new = [pair[0] for pair in pairs], again.get(job_id, [])
        before += old
        if sum(unit.samples for unit in new) == sum(unit.samples for unit in old):
            after += new
            seen_before += old
            seen += new
        else:
            after += [unit for _, unit in pairs]
    return Pool(
        mine=mine,
        found=pooled.judge(after, before),
        requests=requests or 0,
        remeasured=sum(unit.samples for unit in seen),
        days=days,
        seen_before=seen_before,
        seen=seen,
    )


def compared(
    bench: Workbench, samples: Sequence[tuple[str, int]], before: Version, after: Version
) -> list[tuple[Unit, Unit]]:
    """The units of these samples, by ids and positions, under two versions; of the first of them
    where they are very many."""
    some = {bench.claim.job_id: samples[:REMEASURED]}
    old, new = (_measured_again(bench, version, some) for version in (before, after))
    pairs = zip(old.get(bench.claim.job_id, []), new.get(bench.claim.job_id, []), strict=True)
    return list(pairs) if old and new else []


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


def _standing(session: Session, version: Version, jobs: Sequence[UUID]) -> Standing:
    """The samples of these jobs that are still in the dataset's files: whole jobs, in this order,
    as long as they are at most REMEASURED together."""
    if not jobs or version.trained_on > LOOKED_THROUGH:
        return {}
    model = version.model
    # One digest and one look into the index for each sample, as in `tombstones.has`.
    digest = tombstones.digest(tombstones.key_of(model.id), Sample.sample_id)
    once = select(digest).correlate_except(None).scalar_subquery()
    by = select(Tombstone.job_id).where(Tombstone.model_id == model.id, Tombstone.digest == once)
    each = (
        select(by.scalar_subquery().label("job_id"), Sample.sample_id, Sample.position)
        .where(
            Sample.dataset_id == model.dataset_id,
            Sample.split == Split.TRAIN,
            Sample.since <= model.state,
        )
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
    bench: Workbench, version: Version, standing: Standing
) -> dict[UUID, list[Unit]]:
    """The units of these jobs under the new version; none if the files changed meanwhile, or if it
    has no finite answer to one of the samples: what others asked for does not stop this job."""
    named = [each for samples in standing.values() for each in samples]
    if not named:
        return {}
    try:
        samples = decode.fetch(version.source, named, version.model.preprocessing)
        shown = Outputs.of(version.network, samples, BATCH)
    except (JobError, NotFinite) as error:
        log.warning("pool.not_measured_again", samples=len(named), kind=type(error).__name__)
        return {}
    ids = [sample_id for sample_id, _ in named]
    for attempt in bench.transaction():
        with attempt as session:
            codes = groups.codes(
                session, version.model, [*ids, *version.unseen_ids, *version.forgetting]
            )
            in_part = groups.in_part(
                session, version.model, ids, leaving=frozenset(version.forgetting)
            )
            removing = session.scalars(
                select(Job.id).where(
                    Job.id.in_(list(standing)), Job.objective == Objective.REMOVE_CLASS
                )
            ).all()
    sizes = [len(ids), len(version.unseen_ids), len(version.forgetting)]
    _, theirs, later = torch.split(codes, sizes)
    unseen, start, found = version.unseen, 0, {}
    for job_id, samples_of_job in standing.items():  # the newest first
        here = slice(start, start := start + len(samples_of_job))
        mine = codes[here]
        others = ~torch.isin(theirs, mine)
        known = in_part[here]
        if job_id != bench.claim.job_id:
            # a group that later jobs had more of was in part when this job measured it
            known = known | torch.isin(mine, later)
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
