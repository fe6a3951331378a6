"""The job that makes a trained model known: its weights become version 1, the champion.

Weights and head are tried on a few samples. Then one pass over the dataset measures the features of
all training samples and stores the reservoir, so that no later job needs a pass.

Shapes: N samples, d feature dimensions, C classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from torch import Tensor, nn

from domain import jobs, objects, trail
from domain.errors import JobError, LocationRefused
from domain.events import ModelChecked, VersionCreated
from domain.locations import allowed_path
from domain.policy import Policy
from domain.preprocessing import InputKind, refusal
from domain.states import RegistrationStatus, Split, VersionStatus
from domain.tables import Dataset, Job, Model, ModelVersion, Sample
from worker.data import decode, drawn, preview, reservoir, specimens, unseen, version_statistics
from worker.data.drawn import Drawn
from worker.data.parquet import Source
from worker.data.source import open_source
from worker.data.survey import BATCH, Survey, require_finite, survey
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.jobs import frozen_head, plausibility, timing, train_references
from worker.jobs.examined import Examined, Offered
from worker.jobs.plausibility import Answered
from worker.jobs.unlearn.unchanged import made_with
from worker.networks import architectures, beside, functions, vocabulary, weights
from worker.store import version_files
from worker.unlearning.evaluation import Outputs, accuracy
from worker.unlearning.network import Network

MOVED_ON = "another state of the dataset was indexed meanwhile"
TRIED = 8
"""Samples the network is tried on before the pass."""


def register_model(bench: Workbench) -> None:
    """Check the model, measure it, and store version 1.

    Raises:
        JobError: the weights, the architecture, the head or the dataset is not as registered.
        LeaseLost: another worker has the job.
    """
    for attempt in bench.transaction():
        with attempt as session:
            job = session.get_one(Job, bench.claim.job_id)
            model = session.get_one(Model, job.model_id)
            dataset = session.get_one(Dataset, model.dataset_id)
    examined = examine(
        bench,
        model,
        dataset,
        Offered(model.weights_uri, model.expected_accuracy, accept_accuracy=model.accept_accuracy),
    )
    _record(bench, model, dataset, examined)


def examine(
    bench: Workbench,
    model: Model,
    dataset: Dataset,
    offered: Offered,
    require: Callable[[dict[str, Any], beside.Found, str], None] = lambda *_: None,
) -> Examined:
    """Check the weights and measure them on the dataset, and write the files of a version.

    Args:
        require: raises JobError where the architecture, what lies beside the weights or their
            digest is not as it must be, before anything that takes long.

    Raises:
        JobError: the weights, the architecture, the head or the dataset is not as registered.
        LeaseLost: another worker has the job.
    """
    if problem := refusal(dataset.definition, dataset.report, model.preprocessing):
        raise JobError(problem)
    bench.report("checking the weights", 0.01)
    for attempt in bench.transaction():
        with attempt as session:
            wanted = drawn.draw(session, model, dataset, offered.left_out)
    allow = partial(_allowed, bench)
    location = allow(offered.weights_uri)
    architecture = architectures.completed(model.architecture, location, allow)
    source = open_source(bench, dataset)
    if source.arguments is not None:
        architecture = {**architecture, "inputs": source.arguments}
    found = _beside(location, architecture, model, source, allow)
    digest = weights.store(bench.store, weights.files(location, allow))
    require(architecture, found, digest)
    model.preprocessing = found.preprocessing  # what follows uses it, and stores it at the end
    module = architectures.build(architecture, bench.settings.factories)
    weights.load(module, bench.store.path(digest))
    beside.check_padding(module, location, source.arguments, allow)
    if source.kind is InputKind.TOKENS:
        vocabulary.require_known(module, (dataset.report or {})["inputs"], source.arguments)
    network = _network(bench, module, model, source)
    with vocabulary.checked(module):
        classes = _try_out(bench, network, source, model, wanted.by_split[Split.TRAIN][:TRIED])
        beside.check_classes(found, classes)
        few = wanted.by_split[Split.TRAIN][:TRIED]
        frozen = frozen_head.examined(bench, model, network, source, few, allow)
        places, left_out = wanted.positions, offered.left_out
        gathered = survey(
            bench, network, source, model, dataset,
            wanted=places, classes=classes, left_out=left_out,
        )  # fmt: skip
        head = None
        if frozen is not None:
            head = frozen, frozen_head.keep(bench, model, dataset, network, source, left_out)
        kept, digests, figures = _measured(
            bench, model, dataset, digest, network, gathered, wanted, offered, head
        )
    bench.report("looking for near-duplicates", 0.95)
    return Examined(
        architecture=architecture,
        found=found,
        network=network,
        source=source,
        kept=kept,
        class_counts=gathered.class_counts,
        digests=digests,
        figures=figures,
        compared=gathered.comparison.result(bench.device),
        timed=timing.at_registration(bench, model, dataset, network, kept, gathered.class_counts),
    )


def _beside(
    location: Path,
    architecture: dict[str, Any],
    model: Model,
    source: Source,
    allow: Callable[[str], Path],
) -> beside.Found:
    """What lies beside the weights, held against the registration and the dataset."""

    def prepare(images: pa.Array, fields: dict[str, Any]) -> Tensor:
        return decode.preparer(fields, InputKind.IMAGE)(decode.decode(images, fields, None))

    return beside.found(
        location if location.is_dir() else location.parent,
        architecture,
        model.declared or {"preprocessing": model.preprocessing},
        beside.Inputs.of(source.kind, source.input_type, source.input_shape),
        source.classes.names,
        allow,
        prepare,
    )


def _allowed(bench: Workbench, location: str) -> Path:
    """The file or directory, links resolved: one in an allowed directory may lead out of it."""
    try:
        return allowed_path(location, bench.settings.data_roots)
    except LocationRefused as error:
        raise JobError(error.detail) from error


def _network(bench: Workbench, module: nn.Module, model: Model, source: Source) -> Network:
    if not model.head or model.head not in dict(module.named_modules()):
        linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        raise JobError(
            f"The network has no module {model.head!r} to use as its head; its linear modules are "
            f"{', '.join(linear[-10:]) or 'none'}. Register the model with one of them."
        )
    prepare = decode.preparer(model.preprocessing, source.kind)
    pool = architectures.pooling(module, model.head)
    return Network(module.to(bench.device), head=model.head, prepare=prepare, pool=pool)


def _try_out(
    bench: Workbench,
    network: Network,
    source: Source,
    model: Model,
    few: Sequence[tuple[str, int]],
) -> int:
    """The number of classes of the network, after checks on a few real samples."""
    if not few:
        raise JobError(
            "The dataset has no training samples; register the model with a dataset that has some."
        )
    for attempt in bench.transaction():
        with attempt as session:
            highest = session.scalars(
                select(func.max(Sample.label)).filter_by(dataset_id=model.dataset_id)
            ).one()
    samples = decode.fetch(source, few, model.preprocessing)
    entries: list[None] = []
    head = network.model.get_submodule(network.head)
    with (
        functions.users_code("The network"),
        head.register_forward_pre_hook(lambda *_: entries.append(None)),
    ):
        features, logits = network.outputs(samples, TRIED)
    if len(entries) != 1:
        raise JobError(
            f"The network enters its head {network.head!r} {len(entries)} times in one forward "
            "pass; name the last module instead, which it enters once."
        )
    if network.pool is not None and not _heads_agree(network, features, logits):
        raise JobError(
            f"The input of {network.head!r} does not lead to the network's answer; name the last "
            "module, which produces the logits."
        )
    if len(features) != len(samples) or len(logits) != len(samples):
        raise JobError(
            "The network does not return one row of logits per sample; register an architecture "
            "that does."
        )
    require_finite(features, logits)
    if logits.shape[1] <= highest:
        raise JobError(
            f"The network has {logits.shape[1]} classes, but the dataset has the label {highest}. "
            "Register the model with the dataset it was trained on."
        )
    return logits.shape[1]


def _heads_agree(network: Network, features: Tensor, logits: Tensor) -> bool:
    """Whether the vectors picked from the sequences are those whose logits count."""
    head = network.model.get_submodule(network.head)
    with torch.no_grad():
        again = head(features.to(network.device)).float().cpu()
    return again.shape == logits.shape and bool(torch.allclose(again, logits, atol=1e-4))


def _measured(
    bench: Workbench,
    model: Model,
    dataset: Dataset,
    weights_sha256: str,
    network: Network,
    gathered: Survey,
    wanted: Drawn,
    offered: Offered,
    head: tuple[frozen_head.Frozen, frozen_head.Kept] | None,
) -> tuple[pa.Table, dict[str, str], dict[str, Any]]:
    """The reservoir, the digests of the version's files, which are written, and its figures."""
    bench.report("measuring hold-out and test samples", 0.93)
    kept = gathered.kept()

    def outputs(rows: pa.Table) -> Outputs:
        samples = reservoir.decoded(rows, model.preprocessing, dataset.definition)
        with functions.users_code("The network"):
            found = Outputs.of(network, samples, BATCH)
        require_finite(found.features, found.logits)
        return found

    test = outputs(reservoir.of_split(kept, Split.TEST))
    everyone = outputs(reservoir.only(kept, [each for each, _ in wanted.by_split[Split.HOLDOUT]]))
    holdout = everyone
    if wanted.unseen is not None:
        kept = unseen.marked(kept, wanted.unseen)
        holdout = outputs(reservoir.of_split(kept, Split.HOLDOUT))
    moments, counts = gathered.moments(), gathered.class_counts
    trained = Answered(gathered.class_right, counts)
    check = plausibility.require_plausible(
        trained,
        Answered.of(everyone.logits, everyone.labels, len(counts)),
        holdout_size=_size(dataset, Split.HOLDOUT),
        expected=offered.expected_accuracy,
        accepted=offered.accept_accuracy,
    )
    known = version_statistics.describe(holdout, moments, counts)
    kept = specimens.taken(
        kept, network, model.preprocessing, dataset.definition, made_with(bench, model)
    )
    digests = {
        "weights_sha256": weights_sha256,
        "statistics_sha256": version_statistics.write(bench.store, known),
        "reservoir_sha256": preview.store_reservoir(bench.store, kept, model.preprocessing),
    }
    figures = {
        "retain_accuracy": trained.accuracy,
        "holdout_accuracy": accuracy(holdout),
        "test_accuracy": accuracy(test),
        "accuracy_check": check,
        "features": len(moments.mean),
        "classes": len(counts),
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        "weights_dtypes": weights.dtypes(objects.path_of(bench.store.root, weights_sha256)),
        "samples": (dataset.report or {}).get("samples"),
        "reservoir": {split.value: _count(kept, split) for split in Split},
        **_of_groups(dataset, kept),
    }
    if head is not None:
        frozen, features = head
        retain = outputs(reservoir.of_split(kept, Split.TRAIN))
        digests["features_sha256"] = features.sha256
        figures[frozen_head.NAME] = frozen_head.compared(
            model, frozen, features, retain=retain, holdout=everyone, test=test
        )
    return kept, digests, figures


