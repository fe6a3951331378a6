"""What an operator can make with the signing keys: logs, checkpoints, bundles.

The honest evidence and the forgeries are both made with it.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from evidence import merkle
from evidence.merkle import Node, Span
from evidence.signed_notes import Checkpoint, NoteKey, endorsing, read, signed

PAYLOAD_TYPE = "application/vnd.in-toto+json"

Json = dict[str, Any]
Change = Callable[[Json], Any]
"""Changes a statement or a bundle in place."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing key of the log."""

    origin: str
    private: Ed25519PrivateKey

    @classmethod
    def of(cls, origin: str, secret: str) -> "Signer":
        """The key derived from a secret."""
        seed = sha256(secret.encode()).digest()
        return cls(origin, Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def note_key(self) -> NoteKey:
        return NoteKey(self.origin, self.public, self.private.sign)

    @property
    def text(self) -> str:
        """The public key in the form the verifier takes: name, id and key."""
        encoded = b64encode(b"\x01" + self.public).decode()
        return f"{self.origin}+{self.note_key.hash.hex()}+{encoded}"

    def word_for(self, other: "Signer") -> str:
        """Its endorsement of another key, as in the event that introduces that key."""
        return b64encode(self.private.sign(endorsing(self.origin, other.public))).decode()

    def envelope(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> Json:
        """The DSSE envelope around a payload."""
        public = self.private.public_key()
        key = SSlibKey.from_crypto(public, keyid=sha256(self.public).hexdigest())
        envelope = Envelope(payload, payload_type, {})
        envelope.sign(CryptoSigner(self.private, key))
        return dict(envelope.to_dict())


@dataclass(frozen=True)
class Log:
    """All entries of a log."""

    origin: str
    entries: tuple[Json, ...]

    @property
    def size(self) -> int:
        return len(self.entries)

    def appended(self, *entries: Json) -> "Log":
        return self.of([*self.entries, *entries])

    def of(self, entries: Iterable[Json]) -> "Log":
        """A log of these entries, renumbered."""
        numbered = ({**entry, "position": n} for n, entry in enumerate(entries))
        return replace(self, entries=tuple(numbered))

    def edited(self, position: int, /, **columns: Any) -> "Log":
        changed = [*self.entries]
        changed[position] = {**changed[position], **columns}
        return replace(self, entries=tuple(changed))

    def find(self, event: str, subject: str) -> int:
        """The position of the last such event."""
        found = [(entry["event"], entry["subject_id"]) for entry in self.entries]
        return self.size - 1 - found[::-1].index((event, subject))

    @cached_property
    def _nodes(self) -> dict[Node, bytes]:
        leaves = [merkle.leaf_hash(rfc8785.dumps(entry)) for entry in self.entries]
        return merkle.grow(0, {}, leaves)

    def leaf(self, position: int) -> str:
        return rfc8785.dumps(self.entries[position]).decode()

    def hashes(self, spans: Sequence[Span]) -> list[str]:
        return [b64encode(merkle.hash_of(span, self._nodes)).decode() for span in spans]

    def entry(self, position: int, size: int) -> Json:
        """An entry with its inclusion proof, as in a bundle."""
        return {
            "position": position,
            "leaf": self.leaf(position),
            "proof": self.hashes(merkle.inclusion(position, size)),
        }

    def continued(self, old: int) -> Json:
        """The proof that the log extends its own first entries."""
        return {"from": old, "proof": self.hashes(merkle.consistency(old, self.size))}

    def checkpoint(self, signers: Sequence[Signer], size: int | None = None) -> str:
        size = self.size if size is None else size
        root = b64decode(self.hashes([(0, size)])[0])
        keys = [signer.note_key for signer in signers]
        return signed(Checkpoint(self.origin, size, root), keys)


@dataclass(frozen=True)
class Given:
    """What an auditor holds."""

    bundle: Json | str
    """As JSON; as text if the attack is in the text."""

    keys: tuple[str, ...]
    older: str | None

    @property
    def parsed(self) -> Json:
        """A copy to change."""
        text = self.bundle if isinstance(self.bundle, str) else json.dumps(self.bundle)
        return dict(json.loads(text))

    @property
    def statement(self) -> Json:
        """A copy of the certificate's statement."""
        return dict(json.loads(b64decode(self.parsed["certificate"]["payload"])))

    def changed(self, change: Change) -> "Given":
        bundle = self.parsed
        change(bundle)
        return replace(self, bundle=bundle)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A log, and what the auditors of some of its requests hold."""

    log: Log
    signers: tuple[Signer, ...]
    """The keys that sign now; the first one signs certificates."""

    main: Given
    """A request whose certificate was replaced by another one."""

    other: Given
    """Another request."""

    failed: Given
    """A request whose verdict is `fail`."""

    replaced: Json
    """The envelope of the earlier certificate of `main`."""

    @property
    def signer(self) -> Signer:
        return self.signers[0]

    def resigned(self, given: Given, change: Change) -> Given:
        """Another statement under the operator's signature, which the log does not mention."""
        statement = given.statement
        change(statement)
        envelope = self.signer.envelope(rfc8785.dumps(statement))
        return given.changed(lambda bundle: bundle.update(certificate=envelope))

    def reissued(
        self, given: Given, change: Change, log: Log | None = None, *, shift: int = 0
    ) -> Given:
        """The best an operator can do: another statement, and a log rewritten from the first entry
        on that always contained it, all signed.

        Args:
            log: the entries of the new log, if more than the certificate's entry must change.
            shift: how far the request's entries have moved in it.
        """
        log = log or self.log
        request_id, statement = given.parsed["request_id"], given.statement
        said = statement["predicate"]["log"]
        size = read(said["checkpoint"]).size
        done = self.log.find("request.completed", request_id) + shift
        said["completed"] = log.entry(done, size)
        said["checkpoint"] = log.checkpoint(self.signers, size)
        change(statement)
        payload = rfc8785.dumps(statement)
        issued = self.log.find("certificate.issued", request_id) + shift
        data = {**log.entries[issued]["data"], "sha256": sha256(payload).hexdigest()}
        return self.rebuilt(given, log.edited(issued, data=data), self.signer.envelope(payload))

    def rebuilt(self, given: Given, log: Log, envelope: Json | None = None) -> Given:
        """The bundle of the same request from another log, with matching proofs and signatures."""
        old = given.parsed
        subjects = {json.loads(each["leaf"])["subject_id"] for each in old["events"]}
        envelope = envelope or old["certificate"]
        return replace(
            given,
            bundle=bundle(
                log,
                self.signers,
                request_id=old["request_id"],
                subjects=subjects,
                envelope=envelope,
                since=read(given.older).size if given.older else None,
                keys=old["keys"],
                anchors=old["anchors"],
            ),
        )


def bundle(
    log: Log,
    signers: Sequence[Signer],
    *,
    request_id: str,
    subjects: set[str],
    envelope: Json,
    since: int | None,
    keys: list[Json],
    anchors: list[Json],
) -> Json:
    """A bundle as the service returns it: everything in the log about these subjects."""
    said = json.loads(b64decode(envelope["payload"]))["predicate"]["log"]
    certified = read(said["checkpoint"]).size
    return {
        "bundle": "urn:lethe:bundle:v1",
        "request_id": request_id,
        "checkpoint": log.checkpoint(signers),
        "keys": keys,
        "events": [
            log.entry(position, log.size)
            for position, entry in enumerate(log.entries)
            if entry["subject_id"] in subjects
        ],
        "certificate": envelope,
        "certificate_consistency": log.continued(certified) if certified <= log.size else None,
        "consistency": log.continued(since) if since and since <= log.size else None,
        "anchors": anchors,
    }
