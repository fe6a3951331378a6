"""Which samples are kept when a version is registered, drawn before the pass over the dataset."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import cast, func, select
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import Session

from domain import tombstones
from domain.states import Split
from domain.tables import Dataset, Model, Sample
from worker.data import unseen
from worker.data.left_out import stays


@dataclass(frozen=True, slots=True)
class Drawn:
    """The samples that the pass keeps."""

    by_split: dict[Split, Sequence[tuple[str, int]]]
    """Ids and positions, by split; see `_by_split`."""

    unseen: unseen.Drawn | None
    """What jobs get for the hold-out, where the dataset has groups: else what was drawn of it."""

    @property
    def positions(self) -> list[int]:
        of_unseen = [] if self.unseen is None else [self.unseen.named]
        return [place for named in (*self.by_split.values(), *of_unseen) for _, place in named]


def draw(session: Session, model: Model, dataset: Dataset, left_out: Collection[str]) -> Drawn:
    """Samples to keep, none of those that are left out or that the model has forgotten."""
    has_groups = dataset.definition["columns"].get("group") is not None
    of_unseen = unseen.draw(session, model, left_out) if has_groups else None
    return Drawn(_by_split(session, model, left_out), of_unseen)


def _by_split(
    session: Session, model: Model, left_out: Collection[str]
) -> dict[Split, Sequence[tuple[str, int]]]:
    """Ids and positions of the samples to keep, by split, drawn by a hash of their ids.

    Training samples are spread evenly over the classes, as far as each has enough; hold-out and
    test samples keep their class mix, so that an accuracy on them stands for the whole split.
    """
    place = cast(func.md5(func.concat(Sample.sample_id, model.id)), UUID)
    rank = func.row_number().over(partition_by=Sample.label, order_by=place)
    forgotten = tombstones.has(model.id, Sample.sample_id)
    drawn: dict[Split, Sequence[tuple[str, int]]] = {}
    for split in Split:
        train = split is Split.TRAIN
        limit = model.policy["reservoir_samples" if train else "evaluation_samples"]
        rows = session.execute(
            select(Sample.sample_id, Sample.position)
            .where(
                Sample.dataset_id == model.dataset_id,
                Sample.split == split,
                ~forgotten,
                stays(Sample.sample_id, left_out),
            )
            .order_by(*([rank, place] if train else [place]))
            .limit(limit)
        )
        drawn[split] = [(sample_id, position) for sample_id, position in rows]
    return drawn
