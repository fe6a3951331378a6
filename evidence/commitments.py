"""What a request is bound to without its ids being shown: a Merkle root over keyed digests of them.

Under the request's random key each id has a *blind*, HMAC-SHA256(key, id), and an *entry*,
HMAC-SHA256(blind, id). The entries, sorted, are the leaves of a Merkle tree (RFC 9162); its root is
the commitment. Whoever is given one id, its blind, its place and the proof can check that the
request named it, and learns nothing of the others. Without the key nobody can tell what the root
stands for. A subject that the request named stands among the ids as `of_subject` writes it. Pure.
"""

import hmac
import secrets
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from evidence import merkle

SIZE = 32
"""Bytes of a key, and of an entry."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """What is kept for a request."""

    key: bytes
    entries: bytes
    """Of `SIZE` each, sorted."""

    root: bytes


@dataclass(frozen=True, slots=True)
class Opening:
    """What shows that one id was named."""

    blind: bytes
    index: int
    size: int
    proof: list[bytes]
    """Hashes from the leaf to the root, as in RFC 9162, 2.1.3."""


def new_key() -> bytes:
    """A random key, for one request alone."""
    return secrets.token_bytes(SIZE)


def of_subject(subject: str, *, is_known: bool) -> str:
    """What is committed to for a subject, in its canonical form: that it was named, and whether it
    had samples. No sample id is the same, since none has a NUL."""
    return f"\0{'subject' if is_known else 'unknown subject'}\0{subject}"


def mac(key: bytes, text: str) -> bytes:
    """HMAC-SHA256 of a text under the key."""
    return hmac.digest(key, text.encode(), "sha256")


def commit(key: bytes, ids: Collection[str]) -> Commitment:
    """Bind a request with this key to these ids and subjects, which differ from each other."""
    entries = sorted(_entry(mac(key, sample_id), sample_id) for sample_id in ids)
    return Commitment(key, b"".join(entries), merkle.root_of(_leaves(entries)))


def open_for(key: bytes, entries: bytes, sample_id: str) -> Opening | None:
    """What shows that this id is among those committed to; None where it is not."""
    blind = mac(key, sample_id)
    listed = [entries[start : start + SIZE] for start in range(0, len(entries), SIZE)]
    entry = _entry(blind, sample_id)
    index, size = bisect_left(listed, entry), len(listed)
    if index == size or listed[index] != entry:
        return None
    nodes = merkle.grow(0, {}, _leaves(listed))
    proof = [merkle.hash_of(span, nodes) for span in merkle.inclusion(index, size)]
    return Opening(blind, index, size, proof)


def _entry(blind: bytes, sample_id: str) -> bytes:
    return hmac.digest(blind, sample_id.encode(), "sha256")


def _leaves(entries: Sequence[bytes]) -> list[bytes]:
    return [merkle.leaf_hash(entry) for entry in entries]
