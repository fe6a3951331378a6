"""Which samples belong together: those of one person, account or household.

Shapes: N samples.
"""

from collections.abc import Sequence
from uuid import UUID

import torch
from sqlalchemy import ARRAY, ColumnElement, String, any_, func, literal, select
from sqlalchemy.orm import Session, aliased
from torch import Tensor

from domain.states import Split
from domain.tables import Model, Sample

ROWS = 10_000
"""Rows read at a time."""


def codes(session: Session, model: Model, sample_ids: Sequence[str]) -> Tensor:
    """A number for the group of each sample: (N,) int64, the same for samples that belong together.

    A sample without a group, or that is not in the index, has a number of its own. Numbers mean
    nothing beyond one call.
    """
    digests: dict[str, bytes] = {}
    for start in range(0, len(sample_ids), ROWS):
        some = literal(list(sample_ids[start : start + ROWS]), ARRAY(String))
        found = session.execute(
            select(Sample.sample_id, Sample.group_digest).where(
                Sample.dataset_id == model.dataset_id,
                Sample.sample_id == any_(some),
                Sample.group_digest.is_not(None),
            )
        )
        digests.update((row.sample_id, row.group_digest) for row in found)
    numbers: dict[bytes | str, int] = {}
    return torch.tensor(
        [numbers.setdefault(digests.get(each, each), len(numbers)) for each in sample_ids],
        dtype=torch.int64,
    )


def stands_in_training(dataset_id: UUID) -> ColumnElement[bool]:
    """Whether a row of `Sample` is of a group that has training samples: no model of the dataset
    can be said not to know it, whatever the row's own split is."""
    other = aliased(Sample)
    trained = select(other.group_digest).where(
        other.dataset_id == dataset_id,
        other.split == Split.TRAIN,
        other.group_digest.is_not(None),
    )
    return func.coalesce(Sample.group_digest.in_(trained), False)
