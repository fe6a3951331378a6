"""What was declared of the training of weights from elsewhere, held against what was forgotten.

Whoever registers them says which samples they were trained on: a file with their ids, or when the
dataset's training split was read. Nothing here looks at the weights, and no id leaves it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import sample_digests
from domain.errors import JobError
from domain.states import OPEN_REQUESTS, RequestStatus, Split
from domain.tables import (
    Dataset,
    DatasetCheck,
    DatasetState,
    DeletionTarget,
    LiftedSample,
    Model,
    RequestSample,
    Sample,
    SuppressionLift,
    Tombstone,
)
from worker.data.parquet_rewrite import fingerprint
from worker.data.sample_ids import sample_ids
from worker.data.source import open_source
from worker.engine.workbench import Workbench

UNSEEN = timedelta(minutes=1)
"""So long may what counts as forgotten from some time on not have been seen by others: it is that
of the beginning of a transaction."""

UNANSWERED = [*OPEN_REQUESTS, RequestStatus.FAILED]
ROWS = 10_000

RETRAIN = (
    "Train without them: `POST /v1/datasets/{dataset}/check` with your training file says which "
    "rows to leave out. Then register what comes of it; the version that is served stays."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A declaration that speaks against nothing that is known."""

    samples: int
    """Of the training split, that the weights were trained on."""

    sha256: str
    """Of their digests under the dataset's key, sorted and joined."""

    left_out: frozenset[str]
    """Samples of the training split without a tombstone that they were trained without."""

    covered: Mapping[UUID, frozenset[str]]
    """By request that is open for the model: what it names, where the weights were trained on
    nothing of it."""

    @property
    def named(self) -> frozenset[str]:
        """What the covered requests name."""
        return frozenset().union(*self.covered.values())


def ids_in_file(bench: Workbench, trained_on: Mapping[str, Any]) -> frozenset[str] | None:
    """The ids of the training samples, if a file was named that has them.

    Raises:
        JobError: it cannot be read, changed meanwhile, or has rows without an id.
    """
    if "uri" not in trained_on:
        return None
    bench.report("reading what it was trained on", 0.0)
    source = open_source(bench, DatasetCheck(uri=trained_on["uri"], column=trained_on["column"]))
    before = {str(file): fingerprint(file) for file in source.files}
    found: set[str] = set()
    missing = 0
    for _, ids in sample_ids(source):
        found.update(each for each in ids if each is not None)
        missing += ids.count(None)
    if {str(file): fingerprint(file) for file in source.files} != before:
        raise JobError(
            "The file with the ids of the training samples changed while it was read; register the "
            "version again once the file is final."
        )
    if missing or not found:
        what = f"{missing} rows without an id" if missing else "no ids"
        raise JobError(
            f"The file with the ids of the training samples has {what}, so it does not say what "
            "the weights were trained on. Name a file with one id in each row."
        )
    return frozenset(found)


def hold(
    session: Session,
    model: Model,
    dataset: Dataset,
    trained_on: Mapping[str, Any],
    named: frozenset[str] | None,
) -> Declared:
    """Hold a declaration against the tombstones, the suppressions and the index.

    Args:
        named: the ids of the file, if there is one.

    Raises:
        JobError: the weights were trained on what is forgotten, or the declaration does not say of
            each training sample whether they were trained on it.
    """
    graves = _Graves.of(session, model, dataset)
    made = sample_digests.digester(dataset.tombstone_key)

    def digest(sample_id: str) -> bytes:
        return made(sample_id.encode())

    indexed = _indexed(session, dataset.id)
    if named is None:
        left_out = _left_out_at(session, dataset, graves, indexed, digest, trained_on)
        names = {name for name, split in indexed.items() if split is Split.TRAIN}
        trained = {name for name in names - left_out if digest(name) not in graves.mine}
    else:
        _require_never_forgotten(dataset, graves, map(digest, named))
        _require_in_training(dataset, indexed, named)
        names = {name for name, split in indexed.items() if split is Split.TRAIN}
        trained = names & named
        left_out = {name for name in names - named if digest(name) not in graves.mine}
    asked = _asked(session, model.id)
    if named is not None:
        open_ids = frozenset().union(*asked.values())
        _require_accounted_for(dataset, graves, [
            digest(name) for name in left_out if name not in open_ids
        ])  # fmt: skip
    return Declared(
        samples=len(trained),
        sha256=sha256(b"".join(sorted(map(digest, trained)))).hexdigest(),
        left_out=frozenset(left_out),
        covered={request_id: ids for request_id, ids in asked.items() if ids and not ids & trained},
    )


@dataclass(frozen=True, slots=True)
class _Graves:
    """The digests of what models of the dataset have forgotten, each with the first time."""

    mine: Mapping[bytes, datetime]
    """Of this model."""

    others: Mapping[bytes, datetime]
    """Of any model of the dataset."""

    lifted: frozenset[bytes]

    @classmethod
    def of(cls, session: Session, model: Model, dataset: Dataset) -> "_Graves":
        mine = select(Tombstone.digest, Tombstone.forgotten_at).filter_by(model_id=model.id)
        everyone = (
            select(Tombstone.digest, func.min(Tombstone.forgotten_at))
            .join(Model, Model.id == Tombstone.model_id)
            .where(Model.dataset_id == dataset.id)
            .group_by(Tombstone.digest)
        )
        lifted = select(LiftedSample.digest).filter_by(dataset_id=dataset.id)
        return cls(
            {row[0]: row[1] for row in session.execute(mine)},
            {row[0]: row[1] for row in session.execute(everyone)},
            frozenset(session.scalars(lifted)),
        )


