"""The column with the group of each row, such as a person: read once, kept as keyed digests only.

Shapes: N rows of a batch.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import text
from sqlalchemy.orm import Session

from domain import sample_digests
from domain.states import Split
from domain.subjects import NotASubject, canonical
from worker.data.bad_rows import Mask, not_utf8

REMEMBERED = 2**17
"""So many groups are digested once, however many batches they occur in."""

KINDS = ("group_invalid", "group_too_long", "group_missing_value", "group_from_float")
"""The faults that a row's group can have; see `domain.subjects.canonical`."""

ADVICE = {
    "group_invalid": "Write groups as UTF-8 text without invisible characters.",
    "group_too_long": "Write a shorter identity as the group.",
    "group_missing_value": "Where the group is not known, write null instead of text such as nan "
    "or None, which would make one person of all those rows.",
    "group_from_float": "Write groups as integers or text that were never floats: 12 and 12.0 "
    "would be two people.",
}
"""What to do about each."""


class GroupDigests:
    """Makes the digests of one dataset's groups."""

    def __init__(self, key: bytes) -> None:
        """Args: key: the dataset's `group_key`."""
        self._made = sample_digests.digester(key)
        self._digested = lru_cache(maxsize=REMEMBERED)(self._digest)

    def of(self, column: pa.Array) -> tuple[pa.Array, dict[str, Mask]]:
        """The digests of a column of text (N,), and the masks (N,) of the rows that are faulty.

        A row without a group, or whose group is blank, has none. Only the different values of the
        batch are looked at.

        Returns:
            (N,) text that Postgres reads as bytes, null for rows without a group and faulty ones.
        """
        broken = not_utf8(column)
        if broken.any():
            column = pa.array(
                [None if bad else each.as_py() for each, bad in zip(column, broken, strict=True)],
                pa.string(),
            )
        encoded = column.dictionary_encode()
        found = [self._digested(each) for each in encoded.dictionary.to_pylist()]
        digests = pa.array([digest for digest, _ in found], pa.string()).take(encoded.indices)
        faults = np.array([-1 if kind is None else KINDS.index(kind) for _, kind in found] + [-1])
        each = faults[encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)]
        masks: dict[str, Mask] = {kind: each == place for place, kind in enumerate(KINDS)}
        masks["group_invalid"] |= broken
        return digests, masks

    def _digest(self, group: str) -> tuple[str | None, str | None]:
        try:
            return "\\x" + self._made(canonical(group)).hex(), None
        except NotASubject as error:
            return None, None if error.kind == "empty" else f"group_{error.kind}"


def report(session: Session) -> dict[str, Any]:
    """What there is to say of the groups of the usable staged rows: counts, no group."""
    found = session.execute(
        text(
            "SELECT count(*) AS groups, coalesce(max(rows), 0) AS largest, "
            "count(*) FILTER (WHERE train > 0) AS train, "
            "count(*) FILTER (WHERE holdout > 0) AS holdout, "
            "count(*) FILTER (WHERE test > 0) AS test, "
            "count(*) FILTER (WHERE train > 0 AND holdout > 0) AS leaking_holdout, "
            "count(*) FILTER (WHERE train > 0 AND test > 0) AS leaking_test, "
            "coalesce(sum(holdout) FILTER (WHERE train > 0), 0) AS samples_holdout, "
            "coalesce(sum(test) FILTER (WHERE train > 0), 0) AS samples_test FROM ("
            "SELECT count(*) AS rows, count(*) FILTER (WHERE split = 'train') AS train, "
            "count(*) FILTER (WHERE split = 'holdout') AS holdout, "
            "count(*) FILTER (WHERE split = 'test') AS test "
            "FROM staged_samples WHERE usable AND group_digest IS NOT NULL GROUP BY group_digest"
            ") AS each"
        )
    ).one()
    without = session.scalar(
        text("SELECT count(*) FROM staged_samples WHERE usable AND group_digest IS NULL")
    )
    told = {
        "groups": found.groups,
        "groups_by_split": {"train": found.train, "holdout": found.holdout, "test": found.test},
        "largest_group": found.largest,
        "samples_without_group": without,
        "leaking_groups": {"holdout": found.leaking_holdout, "test": found.leaking_test},
        "leaking_samples": {
            "holdout": int(found.samples_holdout), "test": int(found.samples_test)
        },
    }  # fmt: skip
    warning = leaks(told)
    return told if warning is None else {**told, "warning": f"{warning}. {_WHAT_FOLLOWS}"}


_WHAT_FOLLOWS = (
    "What a model answers to them is not what it answers to people it never saw. Jobs leave such "
    "hold-out samples out of the audit, and accuracy on such test samples is too high. Move each "
    "group to one split, and train without the groups of the other two."
)

_CALLED = {Split.HOLDOUT.value: "hold-out", Split.TEST.value: "test"}


def leaks(groups: dict[str, Any]) -> str | None:
    """How many groups stand both in training and elsewhere, in words; None if there are none.

    Args:
        groups: as `report` returns it.
    """
    parts = [
        f"{count} of the {groups['groups_by_split'][split]} {_CALLED[split]} groups also "
        f"{'stands' if count == 1 else 'stand'} in training "
        f"({groups['leaking_samples'][split]} samples)"
        for split, count in groups["leaking_groups"].items()
        if count
    ]
    return " and ".join(parts) or None
