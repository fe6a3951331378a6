"""A commitment binds to ids, and opens for one of them without revealing the others."""

import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import commitments

KEY = bytes(range(32))
IDS = st.sets(st.text(min_size=1, max_size=12), min_size=1, max_size=40)


def climb(opening, sample_id):
    """The root that the opening leads to, told another way: RFC 9162, 2.1.3.2."""
    entry = hmac.digest(opening.blind, sample_id.encode(), "sha256")
    root, place, last = sha256(b"\0" + entry).digest(), opening.index, opening.size - 1
    for hash_ in opening.proof:
        if place % 2 or place == last:
            root = sha256(b"\1" + hash_ + root).digest()
            while place % 2 == 0 and place:
                place, last = place // 2, last // 2
        else:
            root = sha256(b"\1" + root + hash_).digest()
        place, last = place // 2, last // 2
    assert last == 0
    return root


@given(ids=IDS)
def test_each_id_opens_to_the_commitment(ids):
    made = commitments.commit(KEY, list(ids))

    for sample_id in ids:
        opening = commitments.open_for(KEY, made.entries, sample_id)
        assert climb(opening, sample_id) == made.root


@given(ids=IDS, other=st.text(min_size=1, max_size=12))
def test_an_id_that_was_not_named_does_not_open(ids, other):
    made = commitments.commit(KEY, list(ids - {other}) or ["x" * 20])

    assert commitments.open_for(KEY, made.entries, other) is None


def test_the_order_of_the_ids_does_not_matter_and_the_key_does():
    made = commitments.commit(KEY, ["b", "a", "c"])

    assert commitments.commit(KEY, ["c", "b", "a"]) == made
    assert commitments.commit(commitments.new_key(), ["b", "a", "c"]).root != made.root


def test_one_id_with_another_ids_opening_leads_elsewhere():
    made = commitments.commit(KEY, ["a", "b", "c"])
    opening = commitments.open_for(KEY, made.entries, "a")

    assert climb(opening, "b") != made.root


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "ä€😀"]])
def test_is_what_it_says(ids):
    """Blind, entry, order and leaf, each by hand; the root of one leaf is the leaf."""
    made = commitments.commit(KEY, ids)
    entries = sorted(
        hmac.digest(hmac.digest(KEY, name.encode(), "sha256"), name.encode(), "sha256")
        for name in ids
    )
    leaves = [sha256(b"\0" + entry).digest() for entry in entries]
    assert made.entries == b"".join(entries)
    if len(leaves) == 1:
        assert made.root == leaves[0]
    else:
        first = sha256(b"\1" + leaves[0] + leaves[1]).digest()
        assert made.root == sha256(b"\1" + first + leaves[2]).digest()


def test_keys_are_random_and_long():
    assert len({commitments.new_key() for _ in range(100)}) == 100
    assert len(commitments.new_key()) == commitments.SIZE