def _indexed(session: Session, dataset_id: UUID) -> dict[str, Split]:
    rows = session.execute(
        select(Sample.sample_id, Sample.split)
        .filter_by(dataset_id=dataset_id)
        .execution_options(yield_per=ROWS)
    )
    return {sample_id: split for sample_id, split in rows}


def _asked(session: Session, model_id: UUID) -> dict[UUID, frozenset[str]]:
    """What each unanswered request names that this model is to forget."""
    rows = session.execute(
        select(RequestSample.request_id, RequestSample.sample_id)
        .join(DeletionTarget, DeletionTarget.request_id == RequestSample.request_id)
        .where(DeletionTarget.model_id == model_id, DeletionTarget.status.in_(UNANSWERED))
    )
    found: dict[UUID, set[str]] = {}
    for request_id, sample_id in rows:
        found.setdefault(request_id, set()).add(sample_id)
    return {request_id: frozenset(ids) for request_id, ids in found.items()}


def _left_out_at(
    session: Session,
    dataset: Dataset,
    graves: _Graves,
    indexed: Mapping[str, Split],
    digest: Callable[[str], bytes],
    trained_on: Mapping[str, Any],
) -> set[str]:
    """Samples of the training split without a tombstone that were suppressed when it was read.

    Raises:
        JobError: something was forgotten since, or what was suppressed then cannot be known.
    """
    read_at = datetime.fromisoformat(trained_on["split_read_at"])
    lifts = select(func.count()).select_from(SuppressionLift).where(
        SuppressionLift.dataset_id == dataset.id, SuppressionLift.lifted_at <= read_at
    )  # fmt: skip
    if session.scalars(lifts).one():
        raise JobError(
            f"Suppressions of the dataset {dataset.name!r} were lifted before its training split "
            "was read, so a time does not say which samples were left out. Name a file with the "
            "ids of the training samples instead of `split_read_at`."
        )
    moved = select(func.count()).select_from(DatasetState).where(
        DatasetState.dataset_id == dataset.id, DatasetState.ready_at > read_at - UNSEEN
    )  # fmt: skip
    if session.scalars(moved).one():
        raise JobError(
            f"Another state of the dataset {dataset.name!r} was indexed after its training split "
            "was read, so a time does not say which of them it was. Name a file with the ids of "
            "the training samples instead of `split_read_at`."
        )
    known = (*graves.mine.items(), *graves.others.items())
    since = {each for each, at in known if at > read_at - UNSEEN}
    if since:
        raise JobError(
            f"{len(since)} samples of the dataset {dataset.name!r} were forgotten after its "
            "training split was read, or within a minute before, so the weights may know them. "
            "Train anew on what may be trained on today; or, if they were left out all the same, "
            "name a file with the ids of the training samples instead of `split_read_at`."
        )
    return {
        name
        for name, split in indexed.items()
        if split is Split.TRAIN and (of := digest(name)) in graves.others and of not in graves.mine
    }


def _require_never_forgotten(dataset: Dataset, graves: _Graves, digests: Iterable[bytes]) -> None:
    mine = suppressed = lifted = 0
    for each in digests:
        if each in graves.mine:
            mine += 1
            lifted += each in graves.lifted
        elif each in graves.others and each not in graves.lifted:
            suppressed += 1
    if not mine + suppressed:
        return
    told = [f"{mine} that this model has forgotten"] if mine else []
    told += [f"{suppressed} that other models of the dataset have forgotten"] if suppressed else []
    advice = RETRAIN.format(dataset=dataset.name)
    if lifted:
        advice += (
            f" Of {lifted} of them the suppression was lifted: a model that has forgotten a sample "
            "never learns it again under its name, so register weights that know them as a new "
            "model."
        )
    raise JobError(f"The weights were trained on {' and '.join(told)}. {advice}")


def _require_in_training(
    dataset: Dataset, indexed: Mapping[str, Split], named: frozenset[str]
) -> None:
    unknown = sum(name not in indexed for name in named)
    if unknown:
        raise JobError(
            f"{unknown} of the {len(named)} samples that the weights were trained on are not in "
            f"the dataset {dataset.name!r} as it is indexed, so they could not be forgotten later. "
            "Register the dataset that has them; or train on what is in this one."
        )
    outside = sum(indexed[name] is not Split.TRAIN for name in named)
    if outside:
        raise JobError(
            f"{outside} of the samples that the weights were trained on are hold-out or test "
            f"samples of the dataset {dataset.name!r}: nothing would be left to compare with what "
            "the model never saw. Train without them."
        )


def _require_accounted_for(dataset: Dataset, graves: _Graves, left_out: Sequence[bytes]) -> None:
    """Whatever else the weights were trained without belongs into another split: jobs take the
    training split for what the model has learned."""
    more = sum(each not in graves.others for each in left_out)
    if more:
        raise JobError(
            f"{more} samples of the training split of the dataset {dataset.name!r} are not among "
            "those that the weights were trained on, though nobody has asked to have them "
            "forgotten. Train on the whole split, or register a dataset in which they are in "
            "another split or left out."
        )
