"""A time-stamp authority (RFC 3161) with a certificate of its own, over HTTP, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.http_servers import Handler, serving

SHA256_OID = bytes.fromhex("0609608648016503040201")
ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
TST_INFO = bytes.fromhex("060b2a864886f70d0109100104")
CONTENT_TYPE = bytes.fromhex("06092a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("06092a864886f70d010904")
SIGNING_CERTIFICATE_V2 = bytes.fromhex("060b2a864886f70d010910022f")
POLICY = bytes.fromhex("06032a0304")

SEQUENCE, SET, OCTETS, INTEGER, TIME = 0x30, 0x31, 0x04, 0x02, 0x18


def der(tag: int, *parts: bytes) -> bytes:
    """One value in DER."""
    content = b"".join(parts)
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def integer(value: int) -> bytes:
    return der(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


@dataclass(slots=True)
class Authority:
    """Where it listens, whom to trust, and how it misbehaves."""

    url: str
    roots: Path
    stamped: bytes | None = None
    """Stamp these bytes instead of what is asked for."""

    status: int = 200


@contextmanager
def authority(folder: Path) -> Iterator[Authority]:
    """An authority on this machine."""
    key, certificate, root = _certificates()
    roots = folder / "roots.pem"
    roots.write_bytes(root.public_bytes(Encoding.PEM))

    class Stamps(Handler):
        def do_POST(self) -> None:  # noqa: N802 (as it is called)
            query = self.rfile.read(int(self.headers["Content-Length"]))
            answer = _answer(query, key, certificate, here.stamped)
            self.send_response(here.status)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with serving(Stamps) as port:
        here = Authority(f"http://127.0.0.1:{port}/", roots)
        yield here


def _certificates() -> tuple[Any, x509.Certificate, x509.Certificate]:
    """The authority's key and certificate, and the root that issued it."""
    root_key, key = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root of the tests")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Time of the tests")])
    now = datetime.now(UTC)

    def certificate(subject: x509.Name, public: Any, *extensions: Any) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(root_key, SHA256())

    root = certificate(
        root_name, root_key.public_key(), x509.BasicConstraints(ca=True, path_length=None)
    )
    own = certificate(
        name, key.public_key(), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
    )
    return key, own, root


def _answer(query: bytes, key: Any, certificate: x509.Certificate, stamped: bytes | None) -> bytes:
    """A granted response to a query of `rfc3161_client`: SHA-512 of the data, with a nonce."""
    imprint_at = query.index(bytes.fromhex("300d06096086480165030402030500"))  # SHA-512
    imprint = query[imprint_at - 2 : imprint_at + 15 + 66]
    nonce_at = imprint_at + 15 + 66
    nonce = query[nonce_at : nonce_at + 2 + query[nonce_at + 1]]
    if stamped is not None:
        imprint = imprint[:-64] + stamped
    moment = datetime.now(UTC).strftime("%Y%m%d%H%M%SZ").encode()
    info = der(SEQUENCE, integer(1), POLICY, imprint, integer(7), der(TIME, moment), nonce)
    encoded = certificate.public_bytes(Encoding.DER)
    issued_by = der(SEQUENCE, certificate.issuer.public_bytes(), integer(certificate.serial_number))
    digest_algorithm = der(SEQUENCE, SHA256_OID)
    signing_certificate = der(
        SEQUENCE, der(SEQUENCE, der(SEQUENCE, der(OCTETS, sha256(encoded).digest())))
    )
    attributes = sorted(
        [
            der(SEQUENCE, CONTENT_TYPE, der(SET, TST_INFO)),
            der(SEQUENCE, MESSAGE_DIGEST, der(SET, der(OCTETS, sha256(info).digest()))),
            der(SEQUENCE, SIGNING_CERTIFICATE_V2, der(SET, signing_certificate)),
        ]
    )
    signature = key.sign(der(SET, *attributes), ECDSA(SHA256()))
    signer = der(
        SEQUENCE, integer(1), issued_by, digest_algorithm, der(0xA0, *attributes),
        der(SEQUENCE, ECDSA_SHA256), der(OCTETS, signature),
    )  # fmt: skip
    signed = der(
        SEQUENCE, integer(3), der(SET, digest_algorithm),
        der(SEQUENCE, TST_INFO, der(0xA0, der(OCTETS, info))),
        der(0xA0, encoded), der(SET, signer),
    )  # fmt: skip
    token = der(SEQUENCE, SIGNED_DATA, der(0xA0, signed))
    return der(SEQUENCE, der(SEQUENCE, integer(0)), token)
