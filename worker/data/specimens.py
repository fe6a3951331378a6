"""Ten inputs of a version as its network gets them, with its answers, to be compared before each
job.

They stand in three more columns of the version's reservoir, beside samples that are kept there
anyway: whatever makes a sample leave the reservoir takes its specimen along, and the reservoir's
end is theirs. Shapes: S specimens, C classes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import load, save
from torch import Tensor

from domain.errors import JobError
from domain.states import Split
from worker.data import decode, reservoir
from worker.data.parquet import CHANGED, Source
from worker.networks import functions
from worker.unlearning.network import Network

COUNT = 10
BYTES = 32 * 2**20
"""All specimens of a version take no more than this; large inputs make do with fewer."""

INPUT, LABEL, ANSWER = "specimen_input", "specimen_label", "specimen_answer"
TYPES = {INPUT: pa.large_binary(), LABEL: pa.int64(), ANSWER: pa.list_(pa.float32())}
"""Columns that the reservoir has besides: what `Network.prepare` gave, the label as the model
numbers classes, and the logits. Null beside other samples."""

METADATA = b"lethe.specimens"
"""Of the reservoir's file: what the specimens were made with, as JSON."""

IMAGE_TOLERANCE = 0.01
"""Decoders of images differ by a level or so between versions. Root mean square, as a share of the
standard deviation of all specimens."""

NUMBER_TOLERANCE = 1e-4
"""Other numbers differ by nothing but the rounding of the preprocessing. Relative, to at least a
hundredth of the largest value in the same place."""

ANSWER_TOLERANCE, ANSWER_MAXIMUM = 0.05, 0.25
"""Root mean square over a sample's logits, and the largest difference, as shares of the standard
deviation of all answers. A GPU that computes convolutions with 10 bits (TF32), or weights with 8
bits, stay far below that; another network does not."""


