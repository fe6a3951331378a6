"""Which samples may not be trained on again: a model of their dataset has forgotten them, and that
was not lifted."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Select,
    bindparam,
    exists,
    func,
    literal,
    select,
)
from sqlalchemy.orm import Session

from domain import lifting, tombstones
from domain.errors import no_such
from domain.tables import Dataset, Model, Sample, Tombstone, staged_samples

ASKED_AT_ONCE = 10_000


def suppressed(session: Session, dataset: str, ids: Iterable[str]) -> set[str]:
    """Those of these ids whose samples a model trained on the dataset has forgotten.

    Samples need not be in the dataset any more. Raises NotFound when there is no such dataset.
    """
    dataset_id = session.scalar(select(Dataset.id).filter_by(name=dataset))
    if dataset_id is None:
        raise no_such(f"dataset {dataset!r}", listed_at="/v1/datasets")
    found: set[str] = set()
    rest = iter(ids)
    while some := list(islice(rest, ASKED_AT_ONCE)):
        found.update(session.scalars(AMONG, {"dataset_id": dataset_id, "ids": some}))
    return found


def count(session: Session, dataset_id: UUID) -> int:
    """How many samples of the dataset may not be trained on."""
    digests = select(func.count(Tombstone.digest.distinct())).join(Model)
    lifted = lifting.is_lifted(literal(dataset_id), Tombstone.digest)
    return session.scalars(digests.where(Model.dataset_id == dataset_id, ~lifted)).one()


def elsewhere(session: Session, dataset_id: UUID, ids: Select[str]) -> dict[str, int]:
    """How many of these ids are those of samples that were forgotten in a dataset other than this
    one, by the name of the other: perhaps they come back under another name.

    Each id has one digest for each other dataset, so this can take a while where both are many. Let
    no row be locked meanwhile that others wait for.

    Args:
        ids: selects one column, the ids, which occur once each.
    """
    has_forgotten = exists().where(Model.dataset_id == Dataset.id, Tombstone.model_id == Model.id)
    others = select(Dataset).where(Dataset.id != dataset_id, has_forgotten).order_by(Dataset.name)
    counted = {}
    for other in session.scalars(others).all():
        key = literal(other.tombstone_key, LargeBinary)
        (sample_id,) = ids.subquery().c
        each = (
            select(tombstones.digest(key, sample_id).label("digest"))
            .cte("each")
            .prefix_with("MATERIALIZED")  # or a nested loop would repeat it for each tombstone
        )
        lifted = lifting.is_lifted(literal(other.id), Tombstone.digest)
        gone = select(Tombstone.digest).join(Model).where(Model.dataset_id == other.id, ~lifted)
        mine = select(func.count()).select_from(each).where(each.c.digest.in_(gone))
        with _hashing(session):
            counted[other.name] = session.scalars(mine).one()
    return {name: samples for name, samples in counted.items() if samples}


def among_staged(session: Session, dataset: Dataset) -> tuple[int, int]:
    """How many of the usable staged samples may not be trained on, of those that are not indexed
    yet, and of those that are."""
    digests = select(Tombstone.digest).join(Model).where(Model.dataset_id == dataset.id)
    lifted = lifting.is_lifted(literal(dataset.id), Tombstone.digest)
    gone = digests.where(~lifted)
    if session.scalar(select(~gone.exists())):
        return 0, 0
    key = literal(dataset.tombstone_key, LargeBinary)
    each = (
        select(
            staged_samples.c.sample_id,
            tombstones.digest(key, staged_samples.c.sample_id).label("digest"),
        )
        .where(staged_samples.c.usable)
        .cte("each")
        .prefix_with("MATERIALIZED")
    )
    indexed = exists().where(Sample.dataset_id == dataset.id, Sample.sample_id == each.c.sample_id)
    counted = select(func.count().filter(~indexed), func.count().filter(indexed))
    with _hashing(session):
        row = session.execute(counted.select_from(each).where(each.c.digest.in_(gone))).one()
    return row[0], row[1]


@contextmanager
def _hashing(session: Session) -> Iterator[None]:
    """Nested loops are left out where there is another way: of tombstones that are newer than its
    statistics the planner believes that there are none, and that going through them costs nothing.
    """
    switch = select(func.set_config("enable_nestloop", bindparam("to"), True))
    session.execute(switch, {"to": "off"})
    yield
    session.execute(switch, {"to": "on"})


def _has_tombstone(
    dataset_id: ColumnElement[UUID], digest: ColumnElement[bytes]
) -> ColumnElement[bool]:
    """Whether any model of the dataset has a tombstone with this digest, which was not lifted."""
    return tombstones.of_any_model(dataset_id, digest) & ~lifting.is_lifted(dataset_id, digest)


def _among() -> Select[str]:
    dataset_id, each = tombstones.dataset_parameter(), tombstones.each_named()
    return select(each.c.sample_id).where(_has_tombstone(dataset_id, each.c.digest))


AMONG = _among()
"""Of `ids` those that are suppressed in the dataset `dataset_id`."""
