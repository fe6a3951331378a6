"""The tree against published vectors, against the RFC's own definitions, and against the verifier.

Vectors: `testonly/constants.go` and `testonly/reference_test.go` of transparency-dev/merkle, which
are those of Certificate Transparency; and the example in RFC 9162, section 2.1.5.
"""

from collections.abc import Mapping
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks.judge import verify
from evidence import merkle

ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                  "606162636465666768696a6b6c6d6e6f")
]  # fmt: skip
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]
NODES = {
    (0, 0): "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    (0, 1): "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    (0, 2): "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
    (0, 3): "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
    (0, 4): "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    (0, 5): "4271a26be0d8a84f0bd54c8c302e7cb3a3b5d1fa6780a40bcce2873477dab658",
    (0, 6): "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
    (0, 7): "46f6ffadd3d06a09ff3c5860d2755c8b9819db7df44251788c7d8e3180de8eb1",
    (1, 0): "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    (1, 1): "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    (1, 2): "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    (1, 3): "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    (2, 0): "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    (2, 1): "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    (3, 0): "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 2): [(0, 1)],
    (1, 2): [(0, 0)],
    (2, 3): [(1, 0)],
    (1, 5): [(0, 0), (1, 1), (0, 4)],
    (0, 8): [(0, 1), (1, 1), (2, 1)],
    (5, 8): [(0, 4), (1, 3), (2, 0)],
}
"""Leaf and size: the nodes of the proof."""

CONSISTENCY = {
    (1, 1): [],
    (1, 8): [(0, 1), (1, 1), (2, 1)],
    (2, 5): [(1, 1), (0, 4)],
    (6, 8): [(1, 2), (1, 3), (2, 0)],
}
SIZES = range(71)
"""Beyond 64: the first tree of seven levels, and a few more."""


def hashes(spans: list[merkle.Span], nodes: Mapping[merkle.Node, bytes]) -> list[bytes]:
    return [merkle.hash_of(span, nodes) for span in spans]


def test_published_nodes():
    grown = merkle.grow(0, {}, LEAVES)

    assert {node: value.hex() for node, value in grown.items()} == NODES


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size):
    assert merkle.root_of(LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(("leaf", "size"), INCLUSION)
def test_published_inclusion_proofs(leaf, size):
    proof = hashes(merkle.inclusion(leaf, size), merkle.grow(0, {}, LEAVES))

    assert [each.hex() for each in proof] == [NODES[node] for node in INCLUSION[leaf, size]]
    assert verify.includes(LEAVES[leaf], leaf, size, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "size"), CONSISTENCY)
def test_published_consistency_proofs(old, size):
    proof = hashes(merkle.consistency(old, size), merkle.grow(0, {}, LEAVES))
    roots = (bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[size]))

    assert [each.hex() for each in proof] == [NODES[node] for node in CONSISTENCY[old, size]]
    assert verify.continues(old, roots[0], size, roots[1], proof)


def test_the_example_of_rfc_9162():
    nodes = merkle.grow(0, {}, LEAVES[:7])
    a, b, c, d, e, f, j = LEAVES[:7]
    g, h, i = (sha256(b"\x01" + left + right).digest() for left, right in ((a, b), (c, d), (e, f)))
    k, l = (sha256(b"\x01" + left + right).digest() for left, right in ((g, h), (i, j)))  # noqa: E741

    assert merkle.root_of(LEAVES[:7]) == sha256(b"\x01" + k + l).digest()
    for leaf, path in ((0, [b, h, l]), (3, [c, g, l]), (4, [f, j, k]), (6, [i, k])):
        assert hashes(merkle.inclusion(leaf, 7), nodes) == path
    for old, path in ((3, [c, d, g, l]), (4, [l]), (6, [i, j, k])):
        assert hashes(merkle.consistency(old, 7), nodes) == path


# The definitions of RFC 9162, written as they stand there


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH (2.1.1)."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return sha256(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH (2.1.3.1)."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), tree_hash(leaves[k:])]
    return [*path(m - k, leaves[k:]), tree_hash(leaves[:k])]


def subproof(m: int, leaves: list[bytes], b: bool) -> list[bytes]:
    """SUBPROOF (2.1.4.1)."""
    if m == len(leaves):
        return [] if b else [tree_hash(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], b), tree_hash(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), tree_hash(leaves[:k])]


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def tree(size: int) -> list[bytes]:
    return [merkle.leaf_hash(str(n).encode()) for n in range(size)]


@pytest.mark.parametrize("size", SIZES)
def test_all_roots_and_proofs_are_as_defined(size):
    leaves = tree(size)
    nodes = merkle.grow(0, {}, leaves)

    assert merkle.root_of(leaves) == tree_hash(leaves)
    for leaf in range(size):
        assert hashes(merkle.inclusion(leaf, size), nodes) == path(leaf, leaves)
    for old in range(1, size + 1):
        assert hashes(merkle.consistency(old, size), nodes) == subproof(old, leaves, True)


@given(st.lists(st.binary(max_size=8), max_size=40), st.data())
def test_a_tree_that_grows_by_parts_is_the_tree_that_was_built_at_once(entries, data):
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    cut = data.draw(st.integers(0, len(leaves)))
    first = merkle.grow(0, {}, leaves[:cut])
    edge = {node: first[node] for node in merkle.needed([(0, cut)])}  # no more is kept

    grown = first | merkle.grow(cut, edge, leaves[cut:])

    assert grown == merkle.grow(0, {}, leaves)
    assert merkle.hash_of((0, len(leaves)), grown) == tree_hash(leaves)


