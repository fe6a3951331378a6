"""The job that makes weights from elsewhere the champion of a model that is registered already.

What was declared of their training is held against what is forgotten. The weights are examined as
those of a new model; what they can still tell of forgotten samples is measured where rows are left.
Then, in one transaction, they are served, and what was asked of the model is answered by them, or
goes on with them.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from domain import forgetting, former, jobs, requests, trail
from domain.drift import Drift
from domain.errors import JobError
from domain.events import VersionCreated
from domain.policy import Policy
from domain.states import Mode, RegistrationStatus, RequestStatus, Split, VersionStatus
from domain.tables import (
    Dataset,
    DeletionTarget,
    Job,
    Model,
    ModelVersion,
    Sample,
    VersionRegistration,
)
from domain.version_events import VersionDeclared
from worker.data import reservoir
from worker.data.survey import BATCH
from worker.engine import environment, lease
from worker.engine.workbench import Workbench
from worker.jobs import declaration, train_references
from worker.jobs.declaration import UNANSWERED, Declared
from worker.jobs.examined import Examined, Offered
from worker.jobs.register_model import MOVED_ON, examine, is_state, note_found
from worker.jobs.unlearn import pooled
from worker.jobs.unlearn.champion import load_version, users_code
from worker.jobs.unlearn.pooled import Pool, Version
from worker.networks import beside
from worker.store import version_files
from worker.unlearning.audit.pooled import judge
from worker.unlearning.evaluation import Outputs
from worker.unlearning.network import Network

MODE_REASON = (
    "It was trained elsewhere. Whoever registered it declared what it was trained on; the ids were "
    "checked, the training was not observed."
)
MEMORY = "memory"
"""What may be objected to such a version, besides its accuracy, and accepted beforehand."""

UNIMPORTANT = frozenset({"transformers_version"})
"""Keys of a config.json that say nothing of the network."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """What is to be registered, read once."""

    row: VersionRegistration
    model: Model
    dataset: Dataset
    champion: ModelVersion
    known: Mapping[str, int]
    """Digests of the weights of the model's versions, and their numbers."""


def register_version(bench: Workbench) -> None:
    """Check the weights and what was declared of them, measure them, and serve them.

    Raises:
        JobError: they were trained on what is forgotten, they are not of the model's architecture,
            or something is not as registered. The champion stays.
        LeaseLost: another worker has the job.
    """
    for attempt in bench.transaction():
        with attempt as session:
            offer = _read(session, bench.claim.job_id)
    named = declaration.ids_in_file(bench, offer.row.trained_on)
    for attempt in bench.transaction():
        with attempt as session:
            declared = _hold(session, offer, named)
    registered = _registered(offer.model)
    left_out = declared.left_out | declared.named
    examined = examine(
        bench,
        offer.model,
        offer.dataset,
        Offered(
            offer.row.weights_uri,
            offer.row.expected_accuracy,
            accept_accuracy=offer.row.accept_accuracy,
            left_out=left_out,
        ),
        lambda architecture, found, digest: _require_fits(
            offer, registered, architecture, found, digest
        ),
    )
    pool = _pool(bench, offer, examined, declared)
    objections = _objections(offer, examined, pool)
    _record(bench, offer, examined, declared, named, pool, objections)


def _read(session: Session, job_id: UUID) -> _Offer:
    row = session.scalars(select(VersionRegistration).filter_by(job_id=job_id)).one()
    model = session.get_one(Model, row.model_id)
    versions = session.scalars(select(ModelVersion).filter_by(model_id=model.id)).all()
    return _Offer(
        row,
        model,
        session.get_one(Dataset, model.dataset_id),
        next(each for each in versions if each.status is VersionStatus.CHAMPION),
        {each.weights_sha256: each.number for each in versions},
    )


def _hold(session: Session, offer: _Offer, named: frozenset[str] | None) -> Declared:
    return declaration.hold(session, offer.model, offer.dataset, offer.row.trained_on, named)


def _registered(model: Model) -> str:
    return _canonical(model.architecture, model.preprocessing, (model.found or {}).get("classes"))


def _canonical(
    architecture: Mapping[str, Any], preprocessing: Mapping[str, Any], classes: Any
) -> str:
    config = {
        key: value
        for key, value in (architecture.get("config") or {}).items()
        if key not in UNIMPORTANT
    }
    return json.dumps([{**architecture, "config": config}, preprocessing, classes], sort_keys=True)


def _require_fits(
    offer: _Offer,
    registered: str,
    architecture: dict[str, Any],
    found: beside.Found,
    digest: str,
) -> None:
    """Raise JobError unless the weights are new, and of the network that the model is."""
    if digest in offer.known:
        raise JobError(
            f"These weights are those of version {offer.known[digest]} of the model, which is "
            "registered already. Check the file that `weights` names."
        )
    classes = None if offer.model.found is None else found.classes
    if _canonical(architecture, found.preprocessing, classes) != registered:
        raise JobError(
            "The files beside the weights describe another architecture, preprocessing or order of "
            f"classes than the model {offer.model.name!r} was registered with. Correct them, or "
            "register the weights as a new model."
        )


