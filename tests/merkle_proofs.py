"""Proof verification by RFC 9162, for tests: the roots that proofs lead to."""

from collections.abc import Sequence
from hashlib import sha256


def root_from_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to (2.1.3.2)."""
    edge, root = size - 1, leaf
    for beside in proof:
        assert edge
        if index % 2 or index == edge:
            root = _parent(beside, root)
            while not index % 2 and index:
                index, edge = index >> 1, edge >> 1
        else:
            root = _parent(root, beside)
        index, edge = index >> 1, edge >> 1
    assert not edge
    return root


def roots_from_consistency(
    old: int, size: int, proof: Sequence[bytes], old_root: bytes
) -> tuple[bytes, bytes]:
    """The older and the newer root that a consistency proof leads to (2.1.4.2)."""
    path = [*proof] if old & (old - 1) else [old_root, *proof]
    index, edge = old - 1, size - 1
    while index % 2:
        index, edge = index >> 1, edge >> 1
    older = newer = path[0]
    for beside in path[1:]:
        assert edge
        if index % 2 or index == edge:
            older, newer = _parent(beside, older), _parent(beside, newer)
            while not index % 2 and index:
                index, edge = index >> 1, edge >> 1
        else:
            newer = _parent(newer, beside)
        index, edge = index >> 1, edge >> 1
    assert not edge
    return older, newer


def _parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
