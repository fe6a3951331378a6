"""The group of each row: what is one group, what is refused, and what is kept of it."""

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain import sample_digests
from domain.subjects import NOBODY, canonical
from worker.data import group_column
from worker.data.group_column import KINDS, GroupDigests, leaks, surely_canonical

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


@pytest.mark.parametrize("remembered", [group_column.REMEMBERED, 3])
def test_batch_after_batch_each_row_gets_the_digest_of_its_group(monkeypatch, remembered):
    """Whether groups are remembered, or forgotten between the batches."""
    monkeypatch.setattr(group_column, "REMEMBERED", remembered)
    digests = GroupDigests(KEY)
    batches = [["anna@x", None, "12.0", "b d"], ["b d", "12.0", "anna@x", ""], ["nan", "7", "b  d"]]
    for groups in [*batches, *batches]:
        made, masks = digests.of(pa.array(groups, pa.string()))
        alone = [digested(group) for group in groups]
        assert made.to_pylist() == [of for (of,), _ in alone]
        assert [[kind for kind in KINDS if masks[kind][row]] for row in range(len(groups))] == [
            kinds for _, (kinds,) in alone
        ]


def test_each_group_is_digested_once(monkeypatch):
    """However often it occurs, in a batch or in several."""
    asked = []
    monkeypatch.setattr(
        sample_digests, "digester", lambda key: lambda group: asked.append(group) or b"digest"
    )
    digests = GroupDigests(KEY)
    for groups in (["anna@x", "b d", "anna@x", None], ["b d", "anna@x", "carla@x", None]):
        digests.of(pa.array(groups, pa.string()))

    assert asked == [b"anna@x", b"b d", b"carla@x"]


NUMBERS = st.from_regex(r"[-+]?[0-9]{1,20}([.][0-9]{0,5})?([eE][-+]?[0-9]{0,3})?", fullmatch=True)


@settings(max_examples=50, deadline=None)
@given(groups=st.lists(st.text() | st.text(st.characters(max_codepoint=126)) | NUMBERS))
@example(groups=[*NOBODY, "x" * 512, "x" * 513, "anna@x\n", "-12345.0", "1E+16", "12345."])
def test_what_is_taken_as_it_is_is_what_canonical_would_make_of_it(groups):
    sure = surely_canonical(pa.array(groups, pa.string())).to_pylist()

    for group, as_it_is in zip(groups, sure, strict=True):
        assert not as_it_is or canonical(group) == group


def test_ordinary_identities_are_taken_as_they_are():
    ordinary = ["person-000000017@example.org", "1234567", "01a2-33fe", "C-19.4", "x" * 512]

    assert surely_canonical(pa.array(ordinary)).to_pylist() == [True] * 5


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
