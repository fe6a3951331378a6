"""What enters the head of a frozen backbone, for every training sample: kept, so that a refit reads
neither the dataset nor the network.

One file in the store for each version: an array in NumPy's format with a row for each sample that
stays, in the order of the dataset. A row has the digest of the sample's id, which is also that of
its tombstone, its label in the model's order, and its features. Shapes: N samples, B samples of a
block, d feature dimensions.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from domain import sample_digests
from domain.errors import JobError
from domain.tables import Dataset, Model
from worker import budgets
from worker.data import decode
from worker.data.parquet import CHANGED, Source
from worker.data.survey import ROWS, require_finite
from worker.networks import functions
from worker.store.artifacts import Store
from worker.unlearning.alignment import Moments
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples
from worker.unlearning.softmax_regression import BLOCK

AT_ONCE = 64
"""Samples that go through the network together. Always as many, the last ones filled up: what a
sample's features are to the last bit may depend on that number, and must not on who stays."""


@dataclass(frozen=True, slots=True)
class Features:
    """The rows of a version's file, without those of some samples."""

    rows: npt.NDArray[Any]
    """All rows of the file, which is read as they are used."""

    staying: npt.NDArray[np.int64]
    """(N,) which of them count, in their order."""

    left_out: int
    """How many do not."""

    def __len__(self) -> int:
        return len(self.staying)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (B, d) in float32 and labels (B,) of all samples, BLOCK of them at a time."""
        for chosen in self._chosen():
            found = self.rows[chosen]
            labels = torch.from_numpy(found["label"].copy())
            yield torch.from_numpy(found["features"].copy()), labels

    def moments(self) -> Moments:
        """The moments of the features of all samples."""
        found: Moments | None = None
        for features, _ in self.blocks():
            mine = Moments.of(features)
            found = mine if found is None else found.merge(mine)
        assert found is not None  # noqa: S101 (a job without samples left ends before)
        return found

    def store(self, to: Store) -> str:
        """Store them as the file of another version; its digest."""

        def save(path: Path) -> None:
            _save(path, len(self), self.rows.dtype, map(self.rows.take, self._chosen()))

        return to.put(save)

    def _chosen(self) -> Iterator[npt.NDArray[np.int64]]:
        for first in range(0, len(self), BLOCK):
            yield self.staying[first : first + BLOCK]


def read(store: Store, sha256: str, *, without: Collection[bytes] = frozenset()) -> Features:
    """The rows of a version's file.

    Args:
        without: digests of samples that are left out.

    Raises:
        JobError: the file is missing or damaged.
    """
    rows = np.load(store.path(sha256), mmap_mode="r", allow_pickle=False)
    gone = set(without)
    stays = np.ones(len(rows), dtype=bool)
    for first in range(0, len(rows) if gone else 0, BLOCK):
        digests = rows["digest"][first : first + BLOCK]
        stays[first : first + BLOCK] = [each.tobytes() not in gone for each in digests]
    staying = np.flatnonzero(stays)
    return Features(rows, staying, len(rows) - len(staying))


def write(
    store: Store,
    network: Network,
    source: Source,
    model: Model,
    dataset: Dataset,
    named: Sequence[tuple[str, int]],
) -> str:
    """Put these samples through the network, and store what enters its head; the file's digest.

    Args:
        named: ids and positions of all training samples, ordered by position.

    Raises:
        JobError: the dataset changed since it was indexed, or the network fails on a sample.
    """
    digest_of = sample_digests.digester(dataset.tombstone_key)

    def entering(table: pa.Table) -> npt.NDArray[Any]:
        samples = decode.labelled(table, model.preprocessing, source.input_shape)
        features = features_of(network, samples)
        part = np.empty(len(table), _row(features.shape[1]))
        part["digest"] = [
            np.frombuffer(digest_of(each.encode()), np.uint8)
            for each in table["sample_id"].to_pylist()
        ]
        part["label"], part["features"] = samples.labels.numpy(), features.numpy()
        return part

    def save(path: Path) -> None:
        parts = map(entering, _passes(source, named, model))
        first = next(parts, None)
        if first is None:
            raise JobError(CHANGED)
        if _save(path, len(named), first.dtype, chain([first], parts)) != len(named):
            raise JobError(CHANGED)

    return store.put(save)


def require_apart(network: Network, samples: Samples) -> None:
    """Refuse a network whose features of a sample depend on the others that it is shown together
    with: of them, no sample could be forgotten.

    Raises:
        JobError: the features of these samples differ, together and each on its own.
    """
    together = features_of(network, samples)
    alone = torch.cat(
        [features_of(network, samples.select(torch.tensor([n])), 1) for n in range(len(samples))]
    )
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-3 * together.abs().max().item()):
        raise JobError(
            "The backbone's features of a sample depend on the samples that it is shown together "
            "with, so what is forgotten would stay in the features of others. Register a network "
            "that looks at each sample on its own in evaluation mode."
        )


def _passes(source: Source, named: Sequence[tuple[str, int]], model: Model) -> Iterator[pa.Table]:
    """The rows of the samples with these ids, AT_ONCE of them at a time."""
    ids = np.array([sample_id for sample_id, _ in named], dtype=object)
    positions = np.array([position for _, position in named], dtype=np.int64)
    waiting: pa.Table | None = None
    roles = ("sample_id", "input", "label")
    for first, batch in source.batches(roles, rows=ROWS):
        start, end = np.searchsorted(positions, (first, first + batch.num_rows))
        found = pa.Table.from_batches([batch]).take(pa.array(positions[start:end] - first))
        if found["sample_id"].to_pylist() != ids[start:end].tolist():
            raise JobError(CHANGED)
        waiting = found if waiting is None else pa.concat_tables([waiting, found])
        while len(waiting) >= AT_ONCE:
            yield waiting.slice(0, AT_ONCE)
            waiting = waiting.slice(AT_ONCE)
        waiting = waiting.combine_chunks()
    if waiting is not None and len(waiting):
        yield waiting


def _at_once(inputs: Tensor) -> int:
    """How many inputs like these go through the network together."""
    return min(AT_ONCE, max(budgets.DECODED_BYTES // max(inputs[0].nbytes, 1), 1))


def features_of(network: Network, samples: Samples, at_once: int | None = None) -> Tensor:
    """(N, d) float32: what enters the head.

    Args:
        at_once: how many go through the network together; as many as `write` takes, if left out.

    Raises:
        JobError: the network fails on a sample.
    """
    at_once = at_once or _at_once(samples.inputs)
    outputs = []
    for first in range(0, len(samples), at_once):
        mine = torch.arange(first, min(first + at_once, len(samples)))
        filled = torch.cat([mine, mine[:1].expand(at_once - len(mine))])
        with functions.users_code("The network"):
            features, logits = network.outputs(samples.select(filled), at_once)
        require_finite(features, logits)
        outputs.append(features[: len(mine)])
    return torch.cat(outputs)


def _row(dimensions: int) -> np.dtype[Any]:
    return np.dtype([("digest", "u1", 32), ("label", "<i8"), ("features", "<f4", (dimensions,))])


def _save(path: Path, count: int, row: np.dtype[Any], parts: Iterable[npt.NDArray[Any]]) -> int:
    """Write a file of so many rows; how many there were. Not through memory that is mapped to the
    file: a full disk would kill the process, instead of raising an error."""
    written = 0
    with path.open("wb") as file:
        about = {"descr": np.lib.format.dtype_to_descr(row), "fortran_order": False}
        np.lib.format.write_array_header_2_0(file, {**about, "shape": (count,)})
        for part in parts:
            file.write(part.tobytes())
            written += len(part)
    return written