def _record(bench: Workbench, model: Model, dataset: Dataset, examined: Examined) -> None:
    """Store what was found and version 1, in one transaction."""
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            version_files.keep_files(session, bench.store, examined.digests.values())
            row = session.get_one(Model, model.id)
            if not is_state(session, dataset):
                jobs.release(session, job, actor="worker", why=MOVED_ON)
                return
            row.state = dataset.state
            row.architecture = examined.architecture
            row.preprocessing = examined.found.preprocessing
            row.found = examined.found.stored()
            note_found(session, row, examined)
            _add_version(session, job, model, examined.digests, examined.figures)
            jobs.complete(session, job, actor="worker")
            train_references.queue(session, model)


def is_state(session: Session, dataset: Dataset) -> bool:
    """Whether the dataset has still the state in which it was read; it keeps that until the
    transaction ends."""
    now = select(Dataset.state).filter_by(id=dataset.id).with_for_update(read=True)
    return session.scalars(now).one() == dataset.state


def note_found(session: Session, model: Model, examined: Examined) -> None:
    """Store what was timed, and which samples of the model are nearly the same as others."""
    timing.keep(model, examined.timed)
    model.near_duplicates = examined.compared.report()
    if Policy.model_validate(model.policy).group == "near_duplicates":
        examined.compared.store(session, model.id)


