"""What a version answers to the samples of its reservoir, kept from the job that made it, so that
the next job need not measure the same network on the same samples again.

It stands in two more columns of the reservoir, beside the samples: whatever makes a sample leave
takes its answers along, and the end of the reservoir is theirs.

Shapes: N samples, d features, C classes.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from worker.unlearning.evaluation import Outputs

FEATURES, LOGITS = "answer_features", "answer_logits"
"""Columns that a reservoir may have besides: float32, N rows of d or C numbers. Null beside samples
that were not measured."""

METADATA = b"lethe.answers"
"""Of the reservoir's file: by what the answers were made, as JSON."""

Maker = Mapping[str, str]
"""The digest of the network's weights, and the versions of all that computes with them."""


def taken(
    table: pa.Table, measured: Sequence[tuple[Sequence[str], Outputs]], maker: Maker
) -> pa.Table:
    """The reservoir with these answers, and with no others.

    Args:
        measured: ids of samples, and the outputs of the version's network on them.
    """
    places: dict[str, int] = {}
    for ids, _ in measured:
        places |= {sample_id: len(places) + n for n, sample_id in enumerate(ids)}
    rows = [places.get(sample_id) for sample_id in table["sample_id"].to_pylist()]
    kept = table.select([n for n in table.column_names if n not in (FEATURES, LOGITS)])
    for name, parts in (
        (FEATURES, [outputs.features for _, outputs in measured]),
        (LOGITS, [outputs.logits for _, outputs in measured]),
    ):
        values = torch.cat([part for part in parts if len(part)]).float().numpy()
        stored = [None if row is None else values[row].tobytes() for row in rows]
        kept = kept.append_column(name, pa.array(stored, pa.binary(values[0].nbytes)))
    described = {METADATA: json.dumps(dict(maker), sort_keys=True).encode()}
    return kept.replace_schema_metadata({**(table.schema.metadata or {}), **described})


def of_rows(rows: pa.Table, labels: Tensor, maker: Maker) -> Outputs | None:
    """The answers to the samples of these rows of a reservoir.

    None unless all of them were kept, and made by the same network with the same code, libraries
    and device.

    Args:
        labels: (N,) of the same samples, as the model numbers classes.
    """
    metadata = (rows.schema.metadata or {}).get(METADATA)
    if metadata is None or json.loads(metadata) != dict(maker):
        return None
    if rows[FEATURES].null_count or rows[LOGITS].null_count:
        return None
    return Outputs(_numbers(rows[FEATURES]), _numbers(rows[LOGITS]), labels)


def _numbers(column: pa.ChunkedArray) -> Tensor:
    values = np.frombuffer(b"".join(column.to_pylist()), np.float32)
    return torch.from_numpy(values.reshape(len(column), column.type.byte_width // 4).copy())
