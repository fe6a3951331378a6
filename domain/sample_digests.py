"""The keyed digests of sample ids: HMAC-SHA256 (RFC 2104) under a random key of their dataset.

A key is kept as the two blocks that HMAC makes of it, one after the other: so the database makes
the same digests with `sha256` alone. Pure; what asks the database is in `domain.tombstones`.
"""

import secrets
from collections.abc import Callable
from hashlib import sha256

BLOCK = 64
"""Bytes that SHA-256 takes at a time."""

INNER, OUTER = 0x36, 0x5C


def new_key() -> bytes:
    """A random key of 32 bytes, as its two blocks."""
    key = secrets.token_bytes(32).ljust(BLOCK, b"\0")
    return bytes(byte ^ pad for pad in (INNER, OUTER) for byte in key)


def digest(key: bytes, sample_id: str) -> bytes:
    """What stands for a sample id, wherever the id itself is not kept."""
    return digester(key)(sample_id.encode())


def digester(key: bytes) -> Callable[[bytes], bytes]:
    """Makes the same digests, for many ids in UTF-8 under one key."""
    first, second = sha256(key[:BLOCK]), sha256(key[BLOCK:])

    def made(sample_id: bytes) -> bytes:
        inner, outer = first.copy(), second.copy()
        inner.update(sample_id)
        outer.update(inner.digest())
        return outer.digest()

    return made