def _pool(bench: Workbench, offer: _Offer, examined: Examined, declared: Declared) -> Pool | None:
    """What the version can tell of samples it was trained without, as was declared, and of what the
    model forgot earlier, where their rows are left. None where the policy keeps nothing, or there
    is nothing to compare with."""
    days = Policy.model_validate(offer.model.policy).pooled_audit_days
    if days == 0:
        return None
    bench.report("looking for what was forgotten", 0.97)
    model, dataset = offer.model, offer.dataset
    _, audit = reservoir.holdout_halves(examined.kept)
    if not len(audit):
        return None  # nothing shows what the model answers to what it never saw
    samples = reservoir.decoded(audit, model.preprocessing, dataset.definition)

    def version(network: Network) -> Version:
        return Version(
            model=model,
            network=network,
            source=examined.source,
            unseen=Outputs.of(network, samples, BATCH),
            unseen_ids=audit["sample_id"].to_pylist(),
            trained_on=int(examined.class_counts.sum()),
            forgetting=sorted(declared.left_out),
        )

    now = version(examined.network)
    without = _positions(bench, dataset.id, declared.left_out)
    mine = []
    if without:
        before = version(load_version(bench, model, dataset, offer.champion))
        mine = pooled.compared(bench, without, before, now)
    return pooled.judged_together(bench, now, mine, days)


def _positions(
    bench: Workbench, dataset_id: UUID, sample_ids: Collection[str]
) -> Sequence[tuple[str, int]]:
    """Ids and positions of the first of these samples."""
    for attempt in bench.transaction():
        with attempt as session:
            found = session.execute(
                select(Sample.sample_id, Sample.position)
                .where(
                    Sample.dataset_id == dataset_id,
                    Sample.split == Split.TRAIN,
                    Sample.sample_id.in_(sorted(sample_ids)[: pooled.REMEASURED]),
                )
                .order_by(Sample.position)
            ).all()
    return [(sample_id, position) for sample_id, position in found]


def _objections(offer: _Offer, examined: Examined, pool: Pool | None) -> list[str]:
    """What is objected to the version and was accepted beforehand.

    Raises:
        JobError: it can tell forgotten samples from unseen ones, and that was not accepted.
    """
    objections = list(examined.figures["accuracy_check"]["objections"])
    if pool is None:
        return objections
    found = judge(pool.seen, pool.seen_before)
    if found.verdict != "fail" or found.observed is None or found.observed <= 0.5:
        return objections
    if not offer.row.accept_memory:
        raise JobError(
            f"The weights know what they were declared not to be trained on: of {found.samples} "
            f"samples that the model has forgotten or that were left out, {found.reason} Look for "
            "copies of them under other ids, and for the checkpoint that the training began with. "
            "If the weights are as they should be, register them with `accept_memory`; every "
            "certificate that rests on them will then say so."
        )
    return [*objections, MEMORY]


def _record(
    bench: Workbench,
    offer: _Offer,
    examined: Examined,
    declared: Declared,
    named: frozenset[str] | None,
    pool: Pool | None,
    objections: Sequence[str],
) -> None:
    """Everything in one transaction. Locked are candidates first, then the champion: so does who
    decides about them."""
    model_id, dataset = offer.model.id, offer.dataset
    for attempt in bench.transaction():
        with attempt as session:
            requests.hold_planner(session)
            job = lease.hold(session, bench.claim)
            if not is_state(session, dataset):
                jobs.release(session, job, actor="worker", why=MOVED_ON)
                return
            of_model = select(ModelVersion).filter_by(model_id=model_id).order_by(ModelVersion.id)
            locked = of_model.with_for_update()
            candidates = session.scalars(locked.filter_by(status=VersionStatus.CANDIDATE)).all()
            champion = session.scalars(locked.filter_by(status=VersionStatus.CHAMPION)).one()
            now = _hold(session, offer, named)
            if replace(now, covered=declared.covered) != declared:
                why = "what the model may be trained on changed meanwhile"
                jobs.release(session, job, actor="worker", why=why)
                return
            version_files.keep_files(session, bench.store, examined.digests.values())
            model = session.get_one(Model, model_id)
            note_found(session, model, examined)
            model.suppressed_samples = 0  # it was looked whether these weights know any
            model.state = dataset.state
            job.base_version_id, job.mode, job.mode_reason = champion.id, Mode.EXACT, MODE_REASON
            job.environment = environment.describe(bench.device, users_code(bench, offer.model))
            version = _new_version(session, job, examined, declared, objections)
            for candidate in candidates:
                forgetting.supersede(session, candidate, actor="worker")
            forgetting.promote(session, version, over=champion, actor="worker")
            covered = declared.covered.keys() & now.covered.keys()
            _answer(session, job, model_id, covered)
            ids = declared.left_out
            session.flush()
            former.settle(session, dataset.id)
            forgetting.record_left_out(session, job_id=job.id, model_id=model_id, sample_ids=ids)
            _tell(session, offer, version, declared, champion, pool, objections, len(covered))
            row = session.get_one(VersionRegistration, offer.row.id)
            row.status, row.ready_at = RegistrationStatus.READY, func.now()
            row.found = _found(declared, pool, objections, len(covered))
            jobs.complete(session, job, actor="worker")
            pooled.store(session, pool, job, version=version.number, served=True)
            train_references.queue(session, model)