def taken(
    table: pa.Table,
    network: Network,
    preprocessing: dict[str, Any],
    definition: dict[str, Any],
    made_with: Mapping[str, str],
) -> pa.Table:
    """The reservoir with this network's answers to its specimens.

    Those that it has already keep their inputs; more are drawn until there are COUNT, from
    samples that were never trained on if there are any.

    Args:
        definition: the dataset's.
        made_with: versions of the code and libraries, by name.

    Raises:
        JobError: the network gives two answers to one input.
    """
    known = _input(table).to_pylist()
    rows = [index for index, value in enumerate(known) if value is not None]
    rows += [index for index in _candidates(table) if known[index] is None]
    rows = sorted(rows[:COUNT])
    if not rows:
        return table
    samples = reservoir.decoded(table.take(pa.array(rows)), preprocessing, definition)
    prepared = network.prepare(samples.inputs)
    fitting = max(BYTES // max(prepared[0].nbytes, 1), 1)
    rows, samples = rows[:fitting], samples.select(torch.arange(min(fitting, len(rows))))
    answers = _answers(network, samples)
    if _answers_differ(answers, _answers(network, samples)):
        raise JobError(
            "The network answers the same input in two ways, though it is in evaluation mode. "
            "Register one that draws nothing at random when it is evaluated."
        )
    found: dict[str, list[Any]] = {name: [None] * len(known) for name in TYPES}
    for place, row in enumerate(rows):
        found[INPUT][row] = known[row] or save({"input": prepared[place].contiguous()})
        found[LABEL][row] = int(samples.labels[place])
        found[ANSWER][row] = answers[place].tolist()
    kept = table.select([name for name in table.column_names if name not in TYPES])
    for name, values in found.items():
        kept = kept.append_column(name, pa.array(values, TYPES[name]))
    return kept.replace_schema_metadata({METADATA: json.dumps(dict(made_with))})


def of_table(table: pa.Table) -> pa.Table:
    """The rows that are specimens; none in a reservoir of an earlier release."""
    return table.filter(pc.is_valid(_input(table)))


def inputs_of(rows: pa.Table) -> Tensor:
    """(S, ...) what the network got, as `Network.prepare` gave it."""
    return torch.stack([load(value.as_py())["input"] for value in rows[INPUT]])


def answers_of(rows: pa.Table) -> Tensor:
    """(S, C) float32 logits."""
    return torch.tensor(rows[ANSWER].to_pylist(), dtype=torch.float32)


def require_unchanged(
    rows: pa.Table,
    network: Network,
    source: Source,
    positions: Sequence[int],
    preprocessing: dict[str, Any],
    made_with: Mapping[str, str],
) -> None:
    """Have the network answer its specimens again, and compare.

    Args:
        rows: the specimens, at least one.
        network: with the weights that answered them.
        source: the dataset, where the samples to forget are read from.
        positions: (S,) the samples' places in it.
        made_with: versions of the code and libraries now, by name.

    Raises:
        JobError: an input or an answer is not what it was.
    """
    known, is_image = inputs_of(rows), pa.types.is_large_binary(rows["input"].type)
    since = _since(rows, made_with)
    samples = decode.labelled(rows, preprocessing, source.input_shape)
    _require_equal(known, network.prepare(samples.inputs), is_image, _STORED + since)
    found = source.take(positions, ("sample_id", "input", "label"))
    if not found["sample_id"].equals(rows["sample_id"]) or not found["label"].equals(rows["label"]):
        raise JobError(CHANGED)
    if not found["input"].equals(rows["input"]):
        again = decode.labelled(found, preprocessing, source.input_shape)
        _require_equal(known, network.prepare(again.inputs), is_image, _IN_FILES)
    if _answers_differ(answers_of(rows), _answers(network, samples)):
        raise JobError(_ANSWERS.format(count=len(rows)) + since)


_STORED = (
    "{wrong} of {count} sample inputs do not reach the network as they did when its version was "
    "made, though the stored samples are the same: they are decoded or preprocessed in another "
    "way now. Nothing was trained. Run the worker with the versions of Lethe and its libraries "
    "that made the version, or register the model again under another name."
)
_IN_FILES = (
    "{wrong} of {count} sample inputs do not reach the network as they did when its version was "
    "made: the dataset's files have the same sample ids, but other inputs. Nothing was trained. "
    "Restore the files, or register dataset and model again under other names."
)
_ANSWERS = (
    "The network answers {count} sample inputs otherwise than when its version was made, though "
    "the inputs and the weights are the same: the code that builds it does something else now. "
    "Nothing was trained. Restore that code (the model's factory) and the libraries it uses, or "
    "register the model again under another name."
)


def _require_equal(known: Tensor, now: Tensor, is_image: bool, message: str) -> None:
    if known.shape != now.shape or known.dtype != now.dtype:
        wrong = len(known)
    elif not known.is_floating_point():
        wrong = int((known != now).flatten(1).any(1).sum())
    elif is_image:
        scale = _spread(known)
        wrong = int(
            ((now - known).double().flatten(1).square().mean(1).sqrt() > IMAGE_TOLERANCE * scale)
            .sum()
            .item()
        )
    else:
        size = known.abs().amax(0).clamp_min(torch.finfo(known.dtype).tiny)  # of each feature
        far = (now - known).abs() > NUMBER_TOLERANCE * torch.maximum(known.abs(), size / 100)
        wrong = int(far.flatten(1).any(1).sum())
    if wrong:
        raise JobError(message.replace("{wrong}", str(wrong)).replace("{count}", str(len(known))))


def _answers_differ(known: Tensor, now: Tensor) -> bool:
    if known.shape != now.shape:
        return True
    difference, scale = (now - known).double().abs(), _spread(known)
    far = difference.square().mean(1).sqrt() > ANSWER_TOLERANCE * scale
    return bool(far.any() or (difference > ANSWER_MAXIMUM * scale).any())


def _spread(values: Tensor) -> float:
    """The standard deviation of all values; not 0 even where they are all the same."""
    wide = values.double()
    return max(wide.std(correction=0).item(), 1e-3 * wide.abs().max().item(), 1e-6)


def _answers(network: Network, samples: Any) -> Tensor:
    """(S, C) on the CPU."""
    with functions.users_code("The network"):
        _, logits = network.outputs(samples, COUNT)
    return logits


def _candidates(table: pa.Table) -> list[int]:
    """Rows in the order in which they become specimens: first those never trained on, of each class
    the same number, and the first in the files, which are the cheapest to read."""
    trained = np.asarray(table["split"].to_pylist()) == Split.TRAIN.value
    rank: dict[tuple[bool, int], int] = {}
    order = []
    for index, label in enumerate(table["label"].to_pylist()):
        place = rank.setdefault((bool(trained[index]), label), 0)
        rank[bool(trained[index]), label] += 1
        order.append((bool(trained[index]), place, index))
    return [index for *_, index in sorted(order)]


def _input(table: pa.Table) -> pa.ChunkedArray:
    if INPUT in table.column_names:
        return table[INPUT]
    return pa.chunked_array([pa.nulls(len(table), TYPES[INPUT])])


def _since(rows: pa.Table, made_with: Mapping[str, str]) -> str:
    """Which versions are others than those that the specimens were made with."""
    metadata = (rows.schema.metadata or {}).get(METADATA, b"{}")
    before: dict[str, str] = json.loads(metadata)
    others = [
        f"{name} ({_short(was)}, now {_short(made_with.get(name, 'none'))})"
        for name, was in before.items()
        if made_with.get(name) != was
    ]
    return f" Other than then: {', '.join(others)}." if others else ""


def _short(version: str) -> str:
    return f"{version[:19]}…" if len(version) > 40 else version
