"""What reference models left behind, in Postgres: two tables, written once, read by jobs.

Shapes: N samples, C classes, K reference models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import numpy as np
import psycopg
import torch
from sqlalchemy import ARRAY, String, any_, delete, literal, select
from sqlalchemy.orm import Session
from torch import Tensor

from domain import forgetting, tombstones
from domain.tables import MembershipStatistics, OutOfSamplePrediction, ReferenceTables
from worker.unlearning.audit.verdict import ReferenceScores
from worker.unlearning.reference_models import Summarised

PACKED = np.dtype("<f2")
SCORES = np.dtype("<f4")
ROWS = 10_000
"""Rows read at a time."""


@dataclass(frozen=True, slots=True)
class Table:
    """What reference models say of some samples, in the order they were asked for."""

    predictions: Tensor | None
    """(N, C) float32, each row sums to 1: the mean answer of models that never saw the sample. None
    if any sample belongs to the hold-out."""

    in_mean: Tensor
    """(N,) float64: scaled confidence in the true class, of models that learned from the sample;
    NaN for hold-out samples."""

    out_mean: Tensor
    """(N,) float64: the same, of models that did not."""

    out_std: Tensor
    """(N,) float64, positive: its standard deviation."""

    scores: Tensor | None
    """(K, N) float64: what each of the models says. None where an older release stored the rows,
    or where they were too many."""

    seen: Tensor | None
    """(K, N) bool: whether the model learned from the sample, which it never did from one of the
    hold-out. None where `scores` is."""


def read(session: Session, model_id: UUID, sample_ids: Sequence[str]) -> Table | None:
    """What the tables hold for these samples; None for no samples, or if any is missing."""
    if session.get(ReferenceTables, model_id) is None or not sample_ids:
        return None
    statistics = _by_id(session, MembershipStatistics, model_id, sample_ids)
    if len(statistics) < len(set(sample_ids)):
        return None
    predictions = _by_id(session, OutOfSamplePrediction, model_id, sample_ids)
    rows = [statistics[sample_id] for sample_id in sample_ids]
    columns = {
        name: torch.tensor(
            [np.nan if (value := getattr(row, name)) is None else value for row in rows],
            dtype=torch.float64,
        )
        for name in ("in_mean", "out_mean", "out_std")
    }
    complete = len(predictions) == len(statistics)
    answers = [predictions[name].probabilities for name in sample_ids] if complete else None
    scores, seen = _single([(row.scores, row.seen_by) for row in rows])
    return Table(_unpacked(answers) if answers else None, **columns, scores=scores, seen=seen)


def scores(forget: Table, holdout: Table) -> ReferenceScores:
    """What the audit compares the model's confidence with."""
    return ReferenceScores(
        forget_mean=forget.out_mean,
        forget_std=forget.out_std,
        holdout_mean=holdout.out_mean,
        holdout_std=holdout.out_std,
        forget_scores=forget.scores,
        forget_seen=forget.seen,
        holdout_scores=holdout.scores,
    )


def write(
    session: Session,
    model_id: UUID,
    summarised: Summarised,
    seen: Tensor,
    *,
    training: Sequence[str],
    holdout: Sequence[str],
) -> None:
    """Store the tables for the training samples (N,) and hold-out samples (H,) with these ids.

    Replaces what was there. Samples that the model has forgotten meanwhile get no rows.

    Args:
        seen: (K, N) bool, which model learned from which training sample.
    """
    for table in (OutOfSamplePrediction, MembershipStatistics):
        session.execute(delete(table).where(table.model_id == model_id))
    packed = summarised.predictions.numpy().astype(PACKED)
    answers = ((model_id, name, row.tobytes()) for name, row in zip(training, packed, strict=True))
    _copy(session, OutOfSamplePrediction, ("uuid", "varchar", "bytea"), answers)
    kinds = ("uuid", "varchar", *["float4"] * 4, "bytea", "int8")
    statistics = _statistics(model_id, summarised, seen, training, holdout)
    _copy(session, MembershipStatistics, kinds, statistics)
    forgetting.lock_reference_rows(session, model_id)
    for table in (OutOfSamplePrediction, MembershipStatistics):
        forgotten = tombstones.has(model_id, table.sample_id)
        session.execute(delete(table).where(table.model_id == model_id, forgotten))