def _of_groups(dataset: Dataset, kept: pa.Table) -> dict[str, Any]:
    """What the figures say of the hold-out's groups, where the dataset has groups."""
    _, for_audit = reservoir.holdout_halves(kept)
    told = unseen.remarks(dataset.report, audited=len(for_audit), leaking=reservoir.leaking(kept))
    return {"warnings": told} if told else {}


def _size(dataset: Dataset, split: Split) -> int:
    """How many samples of the split were indexed."""
    return int(((dataset.report or {}).get("samples") or {}).get(split.value, 0))


def _count(table: pa.Table, split: Split) -> int:
    return int(pc.sum(pc.equal(table["split"], split.value)).as_py() or 0)


def _add_version(
    session: Session,
    job: Job,
    model: Model,
    digests: dict[str, str],
    figures: dict[str, Any],
) -> None:
    row = session.get_one(Model, model.id)
    row.status, row.failure = RegistrationStatus.READY, None
    row.ready_at = func.now()
    version = ModelVersion(
        model_id=model.id,
        number=1,
        status=VersionStatus.CHAMPION,
        job_id=job.id,
        figures=figures,
        **digests,
    )
    session.add(version)
    session.flush()
    check = figures["accuracy_check"]
    trail.record(
        session, "worker", model.id,
        ModelChecked(
            job=job.id, train_samples=check["train_samples"], train_right=check["train_right"],
            holdout_samples=check["holdout_samples"], holdout_right=check["holdout_right"],
            accepted=check["objections"] if check["accepted"] else None,
        ),
    )  # fmt: skip
    if frozen_head.NAME in figures:
        frozen_head.tell(session, job, model, figures[frozen_head.NAME])
    trail.record(
        session, "worker", version.id,
        VersionCreated(
            model=model.id, number=version.number, job=job.id,
            weights_sha256=version.weights_sha256, statistics_sha256=version.statistics_sha256,
            reservoir_sha256=version.reservoir_sha256, features_sha256=version.features_sha256,
            accept_accuracy=model.accept_accuracy or None,
        ),
    )  # fmt: skip
