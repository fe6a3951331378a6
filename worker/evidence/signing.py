"""The Ed25519 keys that sign the audit trail: in a file, in the environment or in a KMS.

Only the sweeping process loads them; the API and the jobs never see one.
"""

import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

from domain.settings import KeySource
from evidence.signed_notes import NoteKey


class KeyUnusable(Exception):
    """A signing key cannot be loaded; the message names the setting to check, never the key."""


def load(sources: Sequence[KeySource]) -> list[Signer]:
    """The signers, in the order of the setting.

    Raises:
        KeyUnusable: the key does not exist, or is not Ed25519.
    """
    return [_load(number, source) for number, source in enumerate(sources)]


def note_key(signer: Signer, name: str) -> NoteKey:
    """The same key, for signing notes under a given name."""

    def sign(text: bytes) -> bytes:
        return bytes.fromhex(signer.sign(text).signature)

    return NoteKey(name, public_bytes(signer), sign)


def public_bytes(signer: Signer) -> bytes:
    """The public half: 32 bytes."""
    return bytes.fromhex(signer.public_key.keyval["public"])


def _load(number: int, source: KeySource) -> Signer:
    scheme, _, place = source.uri.partition(":")
    where = f"LETHE_SIGNING_KEYS[{number}] ({scheme}:…) cannot be used: "
    if scheme in ("file", "env"):
        try:
            pem = Path(place).read_bytes() if scheme == "file" else os.environ[place].encode()
            return _from_pem(pem)
        except KeyError:  # what it repeats may be the key itself, as may a path
            raise KeyUnusable(f"{where}KeyError: there is no such variable.") from None
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise KeyUnusable(f"{where}{type(error).__name__}: {why}.") from None
    if not re.fullmatch(r"[a-z0-9+.-]{1,30}", scheme):  # perhaps the key itself
        raise KeyUnusable(
            f"LETHE_SIGNING_KEYS[{number}] must be `file:/path`, `env:NAME` or the URI of a key in "
            "a KMS."
        )
    try:
        if source.public_key is None:
            raise ValueError("a key in a KMS needs `public_key`, the path of its public half")
        return Signer.from_priv_key_uri(source.uri, _public(source.public_key.read_bytes()))
    except Exception as error:  # a KMS may raise anything
        raise KeyUnusable(f"{where}{type(error).__name__}: {error}") from error


def _from_pem(pem: bytes) -> Signer:
    private = load_pem_private_key(pem, password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError("the key is not Ed25519")
    return CryptoSigner(private, _named(private.public_key()))


def _public(pem: bytes) -> SSlibKey:
    public = load_pem_public_key(pem)
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("the key is not Ed25519")
    return _named(public)


def _named(public: Ed25519PublicKey) -> SSlibKey:
    """The key under its `keyid`: the SHA-256 of its 32 bytes."""
    return SSlibKey.from_crypto(public, keyid=sha256(public.public_bytes_raw()).hexdigest())