def _by_id(
    session: Session, table: Any, model_id: UUID, sample_ids: Sequence[str]
) -> dict[str, Any]:
    """The rows of these samples, a bounded number per statement."""
    found: dict[str, Any] = {}
    for start in range(0, len(sample_ids), ROWS):
        some = literal(list(sample_ids[start : start + ROWS]), ARRAY(String))
        columns = [column for column in table.__table__.c if column.name != "model_id"]
        rows = session.execute(
            select(*columns).where(table.model_id == model_id, table.sample_id == any_(some))
        )
        found.update((row.sample_id, row) for row in rows)
    return found


def _unpacked(answers: Sequence[bytes]) -> Tensor:
    """(N, C) float32; float16 rounds, so the rows are made to sum to 1 again."""
    packed = np.frombuffer(b"".join(answers), PACKED).reshape(len(answers), -1)
    values = torch.from_numpy(packed.astype(np.float32))
    return values / values.sum(1, keepdim=True)


def _single(rows: Sequence[tuple[bytes | None, int | None]]) -> tuple[Tensor | None, Tensor | None]:
    """Scores (K, N) float64 and who saw what (K, N) bool; None if any row lacks them."""
    scores = [scores for scores, _ in rows if scores is not None]
    seen_by = [seen_by for _, seen_by in rows if seen_by is not None]
    if len(scores) < len(rows) or len(seen_by) < len(rows):
        return None, None
    values = np.frombuffer(b"".join(scores), SCORES).reshape(len(rows), -1).T
    bits = np.array(seen_by, np.int64).view(np.uint64)
    models = np.arange(len(values), dtype=np.uint64)[:, None]
    seen = (bits >> models & np.uint64(1)).astype(bool)
    return torch.from_numpy(values.astype(np.float64)), torch.from_numpy(seen)


def _seen_by(seen: Tensor) -> list[int]:
    """(N,) for (K, N): bit j for model j, the 64th as the sign."""
    bits = np.zeros(seen.shape[1], np.uint64)
    for model, row in enumerate(seen.numpy()):
        bits |= row.astype(np.uint64) << np.uint64(model)
    return bits.view(np.int64).tolist()


def _statistics(
    model_id: UUID,
    summarised: Summarised,
    seen_by: Tensor,
    training: Sequence[str],
    holdout: Sequence[str],
) -> Iterator[tuple[object, ...]]:
    """The rows of `MembershipStatistics`."""
    seen, unseen, holdout_side = summarised.seen, summarised.unseen, summarised.holdout
    sides = (seen.mean, seen.std, unseen.mean, unseen.std)
    columns = (side.tolist() for side in sides)
    known = _packed(summarised.scores, _seen_by(seen_by))
    for name, *values, (scores, bits) in zip(training, *columns, known, strict=True):
        yield model_id, name, *values, scores, bits
    known = _packed(summarised.holdout_scores, [0] * len(holdout))
    pairs = zip(holdout, holdout_side.mean.tolist(), holdout_side.std.tolist(), known, strict=True)
    for name, mean, std, (scores, bits) in pairs:
        yield model_id, name, None, None, mean, std, scores, bits


def _packed(
    scores: Tensor | None, seen_by: Sequence[int]
) -> Iterator[tuple[bytes | None, int | None]]:
    """The last two columns of each row, made one by one: together they are as large as `scores`."""
    if scores is None:
        yield from [(None, None)] * len(seen_by)
        return
    for row, bits in zip(scores.numpy(), seen_by, strict=True):
        yield row.astype(SCORES).tobytes(), bits


def _copy(
    session: Session, table: Any, kinds: Sequence[str], rows: Iterator[tuple[object, ...]]
) -> None:
    """Load rows whose values have the order of the table's columns and these Postgres types."""
    names = ", ".join(column.name for column in table.__table__.c)
    driver = cast("psycopg.Connection[Any]", session.connection().connection.driver_connection)
    statement = f"COPY {table.__tablename__} ({names}) FROM STDIN (FORMAT binary)"
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(kinds)
        for row in rows:
            copy.write_row(row)
