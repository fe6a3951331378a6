"""How SQL finds the tombstones of samples: by the keyed digests of their ids."""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CTE,
    BindParameter,
    ColumnElement,
    LargeBinary,
    ScalarSelect,
    String,
    Uuid,
    bindparam,
    exists,
    func,
    select,
)
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
    # One digest and one look into the index for each sample, whatever the planner believes. As a
    # join, tombstones that are too new for its statistics would cost a digest for each pair of a
    # sample and a tombstone; as `NOT IN`, many of them would be gone through each time. OFFSET
    # keeps Postgres from making a join of it, the inner SELECT from repeating the digest.
    once = select(digest(key_of(model_id), sample_id)).correlate_except(None).scalar_subquery()
    mine = select(Tombstone.digest).where(Tombstone.model_id == model_id, Tombstone.digest == once)
    return mine.offset(0).exists()


def dataset_parameter() -> BindParameter[UUID]:
    """The parameter `dataset_id` of a statement about many ids."""
    return bindparam("dataset_id", type_=Uuid)


def each_named() -> CTE:
    """The parameter `ids` of a statement as rows: each `sample_id` with its `digest` in the dataset
    `dataset_id`. One digest for each id, however many models there are."""
    named = (
        func.unnest(bindparam("ids", type_=ARRAY(String)))
        .table_valued("sample_id", name="named")
        .render_derived()
    )
    mine = select(Dataset.tombstone_key).where(Dataset.id == dataset_parameter())
    found = digest(mine.scalar_subquery(), named.c.sample_id).label("digest")
    return select(named.c.sample_id, found).cte("each").prefix_with("MATERIALIZED")


def of_any_model(
    dataset_id: ColumnElement[UUID], digest: ColumnElement[bytes]
) -> ColumnElement[bool]:
    """Whether any model of the dataset has a tombstone with this digest."""
    return exists().where(
        Model.dataset_id == dataset_id, Tombstone.model_id == Model.id, Tombstone.digest == digest
    )
