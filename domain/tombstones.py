"""How SQL finds the tombstones of samples: by the keyed digests of their ids."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, LargeBinary, ScalarSelect, exists, func, select
from sqlalchemy.orm import QueryableAttribute

from domain.sample_digests import BLOCK
from domain.tables import Dataset, Model, Tombstone

Column = ColumnElement[Any] | QueryableAttribute[Any]


def digest(key: Column, sample_id: Column) -> ColumnElement[bytes]:
    """As `domain.sample_digests.digest`, made by the database: its planner sees an expression of
    `sha256`, which it may look up in the index."""
    inner, outer = func.substr(key, 1, BLOCK), func.substr(key, 1 + BLOCK, BLOCK)
    return func.hmac_sha256(inner, outer, sample_id, type_=LargeBinary())


def key_of(model_id: UUID) -> ScalarSelect[bytes]:
    """The key of the dataset that the model was trained on; asked once for each statement."""
    mine = select(Dataset.tombstone_key).join(Model, Model.dataset_id == Dataset.id)
    return mine.where(Model.id == model_id).correlate(None).scalar_subquery()


def has(model_id: UUID, sample_id: Column) -> ColumnElement[bool]:
    """Whether there is a tombstone: whether the model has forgotten the sample."""
    # Not `NOT IN`: beyond some 100,000 tombstones Postgres would go through all of them each time.
    return exists().where(
        Tombstone.model_id == model_id, Tombstone.digest == digest(key_of(model_id), sample_id)
    )
