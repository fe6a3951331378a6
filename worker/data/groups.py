"""Which samples belong together: those of one person, account or household, or nearly the same.

What the dataset's column says stands. Where a model's policy asks for it, samples without a value
there are grouped by being near-duplicates; nobody who is named in the column is joined with another
by what was found.

Shapes: N samples.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

import torch
from sqlalchemy import ARRAY, Select, Subquery, any_, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from torch import Tensor

from domain import former, tombstones
from domain.policy import Policy
from domain.states import Split
from domain.tables import FormerSample, Model, NearDuplicate, Sample

ROWS = 10_000
"""Rows read at a time."""


def codes(session: Session, model: Model, sample_ids: Sequence[str]) -> Tensor:
    """A number for the group of each sample: (N,) int64, the same for samples that belong together.

    A sample without a group, or that is not in the index, has a number of its own. Numbers mean
    nothing beyond one call.
    """
    known = _known(session, model, sample_ids)
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


def in_part(
    session: Session, model: Model, sample_ids: Sequence[str], *, leaving: Collection[str]
) -> Tensor:
    """Whether others of the group of each sample are in training and stay there: (N,) bool.

    Those to be forgotten (`leaving`) do not stay, and what the model has forgotten is not there.
    What left the files, and the model still knows, stays.
    """
    known = _known(session, model, sample_ids)
    of = set(known.values())
    trained = (
        Sample.dataset_id == model.dataset_id,
        Sample.split == Split.TRAIN,
        Sample.since <= model.state,
        ~tombstones.has(model.id, Sample.sample_id),
    )
    declared = select(Sample.sample_id, Sample.group_digest).where(*trained)
    alike = (
        select(Sample.sample_id, NearDuplicate.group_number)
        .join(NearDuplicate, NearDuplicate.sample_id == Sample.sample_id)
        .where(*trained, NearDuplicate.model_id == model.id, Sample.group_digest.is_(None))
    )
    gone = select(FormerSample.sample_id, FormerSample.group_digest).where(
        FormerSample.dataset_id == model.dataset_id,
        former.is_known(literal(model.state)),
        ~tombstones.has(model.id, FormerSample.sample_id),
    )
    digests = [group for group in of if isinstance(group, bytes)]
    rows = chain(
        _read(session, declared, Sample.group_digest, digests),
        _read(session, gone, FormerSample.group_digest, digests),
        _read(session, alike, NearDuplicate.group_number, [g for g in of if isinstance(g, int)]),
    )
    staying = {group for name, group in rows if name not in leaving}
    return torch.tensor([known.get(each) in staying for each in sample_ids], dtype=torch.bool)


def _known(session: Session, model: Model, sample_ids: Sequence[str]) -> dict[str, bytes | int]:
    """The group of each sample that has one: the digest that the dataset's column gives, or the
    number of its near-duplicates."""
    known: dict[str, bytes | int] = {}
    if Policy.model_validate(model.policy).group == "near_duplicates":
        alike = select(NearDuplicate.sample_id, NearDuplicate.group_number).where(
            NearDuplicate.model_id == model.id
        )
        known.update(_read(session, alike, NearDuplicate.sample_id, sample_ids))
    declared = select(Sample.sample_id, Sample.group_digest).where(
        Sample.dataset_id == model.dataset_id, Sample.group_digest.is_not(None)
    )
    known.update(_read(session, declared, Sample.sample_id, sample_ids))
    return known


def _read(
    session: Session,
    query: Select[str, Any],
    column: InstrumentedAttribute[Any],
    wanted: Sequence[object],
) -> Iterator[tuple[str, Any]]:
    """Ids of samples whose column is one of these, each with what the query says, a bounded number
    per statement."""
    for start in range(0, len(wanted), ROWS):
        some = literal(list(wanted[start : start + ROWS]), ARRAY(column.type))
        rows = session.execute(query.where(column == any_(some)))
        yield from ((name, value) for name, value in rows)
