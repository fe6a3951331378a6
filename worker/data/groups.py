"""Which samples belong together: those of one person, account or household.

Shapes: N samples.
"""

from collections.abc import Sequence
from uuid import UUID

import torch
from sqlalchemy import ARRAY, String, Subquery, any_, literal, select
from sqlalchemy.orm import Session
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
