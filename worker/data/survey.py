"""One pass over a dataset with a network: moments of its features, and the samples to keep.

Shapes: N rows of a batch, d feature dimensions, C classes.
"""

from collections.abc import Collection, Iterator, Sequence
from time import monotonic

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from sqlalchemy import ARRAY, String, any_, func, literal, select
from torch import Tensor

from domain import tombstones
from domain.errors import JobError
from domain.preprocessing import InputKind
from domain.states import Split
from domain.tables import Dataset, Model, Sample
from worker import budgets
from worker.data import decode
from worker.data.bad_rows import usable_ids
from worker.data.likeness import Comparison, layers_of
from worker.data.parquet import CHANGED, Source
from worker.engine.workbench import Workbench
from worker.networks import functions
from worker.unlearning.alignment import Moments
from worker.unlearning.network import Network

ROWS = 512
"""Rows read and decoded at a time."""

BATCH = 256
"""Samples that go through the network at a time."""

REPORT_EVERY_S = 2.0

POSITION = "position"
"""The column that tells a row's place among all rows of the dataset."""

FORGOTTEN = "forgotten"
"""Stands in for the split of a sample that the model has already forgotten."""


class Survey:
    """What the pass has collected so far."""

    def __init__(self, classes: int, *, tokens: bool) -> None:
        self.class_counts = torch.zeros(classes, dtype=torch.int64)
        """(C,) training samples of each class."""

        self.class_right = torch.zeros(classes, dtype=torch.int64)
        """(C,) those of them that the network answers correctly."""

        self.comparison = Comparison(tokens=tokens)
        """Of training and hold-out samples with each other."""

        self._moments: Moments | None = None
        self._kept: list[pa.RecordBatch] = []

    def add(self, features: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add training samples: features (N, d), logits (N, C), labels (N,)."""
        moments = Moments.of(features)
        self._moments = moments if self._moments is None else self._moments.merge(moments)
        self.class_counts += labels.bincount(minlength=len(self.class_counts))
        right = labels[logits.argmax(1) == labels]
        self.class_right += right.bincount(minlength=len(self.class_counts))

    def keep(self, rows: pa.RecordBatch) -> None:
        self._kept.append(rows)

    def moments(self) -> Moments:
        """The moments of the features of all training samples, on the CPU."""
        if self._moments is None:
            raise JobError(CHANGED)
        found = self._moments
        return Moments(found.count, found.mean.cpu(), found.second.cpu())

    def kept(self) -> pa.Table:
        """The samples kept, in the order of their positions."""
        return pa.Table.from_batches(self._kept)


def survey(
    bench: Workbench,
    network: Network,
    source: Source,
    model: Model,
    dataset: Dataset,
    *,
    wanted: Sequence[int],
    classes: int,
    left_out: Collection[str] = (),
) -> Survey:
    """Put every training and hold-out sample through the network, in bounded memory.

    Args:
        wanted: positions of the samples to keep.
        classes: number of classes of the network.
        left_out: ids of samples that it was trained without; they count as forgotten.

    Raises:
        JobError: the dataset changed since it was indexed, or the network fails on a sample.
    """
    gathered = Survey(classes, tokens=source.kind is InputKind.TOKENS)
    kept = np.asarray(wanted, dtype=np.int64)
    kept_bytes = budgets.kept_of(source.stored)
    indexed, reported = 0, monotonic()
    for first, batch in source.batches(rows=ROWS):
        splits = _indexed_splits(bench, model, dataset, first, batch, left_out)
        indexed += int((splits != "").sum())
        placed = batch.append_column(POSITION, pa.array(np.arange(first, first + len(splits))))
        for split in (Split.TRAIN, Split.HOLDOUT):
            rows = placed.filter(pa.array(splits == split.value))
            _measure(network, rows, split, model, source, gathered)
        chosen = (splits != "") & np.isin(np.arange(first, first + len(splits)), kept)
        if chosen.any():
            named = batch.set_column(3, "split", pa.array(splits.tolist(), pa.string()))
            drawn = named.filter(pa.array(chosen))
            kept_bytes.spend(drawn.nbytes)
            gathered.keep(drawn)
        if monotonic() - reported > REPORT_EVERY_S:
            reported = monotonic()
            bench.report("reading the dataset", 0.02 + 0.9 * first / source.rows)
    for attempt in bench.transaction():
        with attempt as session:
            count = session.scalars(
                select(func.count()).select_from(Sample).filter_by(dataset_id=dataset.id)
            ).one()
    if indexed != count:
        raise JobError(CHANGED)
    return gathered


def _indexed_splits(
    bench: Workbench,
    model: Model,
    dataset: Dataset,
    first: int,
    batch: pa.RecordBatch,
    left_out: Collection[str],
) -> npt.NDArray[np.str_]:
    """(N,) the split of each row, or FORGOTTEN; empty for rows not indexed.

    Raises:
        JobError: the id, position, label or split of a row differs from what was indexed.
    """
    storable, _ = usable_ids(batch["sample_id"])
    ids, labels = storable.to_pylist(), batch["label"].to_pylist()
    values, names = batch["split"].to_pylist(), dataset.definition["splits"]
    for attempt in bench.transaction():
        with attempt as session:
            forgotten = tombstones.has(model.id, Sample.sample_id)
            rows = session.execute(
                select(
                    Sample.sample_id, Sample.position, Sample.label, Sample.split, forgotten
                ).where(
                    Sample.dataset_id == dataset.id,
                    Sample.sample_id
                    == any_(literal(storable.drop_null().to_pylist(), ARRAY(String))),
                )
            ).all()
    splits = np.full(len(ids), "", dtype="U9")
    for sample_id, position, label, split, gone in rows:
        index = position - first
        if (
            not 0 <= index < len(ids)
            or (ids[index], labels[index]) != (sample_id, label)
            or values[index] != str(names[split.value])
        ):
            raise JobError(CHANGED)
        splits[index] = FORGOTTEN if gone or sample_id in left_out else split.value
    return splits


def _measure(
    network: Network,
    rows: pa.RecordBatch,
    split: Split,
    model: Model,
    source: Source,
    gathered: Survey,
) -> None:
    for part in _portions(rows, model, source):
        _measure_portion(network, part, split, model, source, gathered)


def _portions(rows: pa.RecordBatch, model: Model, source: Source) -> Iterator[pa.Table]:
    """The rows, so many at a time that their decoded inputs stay near DECODED_BYTES: an image can
    be a thousand times larger than its file."""
    if not rows.num_rows:
        return
    table = pa.Table.from_batches([rows])
    one = decode.decode(table["input"][:1], model.preprocessing, source.input_shape)
    size = max(budgets.DECODED_BYTES // max(one.nbytes, 1), 1)
    for first in range(0, rows.num_rows, size):
        yield table.slice(first, size)


def _measure_portion(
    network: Network,
    table: pa.Table,
    split: Split,
    model: Model,
    source: Source,
    gathered: Survey,
) -> None:
    samples = decode.labelled(table, model.preprocessing, source.input_shape)
    with functions.users_code("The network"):
        features, logits, layers = network.looked_into(samples, layers_of(network), BATCH)
    require_finite(features, logits)
    if split is Split.TRAIN:
        gathered.add(features.to(network.device), logits, samples.labels)
    ids = table["sample_id"].combine_chunks().cast(pa.string())
    positions = torch.from_numpy(table[POSITION].to_numpy().copy())
    gathered.comparison.add(layers or {"": features}, samples, ids, positions, split)


def require_finite(features: Tensor, logits: Tensor) -> None:
    """Raise JobError if a feature or a logit is NaN or infinite."""
    if not features.isfinite().all() or not logits.isfinite().all():
        raise JobError(
            "The network gives NaN or infinite values on the dataset's samples; check the "
            "weights and the model's preprocessing."
        )
