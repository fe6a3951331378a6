"""Hold-out samples of groups that the model never saw, and how they are shared out.

A hold-out sample of a person who also stands in training says nothing of people the model does not
know. So the reservoir of a dataset with groups has such samples only where there are too few
others, and says which they are; and no group is in both halves of the hold-out. Nothing of a
group's identity is kept: it has a number, whose last bit is the half.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import cast, func, select
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import Session

from domain import tombstones
from domain.states import Split
from domain.tables import Model, Sample
from worker.data import groups
from worker.data.left_out import stays

GROUP, LEAKING = "holdout_group", "leaking"
"""Columns that the reservoir of a dataset with groups has besides: the number of a hold-out
sample's group, and whether that stands in training too. Null beside samples of other splits."""

ENOUGH = 10
"""With so many samples to calibrate with, from groups that stand in no other split, there is no
need of others; the method asks for as many of a class (`worker.unlearning.targets.ENOUGH`)."""

SIDES = (0, 1, 1, 0)
"""The half of each of four groups in the order of their size, so that both get as many groups and
about as many samples: 0 for calibration, which comes first since without it nothing can be done."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The hold-out samples to keep."""

    named: Sequence[tuple[str, int]]
    """Ids and positions."""

    numbers: Sequence[int]
    """Of their groups."""

    leaking: Sequence[bool]


def draw(session: Session, model: Model, left_out: Collection[str] = ()) -> Drawn:
    """Hold-out samples for the audit and the calibration of a model of a dataset with groups; none
    of those that are left out.

    Where there are more than the policy's `evaluation_samples`, each group gives equally many, as
    far as it has enough: the groups are what the audit counts.
    """
    place = cast(func.md5(func.concat(Sample.sample_id, model.id)), UUID)
    group = func.coalesce(Sample.group_digest, func.convert_to(Sample.sample_id, "UTF8"))
    trained = groups.in_training(model.dataset_id)
    leaking = trained.c.group_digest.is_not(None).label("leaking")
    rank = func.row_number().over(partition_by=group, order_by=place)
    rows = session.execute(
        select(
            Sample.sample_id, Sample.position, Sample.label, group.label("of"), leaking
        )
        .outerjoin(trained, trained.c.group_digest == Sample.group_digest)
        .where(
            Sample.dataset_id == model.dataset_id,
            Sample.split == Split.HOLDOUT,
            ~tombstones.has(model.id, Sample.sample_id),
            stays(Sample.sample_id, left_out),
        )
        .order_by(leaking, rank, place)
        .limit(model.policy["evaluation_samples"])
    ).all()  # fmt: skip
    clean = [row for row in rows if not row.leaking]
    numbers = _numbered([(row.of, row.label) for row in clean])
    to_calibrate = sum(numbers[row.of] % 2 == 0 for row in clean)
    kept = clean if to_calibrate >= ENOUGH else rows
    return Drawn(
        [(row.sample_id, row.position) for row in kept],
        [numbers.get(row.of, -1) for row in kept],
        [row.leaking for row in kept],
    )


def _numbered(samples: Sequence[tuple[bytes, int]]) -> dict[bytes, int]:
    """A number for each group of these samples, given by group and label.

    Groups of the same main class are shared out together, the large ones first.
    """
    labels: dict[bytes, Counter[int]] = {}
    for group, label in samples:
        labels.setdefault(group, Counter())[label] += 1
    ordered = sorted(labels, key=lambda each: (_main(labels[each]), -labels[each].total(), each))
    return {each: 2 * place + SIDES[place % 4] for place, each in enumerate(ordered)}


def _main(labels: Counter[int]) -> int:
    """The most frequent label, the smallest of several."""
    return min(labels, key=lambda label: (-labels[label], label))


def marked(table: pa.Table, drawn: Drawn) -> pa.Table:
    """The samples kept, with only those of the hold-out that were drawn, and their groups."""
    ids = [sample_id for sample_id, _ in drawn.named]
    known = {each: place for place, each in enumerate(ids)}
    places = pa.array([known.get(each) for each in table["sample_id"].to_pylist()], pa.int64())
    columns = {
        GROUP: pa.array(drawn.numbers, pa.int32()),
        LEAKING: pa.array(drawn.leaking, pa.bool_()),
    }
    for name, values in columns.items():
        table = table.append_column(name, values.take(places))
    mine = pc.or_(pc.not_equal(table["split"], Split.HOLDOUT.value), places.is_valid())
    return table.filter(mine)


def sides(numbers: Sequence[int], leaking: Sequence[bool]) -> list[bool]:
    """Whether each hold-out sample is in the half for the audit, by its group.

    Groups that stand in training never are. A group changes its half only when the other half would
    be empty: as the audit can do without (it says so), and the method cannot, calibration comes
    first.
    """
    clean = [number for number, also in zip(numbers, leaking, strict=True) if not also]
    halves = {side: sorted({number for number in clean if number % 2 == side}) for side in (0, 1)}
    moved: Collection[int] = ()
    if not halves[0] and len(clean) == len(numbers):
        moved = halves[1][:1]
    elif not halves[1] and len(halves[0]) > 1:
        moved = halves[0][:1]
    return [
        not also and (number % 2 == 1) != (number in moved)
        for number, also in zip(numbers, leaking, strict=True)
    ]


def remarks(report: dict[str, Any] | None, *, audited: int, leaking: int) -> list[str]:
    """What a reader of a verdict must know of the hold-out, in words.

    Args:
        report: of the dataset.
        audited: hold-out samples in the half for the audit.
        leaking: those that the method is calibrated with though their groups stand in training.
    """
    found = (report or {}).get("groups")
    if found is None:
        return []
    count, of = found["leaking_groups"]["holdout"], found["groups_by_split"]["holdout"]
    told = []
    if count:
        told.append(
            f"{count} of the {of} hold-out groups also stand in training; their "
            f"{found['leaking_samples']['holdout']} samples were not taken for unseen ones"
        )
    if not audited:
        told.append(
            "the hold-out has no two groups that stand in no other split, so nothing shows what "
            "the model answers to people it never saw; register it with such a dataset, or ask for "
            "an exact version"
        )
    if leaking:
        told.append("the method was calibrated with people who stand in training")
    return told
