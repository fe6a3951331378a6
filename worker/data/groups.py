"""Which samples belong together: those of one person, account or household, or nearly the same.

What the dataset's column says stands. Where a model's policy asks for it, samples without a value
there are grouped by being near-duplicates; nobody who is named in the column is joined with another
by what was found.

Shapes: N samples.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import torch
from sqlalchemy import ARRAY, LargeBinary, Select, String, Subquery, any_, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from torch import Tensor

from domain import tombstones
from domain.policy import Policy
from domain.states import Split
from domain.tables import Model, NearDuplicate, Sample

ROWS = 10_000
"""Rows read at a time."""


def codes(session: Session, model: Model, sample_ids: Sequence[str]) -> Tensor:
    """A number for the group of each sample: (N,) int64, the same for samples that belong together.

    A sample without a group, or that is not in the index, has a number of its own. Numbers mean
    nothing beyond one call.
    """
    known: dict[str, object] = {}
    if Policy.model_validate(model.policy).group == "near_duplicates":
        alike = select(NearDuplicate.sample_id, NearDuplicate.group_number).where(
            NearDuplicate.model_id == model.id
        )
        known.update(_read(session, alike, NearDuplicate.sample_id, sample_ids))
    declared = select(Sample.sample_id, Sample.group_digest).where(
        Sample.dataset_id == model.dataset_id, Sample.group_digest.is_not(None)
    )
    known.update(_read(session, declared, Sample.sample_id, sample_ids))
    numbers: dict[object, int] = {}
    return torch.tensor(
        [numbers.setdefault(known.get(each, each), len(numbers)) for each in sample_ids],
        dtype=torch.int64,
    )


def in_training(dataset_id: UUID) -> Subquery:
    """The digests of the groups that have training samples, each once, as `group_digest`: no model
    of the dataset can be said not to know their hold-out samples.

    To be joined: as a condition, Postgres would look through all of them for each row.
    """
    return (
        select(Sample.group_digest)
        .where(
            Sample.dataset_id == dataset_id,
            Sample.split == Split.TRAIN,
            Sample.group_digest.is_not(None),
        )
        .distinct()
        .subquery()
    )


def in_part(session: Session, model: Model, sample_ids: Sequence[str]) -> int:
    """How many of the declared groups of these samples have others in training as well, which the
    model has not forgotten."""
    of_dataset = select(Sample.sample_id, Sample.group_digest).where(
        Sample.dataset_id == model.dataset_id, Sample.group_digest.is_not(None)
    )
    mine = dict(_read(session, of_dataset, Sample.sample_id, sample_ids))
    digests, kept = list(set(mine.values())), set[bytes | None]()
    for start in range(0, len(digests), ROWS):
        some = literal(digests[start : start + ROWS], ARRAY(LargeBinary))
        rows = session.execute(
            of_dataset.where(
                Sample.split == Split.TRAIN,
                Sample.group_digest == any_(some),
                ~tombstones.has(model.id, Sample.sample_id),
            )
        )
        kept.update(digest for name, digest in rows if name not in mine)
    return len(kept)


def _read(
    session: Session,
    query: Select[str, Any],
    sample_id: InstrumentedAttribute[str],
    wanted: Sequence[str],
) -> Iterator[tuple[str, Any]]:
    """Ids of these samples, each with what the query says, a bounded number per statement."""
    for start in range(0, len(wanted), ROWS):
        some = literal(list(wanted[start : start + ROWS]), ARRAY(String))
        rows = session.execute(query.where(sample_id == any_(some)))
        yield from ((name, value) for name, value in rows)
