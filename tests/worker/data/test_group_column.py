"""The group of each row: what is one group, what is refused, and what is kept of it."""

import pyarrow as pa
import pytest

from domain import sample_digests
from worker.data.group_column import KINDS, GroupDigests, leaks

KEY = sample_digests.new_key()


def digested(*groups):
    """Digests and kinds of fault, row by row."""
    digests, masks = GroupDigests(KEY).of(pa.array(groups, pa.string()))
    kinds = [[kind for kind in KINDS if masks[kind][row]] for row in range(len(groups))]
    return digests.to_pylist(), kinds


def test_a_group_is_what_a_request_will_name():
    digests, kinds = digested("7", " 7", None, "", "  ", "Zoe\u0308", "Zo\u00eb")

    seven, zoe = ("\\x" + sample_digests.digest(KEY, name).hex() for name in ("7", "Zo\u00eb"))
    assert digests == [seven, seven, None, None, None, zoe, zoe]
    assert not any(kinds)


def test_what_could_be_two_groups_or_nobody_is_a_fault():
    digests, kinds = digested("nan", "12.0", "a\u200b", "x" * 513, "x" * 512)

    assert kinds == [
        ["group_missing_value"], ["group_from_float"], ["group_invalid"], ["group_too_long"], [],
    ]  # fmt: skip
    assert [digest is None for digest in digests] == [True, True, True, True, False]


def test_text_that_is_not_utf8_is_a_fault_of_its_row():
    offsets = pa.array([0, 1, 3], pa.int32()).buffers()[1]
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff\xfe")])

    digests, masks = GroupDigests(KEY).of(column)

    assert masks["group_invalid"].tolist() == [False, True]
    assert digests[0].as_py() == digested("a")[0][0]


@pytest.mark.parametrize(
    ("leaking", "said"),
    [
        ({"holdout": 0, "test": 0}, None),
        ({"holdout": 1, "test": 0}, "1 of the 4 hold-out groups also stands in training"),
        (
            {"holdout": 2, "test": 1},
            "2 of the 4 hold-out groups also stand in training (9 samples) and "
            "1 of the 3 test groups also stands in training (5 samples)",
        ),
    ],
)
def test_leaks_are_said_in_words(leaking, said):
    told = leaks(
        {
            "leaking_groups": leaking,
            "leaking_samples": {"holdout": 9, "test": 5},
            "groups_by_split": {"train": 5, "holdout": 4, "test": 3},
        }
    )

    assert (told is None) == (said is None)
    assert said is None or told.startswith(said)
