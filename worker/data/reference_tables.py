"""What reference models left behind, in Postgres: two tables, written once, read by jobs.

Shapes: N samples, C classes.
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
    return Table(_unpacked(answers) if answers else None, **columns)


def scores(forget: Table, holdout: Table) -> ReferenceScores:
    """What the audit compares the model's confidence with."""
    return ReferenceScores(
        forget_mean=forget.out_mean,
        forget_std=forget.out_std,
        holdout_mean=holdout.out_mean,
        holdout_std=holdout.out_std,
    )


def write(
    session: Session,
    model_id: UUID,
    summarised: Summarised,
    *,
    training: Sequence[str],
    holdout: Sequence[str],
) -> None:
    """Store the tables for the training samples (N,) and hold-out samples (H,) with these ids.

    Replaces what was there. Samples that the model has forgotten meanwhile get no rows.
    """
    for table in (OutOfSamplePrediction, MembershipStatistics):
        session.execute(delete(table).where(table.model_id == model_id))
    packed = summarised.predictions.numpy().astype(PACKED)
    answers = ((model_id, name, row.tobytes()) for name, row in zip(training, packed, strict=True))
    _copy(session, OutOfSamplePrediction, ("uuid", "varchar", "bytea"), answers)
    kinds = ("uuid", "varchar", *["float4"] * 4)
    _copy(
        session, MembershipStatistics, kinds, _statistics(model_id, summarised, training, holdout)
    )
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


def _statistics(
    model_id: UUID, summarised: Summarised, training: Sequence[str], holdout: Sequence[str]
) -> Iterator[tuple[object, ...]]:
    """The rows of `MembershipStatistics`."""
    seen, unseen, holdout_side = summarised.seen, summarised.unseen, summarised.holdout
    sides = (seen.mean, seen.std, unseen.mean, unseen.std)
    columns = (side.tolist() for side in sides)
    for name, *values in zip(training, *columns, strict=True):
        yield model_id, name, *values
    pairs = zip(holdout, holdout_side.mean.tolist(), holdout_side.std.tolist(), strict=True)
    for name, mean, std in pairs:
        yield model_id, name, None, None, mean, std


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
