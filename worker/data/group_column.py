"""The column with the group of each row, such as a person: read once, kept as keyed digests only.

Shapes: N rows of a batch.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import text
from sqlalchemy.orm import Session

from domain import sample_digests
from domain.states import Split
from domain.subjects import LONGEST, NOBODY, NotASubject, canonical
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
        self._digests: dict[bytes | None, str | None] = {None: None}
        self._faults: dict[bytes, int] = {}

    def of(self, column: pa.Array) -> tuple[pa.Array, dict[str, Mask]]:
        """The digests of a column of text (N,), and the masks (N,) of the rows that are faulty.

        A row without a group, or whose group is blank, has none.

        Returns:
            (N,) text that Postgres reads as bytes, null for rows without a group and faulty ones.
        """
        if len(self._digests) > REMEMBERED:
            self._digests, self._faults = {None: None}, {}
        broken = not_utf8(column)
        if broken.any():
            column = pa.array(
                [None if bad else each.as_py() for each, bad in zip(column, broken, strict=True)],
                pa.string(),
            )
        groups = column.cast(pa.binary()).to_numpy(zero_copy_only=False).tolist()
        self._learn(dict.fromkeys(each for each in groups if each not in self._digests))
        digests = pa.array([self._digests[each] for each in groups], pa.string())
        kinds = np.full(len(groups), -1)
        if self._faults:
            for row in np.flatnonzero(digests.is_null().to_numpy(zero_copy_only=False)).tolist():
                kinds[row] = self._faults.get(groups[row], -1)
        masks: dict[str, Mask] = {kind: kinds == place for place, kind in enumerate(KINDS)}
        masks["group_invalid"] |= broken
        return digests, masks

    def _learn(self, groups: Iterable[bytes]) -> None:
        """Make the digests of groups that have none yet."""
        new = list(groups)
        sure = surely_canonical(pa.array(new, pa.binary()).cast(pa.string())).to_pylist()
        for group, as_it_is in zip(new, sure, strict=True):
            try:
                text = group if as_it_is else canonical(group.decode()).encode()
            except NotASubject as error:
                self._digests[group] = None
                if error.kind != "empty":
                    self._faults[group] = KINDS.index(f"group_{error.kind}")
            else:
                self._digests[group] = "\\x" + self._made(text).hex()


_SURE = r"\A(?:[0-9]+|[!-~]*[!-*,/:-DF-df-~][!-~]*)\z"
"""Visible ASCII without blanks, and no number that was a float: these have only +, -, ., e and E
beside digits."""

_SHORT = max(map(len, NOBODY))


def surely_canonical(column: pa.Array) -> pa.Array:
    """Which texts (N,) are subjects in their canonical form beyond doubt: `canonical`, which takes
    much longer, would return them as they are."""
    lengths = pc.binary_length(column)
    of_length = pc.and_(pc.greater(lengths, _SHORT), pc.less_equal(lengths, LONGEST))
    return pc.and_(pc.match_substring_regex(column, _SURE), of_length)


def report(session: Session, usable: int) -> dict[str, Any]:
    """What there is to say of the groups of the usable staged rows: counts, no group.

    Args:
        usable: how many of those rows there are.
    """
    found = session.execute(
        text(
            "SELECT count(*) AS groups, coalesce(max(rows), 0) AS largest, "
            "count(*) FILTER (WHERE train > 0) AS train, "
            "count(*) FILTER (WHERE holdout > 0) AS holdout, "
            "count(*) FILTER (WHERE test > 0) AS test, "
            "count(*) FILTER (WHERE train > 0 AND holdout > 0) AS leaking_holdout, "
            "count(*) FILTER (WHERE train > 0 AND test > 0) AS leaking_test, "
            "coalesce(sum(holdout) FILTER (WHERE train > 0), 0) AS samples_holdout, "
            "coalesce(sum(test) FILTER (WHERE train > 0), 0) AS samples_test, "
            "coalesce(sum(rows), 0) AS samples FROM ("
            "SELECT count(*) AS rows, count(*) FILTER (WHERE split = 'train') AS train, "
            "count(*) FILTER (WHERE split = 'holdout') AS holdout, "
            "count(*) FILTER (WHERE split = 'test') AS test "
            "FROM staged_samples WHERE usable AND group_digest IS NOT NULL GROUP BY group_digest"
            ") AS each"
        )
    ).one()
    told = {
        "groups": found.groups,
        "groups_by_split": {"train": found.train, "holdout": found.holdout, "test": found.test},
        "largest_group": found.largest,
        "samples_without_group": usable - int(found.samples),
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