def _new_version(
    session: Session,
    job: Job,
    examined: Examined,
    declared: Declared,
    objections: Sequence[str],
) -> ModelVersion:
    """The version, which the caller serves. Its drift begins anew."""
    highest = select(func.max(ModelVersion.number)).filter_by(model_id=job.model_id)
    number = session.scalars(highest).one() + 1
    trained_on = int(examined.class_counts.sum())
    drift = Drift(number, trained_on, forgotten=0, accuracy_change=0.0)
    return ModelVersion(
        model_id=job.model_id,
        number=number,
        mode=Mode.EXACT,
        job_id=job.id,
        figures={
            **examined.figures,
            "drift": drift.to_figures(),
            "declared": {
                "trained_on": declared.samples,
                "trained_on_sha256": declared.sha256,
                "left_out": len(declared.left_out),
                "accepted": list(objections),
            },
        },
        **examined.digests,
    )


def _answer(session: Session, job: Job, model_id: UUID, covered: Collection[UUID]) -> None:
    """Have this version answer the requests that it was trained without, once the job is
    completed; what waits for a decision about another version waits for a new job."""
    of_model = DeletionTarget.model_id == model_id
    mine = of_model & DeletionTarget.request_id.in_(covered)
    failed = DeletionTarget.status == RequestStatus.FAILED
    requests.move(
        session, RequestStatus.SCHEDULED, mine, failed, actor="worker", job_id=job.id
    )  # no other step leads from there
    session.execute(
        update(DeletionTarget)
        .where(mine, DeletionTarget.status.in_(UNANSWERED))
        .values(job_id=job.id, accepted_job_id=None)
        .execution_options(synchronize_session=False)
    )
    others = DeletionTarget.request_id.not_in(covered)
    review = DeletionTarget.status == RequestStatus.NEEDS_REVIEW
    requests.move(
        session, RequestStatus.PENDING, of_model, others, review, actor="worker", job_id=None
    )
    forgetting.record_forgotten(session, job_id=job.id, model_id=model_id)


def _tell(
    session: Session,
    offer: _Offer,
    version: ModelVersion,
    declared: Declared,
    champion: ModelVersion,
    pool: Pool | None,
    objections: Sequence[str],
    answered: int,
) -> None:
    """Tell the audit trail."""
    trail.record(
        session, "worker", version.id,
        VersionCreated(
            model=offer.model.id, number=version.number, job=version.job_id,
            weights_sha256=version.weights_sha256, statistics_sha256=version.statistics_sha256,
            reservoir_sha256=version.reservoir_sha256, features_sha256=version.features_sha256,
            status=version.status, mode="declared",
            accept_accuracy=offer.row.accept_accuracy or None,
            replaces_sha256=champion.weights_sha256,
        ),
    )  # fmt: skip
    trail.record(
        session, "worker", version.id,
        VersionDeclared(
            registration=offer.row.id, model=offer.model.id, number=version.number,
            job=version.job_id, declared=form(offer.row.trained_on),
            trained_on=declared.samples, trained_on_sha256=declared.sha256,
            left_out=len(declared.left_out), requests=answered,
            remeasured=pool.remeasured if pool else 0, accepted=list(objections) or None,
        ),
    )  # fmt: skip


def form(trained_on: Mapping[str, Any]) -> str:
    """In which of the two forms it was declared."""
    return "file" if "uri" in trained_on else "split"


def _found(
    declared: Declared, pool: Pool | None, objections: Sequence[str], answered: int
) -> dict[str, Any]:
    """What the registration's row keeps."""
    return {
        "trained_on": declared.samples,
        "trained_on_sha256": declared.sha256,
        "left_out": len(declared.left_out),
        "requests": answered,
        "remeasured": pool.remeasured if pool else 0,
        "memory": None if pool is None else judge(pool.seen, pool.seen_before).verdict,
        "accepted": list(objections),
    }
