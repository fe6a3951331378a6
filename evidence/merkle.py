"""Merkle trees as in RFC 9162, section 2.1: growing one, and its proofs.

A node `(level, index)` is the root of the complete subtree over the leaves from `index * 2**level`
on, `2**level` of them; a leaf is `(0, index)`. A complete node never changes, however the tree
grows, so whoever keeps them all makes any proof from O(log n) of them. Nothing here reads or
writes: `needed` says which nodes to fetch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from hashlib import sha256

Node = tuple[int, int]
Span = tuple[int, int]
"""Leaves from the first number up to, and without, the second."""

EMPTY_ROOT = sha256().digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf (2.1.1)."""
    return sha256(b"\x00" + entry).digest()


def grow(size: int, nodes: Mapping[Node, bytes], leaves: Iterable[bytes]) -> dict[Node, bytes]:
    """The nodes that become complete when leaves are appended, the leaves themselves included.

    Args:
        size: leaves that the tree has.
        nodes: those that `needed([(0, size)])` names, at least.
        leaves: hashes of the leaves to append.
    """
    grown: dict[Node, bytes] = {}
    for position, leaf in enumerate(leaves, start=size):
        level, index, above = 0, position, leaf
        grown[level, index] = above
        while index % 2:
            left = grown.get((level, index - 1)) or nodes[level, index - 1]
            level, index, above = level + 1, index // 2, _parent(left, above)
            grown[level, index] = above
    return grown


def inclusion(index: int, size: int) -> list[Span]:
    """The spans whose hashes prove that leaf `index` is in the tree of `size` leaves (2.1.3.1).

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    return _path(index, (0, size))[::-1]


def consistency(old: int, size: int) -> list[Span]:
    """The spans whose hashes prove that the tree of `old` leaves begins that of `size` (2.1.4.1).

    Raises:
        ValueError: there is no such older tree.
    """
    if not 0 < old <= size:
        raise ValueError(f"a tree of {size} leaves has none of {old} leaves within it")
    spans: list[Span] = []
    start, end, is_known = 0, size, True
    while old < end:
        middle = _middle(start, end)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start, is_known = middle, False
    if not is_known:
        spans.append((start, end))
    return spans[::-1]


def needed(spans: Iterable[Span]) -> set[Node]:
    """The complete nodes from which `hash_of` makes the hashes of these spans."""
    return {node for span in spans for node in _nodes(span)}


def hash_of(span: Span, nodes: Mapping[Node, bytes]) -> bytes:
    """The Merkle tree hash of the leaves in a span (2.1.1); the root is that of `(0, size)`."""
    hashes = [nodes[node] for node in _nodes(span)]
    if not hashes:
        return EMPTY_ROOT
    return reduce(lambda right, left: _parent(left, right), reversed(hashes))


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of a tree that is wholly in memory, from the hashes of its leaves."""
    return hash_of((0, len(leaves)), grow(0, {}, leaves))


def _path(index: int, whole: Span) -> list[Span]:
    """The spans beside the way from the root to a leaf, from the top down."""
    start, end = whole
    spans: list[Span] = []
    while end - start > 1:
        middle = _middle(start, end)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans


def _nodes(span: Span) -> Iterator[Node]:
    """The complete nodes that cover a span of a tree, from left to right, largest first."""
    start, end = span
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _middle(start: int, end: int) -> int:
    """Where RFC 9162 splits a tree: after the largest power of two that is less than its size."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