@pytest.mark.parametrize("leaf", [-1, 5, 6])
def test_a_leaf_that_is_not_there_has_no_proof(leaf):
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion(leaf, 5)


@pytest.mark.parametrize("old", [-1, 0, 6])
def test_a_tree_that_is_not_within_has_no_proof(old):
    with pytest.raises(ValueError, match="none of"):
        merkle.consistency(old, 5)


# What the verifier makes of proofs


@pytest.mark.parametrize("size", SIZES)
def test_the_verifier_accepts_every_proof(size):
    leaves = tree(size)
    nodes, root = merkle.grow(0, {}, leaves), merkle.root_of(leaves)

    for leaf in range(size):
        proof = hashes(merkle.inclusion(leaf, size), nodes)
        assert verify.includes(leaves[leaf], leaf, size, proof, root)
    for old in range(1, size + 1):
        proof = hashes(merkle.consistency(old, size), nodes)
        assert verify.continues(old, merkle.root_of(leaves[:old]), size, root, proof)


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 13])
def test_the_verifier_refuses_every_altered_inclusion_proof(size):
    leaves = tree(size)
    nodes, root = merkle.grow(0, {}, leaves), merkle.root_of(leaves)

    for leaf in range(size):
        proof = hashes(merkle.inclusion(leaf, size), nodes)
        for index in {*range(-1, size + 2), 2**40} - {leaf}:
            assert not verify.includes(leaves[leaf], index, size, proof, root)
        for altered in alterations(proof):
            assert not verify.includes(leaves[leaf], leaf, size, altered, root)


@pytest.mark.parametrize("size", [2, 3, 6, 7, 8, 13])
def test_the_verifier_refuses_every_altered_consistency_proof(size):
    leaves = tree(size)
    nodes, root = merkle.grow(0, {}, leaves), merkle.root_of(leaves)

    for old in range(1, size):
        old_root = merkle.root_of(leaves[:old])
        proof = hashes(merkle.consistency(old, size), nodes)
        for altered in alterations(proof):
            assert not verify.continues(old, old_root, size, root, altered)
        assert not verify.continues(old, bytes(32), size, root, proof)
        assert not verify.continues(old, old_root, size, bytes(32), proof)
        assert not verify.continues(size, old_root, old, root, proof)


def alterations(proof: list[bytes]) -> list[list[bytes]]:
    """One hash more, one less, one other, two exchanged."""
    return [
        [*proof, bytes(32)],
        [bytes(32), *proof],
        *(proof[:n] + proof[n + 1 :] for n in range(len(proof))),
        *([*proof[:n], bytes(32), *proof[n + 1 :]] for n in range(len(proof))),
        *([*proof[:n], proof[n + 1], proof[n], *proof[n + 2 :]] for n in range(len(proof) - 1)),
    ]


def test_a_node_is_no_leaf():
    """Second preimages: the children of a node, taken as an entry, hash to something else."""
    leaves = tree(4)
    node = sha256(b"\x01" + leaves[0] + leaves[1]).digest()
    right = sha256(b"\x01" + leaves[2] + leaves[3]).digest()

    assert not verify.includes(
        verify.leaf_hash(leaves[0] + leaves[1]), 0, 2, [right], merkle.root_of(leaves)
    )
    assert not verify.includes(node, 0, 4, [right], merkle.root_of(leaves))


def test_only_an_empty_tree_begins_every_other_without_a_proof():
    root = merkle.root_of(tree(5))

    assert verify.continues(0, merkle.EMPTY_ROOT, 5, root, [])
    assert verify.continues(0, merkle.EMPTY_ROOT, 0, merkle.EMPTY_ROOT, [])
    assert not verify.continues(0, bytes(32), 5, root, [])
    assert not verify.continues(0, merkle.EMPTY_ROOT, 5, root, [bytes(32)])
    assert not verify.includes(merkle.EMPTY_ROOT, 0, 0, [], merkle.EMPTY_ROOT)


class Huge(Mapping[merkle.Node, bytes]):
    """The nodes of a tree without end, whose leaves are all alike but for one."""

    def __init__(self, odd: int) -> None:
        self.odd = odd
        self.usual, self.special = [merkle.leaf_hash(b"usual")], [merkle.leaf_hash(b"odd")]
        for level in range(60):
            usual, special = self.usual[-1], self.special[-1]
            pair = (usual, special) if odd >> level & 1 else (special, usual)
            self.usual.append(sha256(b"\x01" + usual * 2).digest())
            self.special.append(sha256(b"\x01" + b"".join(pair)).digest())

    def __getitem__(self, node: merkle.Node) -> bytes:
        level, index = node
        return (self.special if self.odd >> level == index else self.usual)[level]

    def __iter__(self):
        raise NotImplementedError

    def __len__(self):
        raise NotImplementedError


@given(st.integers(1, 2**50), st.data())
def test_proofs_hold_in_trees_of_any_size(size, data):
    leaf = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    nodes = Huge(odd=leaf)
    root, old_root = (merkle.hash_of((0, end), nodes) for end in (size, old))

    inclusion = hashes(merkle.inclusion(leaf, size), nodes)
    consistency = hashes(merkle.consistency(old, size), nodes)

    assert len(inclusion) <= size.bit_length()
    assert len(consistency) <= size.bit_length() + 1
    assert verify.includes(nodes[0, leaf], leaf, size, inclusion, root)
    assert verify.continues(old, old_root, size, root, consistency)
    if leaf + 1 < size:
        assert not verify.includes(nodes[0, leaf], leaf + 1, size, inclusion, root)
    assert not verify.continues(old, bytes(32), size, root, consistency)
