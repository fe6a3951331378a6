"""The keys of an installation on one machine: created once, readable only by their owner."""

import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from devstack.startup import keep_secret


def admin_key(state: Path) -> str:
    """The key of the API."""
    path = state / "admin-key"
    if not path.exists() or not path.stat().st_size:
        keep_secret(path, secrets.token_urlsafe(32).encode())
    return path.read_text()


def signing_key(state: Path) -> Path:
    """The path of the key of the audit trail; its public half,
    for auditors, is `operator.pem`."""
    path = state / "signing-key.pem"
    if not path.exists() or not path.stat().st_size:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        keep_secret(path, pem)
    public = load_pem_private_key(path.read_bytes(), None).public_key()
    (state / "operator.pem").write_bytes(
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return path
