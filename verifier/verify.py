"""Checks what Lethe says about a deletion request, offline, trusting only the keys you give.

    python verify.py BUNDLE.json --key KEY [--older CHECKPOINT.txt] [--weights FILE ...]
    python verify.py log ENTRIES.jsonl --checkpoint CHECKPOINT.txt --key KEY

One file; it needs Python 3.11 and `cryptography`, and nothing from the service. It checks form and
signatures, then Merkle proofs, then that the certificate is the one the log names, then that the
certificate says what the events say. It stops at the first fault.

Exit status:
  0  all checks passed
  2  wrong usage, or a key or file that cannot be read
  3  form: not JSON, an unknown or missing field, a leaf that is not canonical
  4  signature: none by a trusted key, or one that is invalid
  5  inclusion: an event is not in the log that the checkpoint signs
  6  consistency: the log does not continue an older state of itself (rewritten, rolled back)
  7  certificate: it is missing, replaced, of another request, or not the one the log names
  8  content: the certificate contradicts the events, its own figures or the weight files
A genuine certificate of a bad outcome also has status 0: read the printed verdict.
"""

import argparse
import base64
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from functools import reduce
from hashlib import file_digest, sha256
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key


class Code(IntEnum):
    """The exit status, by kind of fault."""

    VALID = 0
    USAGE = 2
    FORM = 3
    SIGNATURE = 4
    INCLUSION = 5
    CONSISTENCY = 6
    CERTIFICATE = 7
    CONTENT = 8


class Refusal(Exception):
    """The evidence is refused; the message names the fault."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def require(holds: bool, code: Code, reason: str) -> None:
    if not holds:
        raise Refusal(code, reason)


@dataclass
class Report:
    """The report that is printed at the end, valid or not."""

    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    outcome: list[str] = field(default_factory=list)


NOT_PROVEN = (
    "that the samples' influence is gone: a certificate says which tests were made and what they "
    "showed, and its scope says what they did not",
    "that the operator ran what is recorded: the log shows that records were not changed later",
    "that the bundle has every event about the request: a missing one, such as a later "
    "certificate, shows only in the whole log (verify.py log --bundle)",
    "that everyone was shown the same log: compare checkpoints with others who hold some",
    "that the times are true: they come from the operator's clock, unless an anchor confirms them",
    "that no signing key was stolen: compare the keys with those that the operator publishes",
)
TOLERANCE = timedelta(hours=1)
"""The most time between a time in the certificate and its event: the length of a transaction."""

PAYLOAD = "application/vnd.in-toto+json"


# Reading JSON, and checking its form


def parse(text: str, where: str) -> Any:
    """JSON without duplicate keys, without NaN and infinities, and in valid Unicode."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise ValueError(f"the field {shown(name)} stands twice in one object")
            found[name] = value
        return found

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(f"{number} is not a finite number")
        return float(number)

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(
            text, object_pairs_hook=unique, parse_float=finite, parse_constant=constant
        )
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair has no UTF-8
    except (ValueError, RecursionError) as error:
        raise Refusal(Code.FORM, f"{where} is not JSON as it should be: {error}") from error
    return value


def canonical(value: Any) -> bytes:
    """The RFC 8785 form of values without fractions. Raises ValueError for others."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
            return {key: ordered(value[key]) for key in keys}
        if isinstance(value, list):
            return [ordered(item) for item in value]
        if isinstance(value, float) or (isinstance(value, int) and abs(value) >= 2**53):
            raise ValueError(f"the number {value} is not whole, or not below 2^53")
        return value

    return json.dumps(ordered(value), ensure_ascii=False, separators=(",", ":")).encode()


def unbase64(text: str) -> bytes:
    """Decode base64 in its only canonical form. Raises ValueError."""
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not base64 in its one form")
    return raw


Form = Callable[[Any, str], None]
"""Refuses a value, naming its place, unless it has this form."""


def misformed(where: str, what: str) -> NoReturn:
    raise Refusal(Code.FORM, f"{where} {what}")


def record(optional: Mapping[str, Form] = MappingProxyType({}), /, **fields: Form) -> Form:
    known = {**optional, **fields}

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            misformed(where, "is not an object")
        for name in sorted(fields.keys() - value.keys()):
            misformed(where, f"lacks the field {name}")
        for name in sorted(value.keys() - known.keys()):
            misformed(where, f"has the unknown field {shown(name)}")
        for name, form in known.items():
            if name in value:
                form(value[name], f"{where}.{name}")

    return check


def array(item: Form, *, least: int = 0, most: int = 2**20) -> Form:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            misformed(where, f"is not a list of at least {least} and at most {most}")
        for number, one in enumerate(value):
            item(one, f"{where}[{number}]")

    return check


def mapping(item: Form) -> Form:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            misformed(where, "is not an object")
        for name, one in value.items():
            item(one, f"{where}.{shown(name)}")

    return check


def maybe(form: Form) -> Form:
    def check(value: Any, where: str) -> None:
        if value is not None:
            form(value, where)

    return check


def text(pattern: str = r".+", what: str = "text") -> Form:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
            misformed(where, f"is not {what}")

    return check


def one_of(*allowed: str) -> Form:
    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in allowed:
            misformed(where, f"is none of {', '.join(allowed)}")

    return check


def base64_of(length: int | None = None) -> Form:
    def check(value: Any, where: str) -> None:
        try:
            raw = unbase64(value)
        except (ValueError, TypeError):
            misformed(where, "is not base64")
        if length is not None and len(raw) != length:
            misformed(where, f"is not base64 of {length} bytes")

    return check


def whole(low: int = 0, high: int = 2**63 - 1) -> Form:
    def check(value: Any, where: str) -> None:
        if type(value) is not int or not low <= value <= high:
            misformed(where, f"is not a whole number from {low} to {high}")

    return check


def number(value: Any, where: str) -> None:
    if type(value) not in (int, float):
        misformed(where, "is not a number")


def flag(value: Any, where: str) -> None:
    if type(value) is not bool:
        misformed(where, "is neither true nor false")


def anything(value: Any, where: str) -> None:
    """Any JSON."""


def instant(value: Any, where: str) -> None:
    pattern = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
    try:
        if re.fullmatch(pattern, value):
            datetime.fromisoformat(value)
            return
    except (ValueError, TypeError):
        pass
    misformed(where, "is not a time in RFC 3339, in UTC, with microseconds")


# fmt: off
HEX = text(r"[0-9a-f]{64}", "the hex of 32 bytes")
UUID = text(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "a UUID")
HASHES = array(base64_of(32), most=64)
SEED = whole(low=-(2**63))
CONTINUED = record(**{"from": whole()}, proof=HASHES)

BUNDLE = record(
    bundle=one_of("urn:lethe:bundle:v1"), request_id=UUID, checkpoint=text(),
    keys=array(record(name=text(), public_key=base64_of(32)), least=1),
    events=array(record(position=whole(), leaf=text(), proof=HASHES), least=1),
    certificate=maybe(record(
        payload=base64_of(), payloadType=text(),
        signatures=array(record(keyid=HEX, sig=base64_of(64))),
    )),
    certificate_consistency=maybe(CONTINUED), consistency=maybe(CONTINUED),
    anchors=array(record(
        kind=one_of("directory", "webhook", "rfc3161"), size=whole(), at=text(),
        receipt=maybe(base64_of()),
    )),
)
LEAF = record(
    actor=text(), at=instant, data=mapping(anything),
    event=text(r"[a-z_]+\.[a-z_]+", "the name of an event"),
    id=whole(), position=whole(), subject_id=UUID,
)
KEY_DATA = record(
    name=text(), public_key=base64_of(32), replaces=maybe(base64_of(32)),
    endorsement=maybe(base64_of(64)), acknowledgement=maybe(base64_of(64)),
)

VERSION = record(version=whole(1), weights_sha256=HEX)
METHOD = record(
    name=text(), mode=one_of("approximate", "exact"), mode_reason=maybe(text()),
    config=mapping(anything), seed=maybe(SEED), code_version=maybe(text()),
    libraries=mapping(text()), device=maybe(text()),
)
TEST = record(
    moment=one_of("before", "after", "guard"), name=text(), value=number, low=maybe(number),
    high=maybe(number), expected=maybe(number), threshold=maybe(number), p_value=maybe(number),
    forget_samples=whole(), holdout_samples=whole(), passed=flag,
)
ACCURACY = record(
    measured_on=one_of("test", "holdout"), samples=whole(), before=maybe(number),
    after=maybe(number),
    classes=array(record(
        label=whole(), samples=whole(), before=maybe(number), after=maybe(number),
    )),
    lost_classes=array(whole()),
)
ACCEPTED_ACCURACY = record(
    accepted=flag,
    objections=array(one_of("no_better_than_chance", "worse_than_holdout")),
    train=maybe(number), train_samples=whole(),
    holdout=maybe(number), holdout_samples=whole(),
)
GUESSES = record(
    bound=number, observed=maybe(number), pairs=whole(), forgotten=whole(), grouped=flag,
    confidence=number,
)
ADVANTAGE = record(before=GUESSES, after=GUESSES)
FINE_TUNED = record(
    steps=whole(1), samples=whole(), membership_auc_before=maybe(number),
    membership_auc_after=maybe(number),
)
POOLED_AUDIT = record(
    version=whole(1), verdict=one_of("pass", "fail", "no_power"), returned=flag, requests=whole(),
    samples=whole(), remeasured=whole(), units=whole(), pairs=whole(), observed=maybe(number),
    low=number, high=number, days=whole(),
)
DECLARED = record(
    version=whole(1), trained_on=whole(), trained_on_sha256=HEX, left_out=whole(),
    accepted=array(one_of("no_better_than_chance", "worse_than_holdout", "memory")),
)
RESULT = record(
    # Certificates of version 0.2.0 and earlier lack all of these.
    {
        "declared": DECLARED,
        "accuracy": ACCURACY, "accepted_accuracy": ACCEPTED_ACCURACY, "advantage": ADVANTAGE,
        "fine_tuned": FINE_TUNED, "pooled_audit": POOLED_AUDIT,
    },
    model=text(), model_id=UUID, status=one_of("completed"),
    kind=one_of("approximate", "exact", "declared", "nothing_to_forget"),
    verdict=maybe(one_of("pass", "fail", "no_power")),
    before=VERSION, after=maybe(VERSION), method=maybe(METHOD), tests=array(TEST),
    alpha=maybe(number), permutations=maybe(whole()), audit_seed=maybe(SEED), oracle_used=flag,
    already_forgotten=whole(), not_trained_on=whole(),
    approval=maybe(record(
        {"accepted_job": UUID},  # where another version was accepted, in whose place this one is
        decision=one_of("accept", "retry", "refuse"), decided_by=text(), decided_at=instant,
        ground_hmac=maybe(HEX),
    )),
    purge=record(superseded_weights=array(record(
        version=whole(1), weights_sha256=HEX, due_at=maybe(instant), purged_at=maybe(instant),
    ))),
)
SUBJECTS = record(
    named=whole(1), unknown=whole(), samples=whole(), dataset=text(), indexed_at=maybe(instant),
    looked_up_at=instant,
)
ROWS = record(
    status=one_of("waiting", "failed", "held", "gone"), left=maybe(whole()), at=maybe(instant),
    meaning=text(),
)
STATEMENT = record(
    _type=one_of("https://in-toto.io/Statement/v1"),
    predicateType=one_of("urn:lethe:unlearning:v1"),
    subject=array(record(name=text(), digest=record(sha256=HEX)), least=1),
    predicate=record(
        # Certificates about a dataset that does not erase lack it, and those of earlier releases.
        {"rows": ROWS},
        request=record(
            # Certificates of requests that name no subject lack it, and those of earlier releases.
            {"subjects": SUBJECTS},
            id=UUID, received_at=instant, due_at=instant, completed_at=instant,
            objective=one_of("untrain_samples", "remove_class"), exact_asked=flag,
            samples=whole(), duplicates=whole(), commitment=maybe(HEX),
            subject_ref_hmac=maybe(HEX), reason_hmac=maybe(HEX),
        ),
        results=array(RESULT, least=1),
        scope=record(statement=text(), not_proven=array(text(), least=1)),
        log=record(
            origin=text(), positions=array(whole(), least=1),
            completed=record(position=whole(), leaf=text(), proof=HASHES), checkpoint=text(),
        ),
        issued=record(number=whole(1), at=instant),
    ),
)
# fmt: on


# Merkle trees: RFC 9162, section 2.1


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether a leaf is at an index of the tree with this size and root (2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if place % 2 or place == last:
            found = parent(sibling, found)
            while place % 2 == 0 and place:
                place, last = place // 2, last // 2
        else:
            found = parent(found, sibling)
        place, last = place // 2, last // 2
    return last == 0 and found == root


def continues(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of `size` leaves extends the one of `old` leaves (2.1.4.2)."""
    if old == size:
        return not proof and old_root == root
    if old == 0:
        return not proof and old_root == sha256().digest()
    if not 0 < old < size:
        return False
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    place, last = old - 1, size - 1
    while place % 2:
        place, last = place // 2, last // 2
    old_found = found = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if place % 2 or place == last:
            old_found, found = parent(sibling, old_found), parent(sibling, found)
            while place % 2 == 0 and place:
                place, last = place // 2, last // 2
        else:
            found = parent(found, sibling)
        place, last = place // 2, last // 2
    return last == 0 and old_found == old_root and found == root


class Tree:
    """A tree that grows leaf by leaf, in memory logarithmic in its size."""

    def __init__(self) -> None:
        self.size = 0
        self.complete: list[tuple[int, bytes]] = []
        """The complete subtrees that cover the tree, largest first: size and hash."""

    def append(self, leaf: bytes) -> None:
        size, node = 1, leaf
        while self.complete and self.complete[-1][0] == size:
            node, size = parent(self.complete.pop()[1], node), size * 2
        self.complete.append((size, node))
        self.size += 1

    def root(self) -> bytes:
        hashes = [node for _, node in self.complete] or [sha256().digest()]
        return reduce(lambda right, left: parent(left, right), reversed(hashes))


# Keys and signed checkpoints: C2SP signed-note and tlog-checkpoint


@dataclass(frozen=True)
class Key:
    """An Ed25519 key, and the name of the log it signs."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """The key id in a signed note."""
        return sha256(self.name.encode() + b"\n\x01" + self.public).digest()[:4]

    @property
    def keyid(self) -> str:
        """The key id in a DSSE envelope."""
        return sha256(self.public).hexdigest()

    def signed(self, message: bytes, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def __str__(self) -> str:
        return f"{shown(self.name)}+{self.id.hex()} (keyid {self.keyid[:16]})"


@dataclass(frozen=True)
class Checkpoint:
    """The size and root of the log at one moment, and their signatures."""

    where: str
    origin: str
    size: int
    root: bytes
    text: bytes
    signatures: tuple[tuple[str, bytes], ...]
    """For each, the name of a key, and the four bytes of its id with the signature."""

    def signer(self, trusted: Iterable[Key]) -> Key | None:
        """The trusted key that signed it; None if none did. Other signatures are ignored.

        Raises:
            Refusal: a signature that claims to be by a trusted key is invalid.
        """
        found = None
        for key in trusted:
            for name, signature in self.signatures:
                if (name, signature[:4]) != (key.name, key.id) or name != self.origin:
                    continue
                if not key.signed(self.text, signature[4:]):
                    reason = f"{self.where}: the signature of {key} does not hold"
                    raise Refusal(Code.SIGNATURE, reason)
                found = key
        return found


def read_checkpoint(note: str, where: str) -> Checkpoint:
    body, separator, tail = note.partition("\n\n")
    head = re.fullmatch(r"([^\s+]+)\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)", body)
    lines = tail.split("\n")
    if not (separator and head and lines[-1] == "") or len(lines) > 17:
        misformed(where, "is not a checkpoint: origin, size, root, an empty line, signatures")
    signatures = []
    for line in lines[:-1]:
        match = re.fullmatch(r"— ([^\s+]+) ([A-Za-z0-9+/]+=*)", line)
        try:
            raw = unbase64(match[2]) if match else b""
        except ValueError:
            raw = b""
        if not match or len(raw) < 5:
            misformed(where, "has a line that is no signature")
        signatures.append((match[1], raw))
    try:
        root = unbase64(head[3])
    except ValueError:
        misformed(where, "has a root that is not base64 of 32 bytes")
    signed_text = (body + "\n").encode()
    return Checkpoint(where, head[1], int(head[2]), root, signed_text, tuple(signatures))


def read_key(given: str) -> Key:
    """A public key in PEM (its name is empty: it may sign any log), or `name+id+key` as in a signed
    note; given as a file or as text.

    Raises:
        Refusal: the key is neither.
    """
    try:
        path = Path(given)
        content = path.read_text() if path.is_file() else given
        if "BEGIN" in content:
            public = load_pem_public_key(content.encode())
            if not isinstance(public, Ed25519PublicKey):
                raise ValueError("it is not an Ed25519 key")
            return Key("", public.public_bytes_raw())
        name, key_id, encoded = content.strip().split("+", 2)
        raw = unbase64(encoded)
        key = Key(name, raw[1:])
        if raw[:1] != b"\x01" or len(raw) != 33 or key.id.hex() != key_id:
            raise ValueError("it is not an Ed25519 key, or its id is wrong")
    except (ValueError, OSError) as error:
        reason = f"--key {shown(given)}: no public key in PEM, and not name+id+key: {error}"
        raise Refusal(Code.USAGE, reason) from error
    return key


def named(keys: Iterable[Key], origin: str) -> list[Key]:
    """Give keys that came without a name the name of this log."""
    return [key if key.name else Key(origin, key.public) for key in keys]


@dataclass(frozen=True)
class Introduced:
    """A key that an event of the log introduces, with another key's endorsement."""

    position: int
    key: Key
    word: bytes

    def by(self, trusted: Iterable[Key]) -> bool:
        """Whether one of these keys vouches for it with a signature."""
        name, public = self.key.name, base64.b64encode(self.key.public).decode()
        message = f"{name}\nsigning key\n{public}\n".encode()
        return any(key.name == name and key.signed(message, self.word) for key in trusted)


def extended(
    given: Sequence[Key], checkpoints: Sequence[Checkpoint], introduced: Sequence[Introduced]
) -> list[Key]:
    """The given keys, and those that trusted keys vouch for and whose introduction is proven.

    Args:
        checkpoints: of one log; each is already proven to continue the shorter ones.
        introduced: the keys in events that are proven to be in the longest one.
    """
    trusted = list(given)
    while True:
        covered = max((each.size for each in checkpoints if each.signer(trusted)), default=0)
        more = [
            each.key
            for each in introduced
            if each.position < covered and each.key not in trusted and each.by(trusted)
        ]
        if not more:
            return trusted
        trusted.extend(dict.fromkeys(more))


def require_signed(checkpoints: Sequence[Checkpoint], trusted: Sequence[Key]) -> None:
    for each in checkpoints:
        if each.signer(trusted) is None:
            names = ", ".join(f"{shown(n)}+{raw[:4].hex()}" for n, raw in each.signatures)
            reason = f"{each.where} is not signed by a trusted key (by: {names or 'nobody'})"
            raise Refusal(Code.SIGNATURE, reason)


# Events


@dataclass(frozen=True)
class Event:
    """One entry of the log."""

    position: int
    leaf: str
    name: str
    subject: str
    at: datetime
    data: dict[str, Any]


def read_event(leaf: str, where: str) -> Event:
    """An entry from its canonical JSON; any other text with the same meaning is refused."""
    fields = parse(leaf, where)
    LEAF(fields, where)
    try:
        is_canonical = canonical(fields) == leaf.encode()
    except ValueError as error:
        misformed(where, f"has no canonical form: {error}")
    if not is_canonical:
        misformed(where, "is not in its canonical form (RFC 8785)")
    if fields["event"] == "signing_key.introduced":
        KEY_DATA(fields["data"], f"{where}.data")
    return Event(
        fields["position"], leaf, fields["event"], fields["subject_id"],
        datetime.fromisoformat(fields["at"]), fields["data"],
    )  # fmt: skip


def introductions(events: Iterable[Event]) -> list[Introduced]:
    """New keys as endorsed by the key each replaced, and those as endorsed by the new keys."""
    return [
        Introduced(
            event.position,
            Key(event.data["name"], unbase64(event.data[public])),
            unbase64(event.data[word]),
        )
        for event in events
        if event.name == "signing_key.introduced"
        for public, word in (("public_key", "endorsement"), ("replaces", "acknowledgement"))
        if event.data[public] and event.data[word]
    ]


def read_events(bundle: dict[str, Any]) -> list[Event]:
    events = []
    for number, each in enumerate(bundle["events"]):
        event = read_event(each["leaf"], f"events[{number}].leaf")
        require_position(event, each["position"], f"events[{number}]")
        events.append(event)
    for before, after in pairwise(events):
        reason = f"events are not in ascending order: {after.position} follows {before.position}"
        require(before.position < after.position, Code.FORM, reason)
    return events


def require_position(event: Event, claimed: int, where: str) -> None:
    reason = f"{where}: the entry is said to stand at {claimed}, and says {event.position}"
    require(event.position == claimed, Code.INCLUSION, reason)


# The bundle


@dataclass(frozen=True)
class Certificate:
    """A certificate whose form was checked."""

    payload: bytes
    statement: dict[str, Any]
    checkpoint: Checkpoint
    completed: Event

    @property
    def predicate(self) -> dict[str, Any]:
        found: dict[str, Any] = self.statement["predicate"]
        return found


def check_bundle(
    content: str, given: Sequence[Key], older_note: str | None, weights: Sequence[Path], out: Report
) -> None:
    """Check everything in a bundle.

    Raises:
        Refusal: at the first fault.
    """
    bundle = parse(content, "the bundle")
    BUNDLE(bundle, "bundle")
    events = read_events(bundle)
    checkpoint = read_checkpoint(bundle["checkpoint"], "the bundle's checkpoint")
    keys = named(given, checkpoint.origin)
    older = None if older_note is None else read_checkpoint(older_note, "the older checkpoint")
    if bundle["certificate"] is None:
        raise Refusal(Code.CERTIFICATE, "the bundle holds no certificate")
    require_known_signatures_hold(bundle["certificate"], [checkpoint, older], keys)
    certificate = read_certificate(bundle["certificate"])
    checkpoints = [each for each in (checkpoint, certificate.checkpoint, older) if each]
    if not any([each.signer(keys) for each in checkpoints]):
        require_signed(checkpoints, keys)
    out.checked.append("bundle and certificate have the form they must have, field by field")

    check_inclusion(bundle, events, checkpoint)
    entry = certificate.predicate["log"]["completed"]
    require_included(certificate.completed, entry, certificate.checkpoint, "log.completed")
    out.checked.append(f"{len(events)} events are in the log of {checkpoint.size} entries")
    check_consistency(bundle, checkpoint, certificate.checkpoint, older, out)
    check_signatures(bundle, events, certificate, checkpoints, keys, out)

    check_identity(bundle["request_id"], events, certificate, checkpoint)
    out.checked.append(
        f"the certificate is number {certificate.predicate['issued']['number']} of request "
        f"{bundle['request_id']}, and the log names no later one in this bundle"
    )
    check_figures(certificate.predicate)
    check_wording(certificate.predicate)
    out.checked.append("its verdicts follow from the tests it lists, and its words from them")
    check_agreement(events, certificate, out)
    out.checked.append("it says what the events say: request, versions, verdicts, decisions")
    check_weights(weights, certificate.predicate["results"], out)
    check_anchors(bundle["anchors"], checkpoint, out)
    out.outcome = outcome(certificate.predicate)


def require_known_signatures_hold(
    envelope: dict[str, Any], notes: Sequence[Checkpoint | None], keys: Sequence[Key]
) -> None:
    for note in notes:
        if note:
            note.signer(keys)
    envelope_signer(envelope, keys)


def envelope_signer(envelope: dict[str, Any], trusted: Sequence[Key]) -> Key | None:
    """The trusted key that signed a DSSE envelope; None if none did."""
    kind, payload = envelope["payloadType"].encode(), unbase64(envelope["payload"])
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    found = None
    for key in trusted:
        for each in envelope["signatures"]:
            if each["keyid"] != key.keyid:
                continue
            if not key.signed(message, unbase64(each["sig"])):
                reason = f"the certificate's signature by {key} does not hold"
                raise Refusal(Code.SIGNATURE, reason)
            found = key
    return found


def read_certificate(envelope: dict[str, Any]) -> Certificate:
    if envelope["payloadType"] != PAYLOAD:
        raise Refusal(Code.FORM, f"the certificate's payloadType is not {PAYLOAD}")
    payload = unbase64(envelope["payload"])
    try:
        statement = parse(payload.decode(), "the certificate")
    except UnicodeDecodeError as error:
        raise Refusal(Code.FORM, "the certificate is not in UTF-8") from error
    STATEMENT(statement, "certificate")
    log = statement["predicate"]["log"]
    return Certificate(
        payload,
        statement,
        read_checkpoint(log["checkpoint"], "the certificate's checkpoint"),
        read_event(log["completed"]["leaf"], "certificate.predicate.log.completed.leaf"),
    )


def check_inclusion(bundle: dict[str, Any], events: list[Event], checkpoint: Checkpoint) -> None:
    for number, (event, entry) in enumerate(zip(events, bundle["events"], strict=True)):
        require_included(event, entry, checkpoint, f"events[{number}]")


def require_included(
    event: Event, entry: dict[str, Any], checkpoint: Checkpoint, where: str
) -> None:
    require_position(event, entry["position"], where)
    leaf, proof = leaf_hash(event.leaf.encode()), [unbase64(each) for each in entry["proof"]]
    stands = includes(leaf, event.position, checkpoint.size, proof, checkpoint.root)
    reason = f"{where}: {event.name} is not at position {event.position} in {checkpoint.where}"
    require(stands, Code.INCLUSION, reason)


def check_consistency(
    bundle: dict[str, Any],
    checkpoint: Checkpoint,
    certified: Checkpoint,
    older: Checkpoint | None,
    out: Report,
) -> None:
    require_continued(certified, checkpoint, bundle["certificate_consistency"])
    out.checked.append(f"the log continues the certificate's checkpoint ({certified.size} entries)")
    if older:
        require_continued(older, checkpoint, bundle["consistency"])
        out.checked.append(f"the log continues the older checkpoint ({older.size} entries)")
        out.unchecked.append(
            f"whether entries from {older.size} on once were others: only who kept a newer "
            "checkpoint can tell"
        )
    else:
        out.unchecked.append(
            "that the log was not rewritten since an earlier day: no older checkpoint was given; "
            "keep the one printed here, and give it next time (--older)"
        )


def require_continued(old: Checkpoint, new: Checkpoint, claim: dict[str, Any] | None) -> None:
    def unless(holds: bool, reason: str) -> None:
        require(holds, Code.CONSISTENCY, reason)

    other_log = f"{old.where} is of the log {shown(old.origin)}, not of {shown(new.origin)}"
    unless(old.origin == new.origin, other_log)
    shorter = f"{old.where} has {old.size} entries, {new.where} {new.size}: rolled back"
    unless(old.size <= new.size, shorter)
    lacking = f"the bundle has no proof that the log continues {old.where}: ask for it"
    unless(claim is not None or old.size == new.size, lacking)
    start, proof = (claim["from"], claim["proof"]) if claim else (old.size, [])
    unless(start == old.size, f"the proof starts from {start} entries; {old.where} has {old.size}")
    hashes = [unbase64(each) for each in proof]
    unless(
        continues(old.size, old.root, new.size, new.root, hashes),
        f"the log does not continue {old.where} ({old.size} entries): it was rewritten",
    )


def check_signatures(
    bundle: dict[str, Any],
    events: list[Event],
    certificate: Certificate,
    checkpoints: Sequence[Checkpoint],
    given: Sequence[Key],
    out: Report,
) -> None:
    trusted = extended(given, checkpoints, introductions(events))
    require_signed(checkpoints, trusted)
    signer = envelope_signer(bundle["certificate"], trusted)
    if signer is None:
        names = ", ".join(each["keyid"][:16] for each in bundle["certificate"]["signatures"])
        reason = f"the certificate is not signed by a trusted key (by: {names or 'nobody'})"
        raise Refusal(Code.SIGNATURE, reason)
    for number, each in enumerate(bundle["keys"]):
        is_trusted = Key(each["name"], unbase64(each["public_key"])) in trusted
        reason = f"keys[{number}] was neither given nor introduced in the log"
        require(is_trusted, Code.SIGNATURE, reason)
    for checkpoint in checkpoints:
        out.checked.append(f"{checkpoint.where} is signed by {checkpoint.signer(trusted)}")
    out.checked.append(f"the certificate is signed by {signer}")
    for key in trusted:
        if key not in given:
            out.checked.append(f"{key} was not given: trusted at the word of one that was")


def check_identity(
    request_id: str, events: list[Event], certificate: Certificate, checkpoint: Checkpoint
) -> None:
    """Check that the certificate is the newest one of this request and rests on these events."""

    def unless(holds: bool, reason: str) -> None:
        require(holds, Code.CERTIFICATE, reason)

    said, by_position = certificate.predicate, {event.position: event for event in events}
    of_request = [event for event in events if event.subject == request_id]
    log = said["log"]
    unless(
        said["request"]["id"] == request_id,
        f"the certificate is of request {said['request']['id']}, the bundle of {request_id}",
    )
    unless(
        log["origin"] == certificate.checkpoint.origin == checkpoint.origin,
        f"the certificate names the log {shown(log['origin'])}, its checkpoint another",
    )
    done = certificate.completed
    unless(
        done.name == "request.completed" and done.subject == request_id,
        f"the certificate rests on {done.name} of {done.subject}, not on this request's completion",
    )
    unless(
        by_position.get(done.position) == done,
        f"the bundle lacks the completion at position {done.position}, or has another entry there",
    )
    positions = log["positions"]
    unless(positions == sorted(set(positions)), "log.positions are not in ascending order")
    missing = [position for position in positions if position not in by_position]
    unless(not missing, f"the bundle lacks events that the certificate names: {missing}")
    unnamed = [e.position for e in of_request if e.position <= positions[-1]]
    unnamed = [position for position in unnamed if position not in positions]
    unless(not unnamed, f"the certificate leaves out events about its request: {unnamed}")
    unless(done.position in positions, "log.positions leave out the completion of the request")

    issued = [event for event in of_request if event.name == "certificate.issued"]
    digest = sha256(certificate.payload).hexdigest()
    mine = [event for event in issued if event.data.get("sha256") == digest]
    unless(len(mine) == 1, f"no certificate.issued in the log has this certificate's hash {digest}")
    unless(
        issued[-1] == mine[0],
        f"a later certificate was issued at position {issued[-1].position}: this one is replaced",
    )
    unless(
        [event.data.get("number") for event in issued] == list(range(1, len(issued) + 1)),
        "the certificates of this request in the bundle are not numbered 1, 2, 3 ...",
    )
    unless(
        said["issued"]["number"] == len(issued),
        f"it calls itself number {said['issued']['number']}; the log says {len(issued)}",
    )
    unless(
        certificate.checkpoint.size <= mine[0].position and positions[-1] < mine[0].position,
        "it names entries of the log that are younger than itself",
    )


# What the certificate says


def must(holds: bool, where: str, reason: str) -> None:
    require(holds, Code.CONTENT, f"{where}: {reason}")


def agree(where: str, said: Any, event: Event, field: str) -> None:
    """Check that the certificate says what a field of an event says."""
    found = event.data.get(field)
    must(
        said == found and type(said) is type(found),
        where,
        f"the certificate says {shown(str(said))}, "
        f"{event.name} at {event.position} says {shown(str(found))}",
    )


def check_figures(predicate: dict[str, Any]) -> None:
    """Check that each verdict follows from its tests, by the service's rules."""
    for number, result in enumerate(predicate["results"]):
        where = f"results[{number}]"
        tests, verdict = result["tests"], result["verdict"]
        for place, test in enumerate(tests):
            passed = follows(test, result["alpha"])
            must(
                passed is None or passed == test["passed"],
                f"{where}.tests[{place}].passed",
                "does not follow from its figures",
            )
        all_passed = all(test["passed"] for test in tests if test["moment"] != "before")
        compared = any(test["moment"] == "after" for test in tests)
        had_power = compared and any(
            test["moment"] == "before" and not test["passed"] for test in tests
        )
        follow = {
            None: not tests,
            "fail": not (tests and all_passed),
            "no_power": all_passed and not had_power,
            "pass": (all_passed and had_power) or (result["kind"] == "exact" and kept(tests)),
        }
        must(follow[verdict], f"{where}.verdict", f"{verdict} does not follow from the tests")
        if "accuracy" in result:
            check_accuracy(result["accuracy"], f"{where}.accuracy")
        for moment, told in result.get("advantage", {}).items():
            check_guesses(told, f"{where}.advantage.{moment}")


def kept(tests: list[dict[str, Any]]) -> bool:
    """Whether guards were looked at, and all passed: they alone decide about a version that was
    trained without the samples. Earlier releases let the other tests decide about these, too."""
    guards = [test["passed"] for test in tests if test["moment"] == "guard"]
    return bool(guards) and all(guards)


def check_accuracy(accuracy: dict[str, Any], where: str) -> None:
    """Check that the accuracy over all classes follows from that of each of them."""
    classes = accuracy["classes"]
    labels = [each["label"] for each in classes]
    must(labels == list(range(len(classes))), f"{where}.classes", "are not all the classes")
    total = sum(each["samples"] for each in classes)
    must(accuracy["samples"] == total, f"{where}.samples", "is not the sum of those of the classes")
    unknown = "names a class that there is not"
    must(set(accuracy["lost_classes"]) <= set(labels), f"{where}.lost_classes", unknown)
    for moment in ("before", "after"):
        shares = [(each["samples"], each[moment]) for each in classes]
        missing = "is measured where, and only where, there are samples"
        fits = all((samples > 0) == (share is not None) for samples, share in shares)
        must(fits and (total > 0) == (accuracy[moment] is not None), f"{where}.{moment}", missing)
        if total:
            mean = sum(samples * share for samples, share in shares if samples) / total
            differs = "does not follow from the accuracies of the classes"
            must(abs(mean - accuracy[moment]) < 1e-6, f"{where}.{moment}", differs)


def check_guesses(told: dict[str, Any], where: str) -> None:
    """Check that a bound excludes nothing that was observed, and nothing without pairs."""
    bound, observed = told["bound"], told["observed"]
    must((told["pairs"] > 0) == (observed is not None), f"{where}.observed", "needs pairs")
    least = 1.0 if observed is None else max(observed, 1 - observed)
    must(least - 1e-9 <= bound <= 1, f"{where}.bound", "is below what was observed")


def follows(test: dict[str, Any], alpha: float | None) -> bool | None:
    """Whether a test passed: a guard by its bound, others by their p-value."""
    if test["moment"] == "guard":
        if test["low"] is None or test["threshold"] is None:
            return None
        return bool(test["low"] <= test["threshold"])
    if test["p_value"] is None or alpha is None:
        return None
    return bool(test["p_value"] > alpha)


CLASSES_NAMED = 10
"""The words name so many of the classes that lost all of their training samples."""

NEVER_SAID = re.compile(r"\b(provabl[ey]|guarantee[sd]?|compliant)\b", re.IGNORECASE)
SUCCESS = re.compile(
    r"success|succeed|\bpass(ed|es)?\b|reduced to within|\bno (trace|influence)\b"
    r"|\b(proven|proved|verified|certified)\b"
    r"|\b(has|have|was|were|is|are|been) (\w+ )?(forgotten|erased|unlearned|removed)\b",
    re.IGNORECASE,
)


UNMEASURED = "was never trained on the dataset; this was not measured"
"""What is said of a backbone on which nothing but a head was fitted."""


def check_wording(predicate: dict[str, Any]) -> None:
    """Check that the plain words claim no success unless the verdict is a pass.

    A line that begins with `Model NAME:` is about that model; any other is about all models.
    """
    statement, results = predicate["scope"]["statement"], predicate["results"]
    said = NEVER_SAID.search(statement)
    must(not said, "scope.statement", f"no certificate can say {said and said[0]!r}")
    lines = statement.split("\n")
    for result in results:
        about = [line for line in lines if line.startswith(f"Model {result['model']}:")]
        silent = f"it says nothing about model {shown(result['model'])}"
        must(bool(about), "scope.statement", silent)
        for label in result.get("accuracy", {}).get("lost_classes", [])[:CLASSES_NAMED]:
            lost = f"Class {label} lost all of its training samples"
            concealed = f"it does not say that class {label} lost all of its training samples"
            must(any(lost in line for line in about), "scope.statement", concealed)
        if "backbone" in (result.get("method") or {}).get("config", {}):
            concealed = "it does not say that the backbone's training was declared, not measured"
            must(any(UNMEASURED in line for line in about), "scope.statement", concealed)
    for result in results:
        told_apart = any(t["moment"] == "after" and not t["passed"] for t in result["tests"])
        about = [line for line in lines if line.startswith(f"Model {result['model']}:")]
        more = "says `reduced to within` where tests told the samples apart"
        said_more = told_apart and any("reduced to within" in line for line in about)
        must(not said_more, "scope.statement", more)
    if all(result["verdict"] == "pass" for result in results):
        return
    exempt = tuple(
        f"Model {result['model']}:"
        for result in results
        if result["verdict"] == "pass" or result["kind"] == "nothing_to_forget"
    )
    dataset = predicate["request"].get("subjects", {}).get("dataset")
    for line in lines:
        claim = SUCCESS.search(line.replace(f"dataset {dataset}", "dataset"))
        must(
            not claim or line.startswith(exempt),
            "scope.statement",
            f"says {claim and claim[0]!r} where the verdict is not pass",
        )


def check_agreement(events: list[Event], certificate: Certificate, out: Report) -> None:
    """Check that the certificate says what the events say."""
    said, request = certificate.predicate, certificate.predicate["request"]
    mine = [event for event in events if event.subject == request["id"]]
    received = only(mine, "request.received")
    for name in (
        "received_at", "due_at", "objective", "samples", "duplicates", "commitment",
        "subject_ref_hmac", "reason_hmac",
    ):  # fmt: skip
        agree(f"request.{name}", request[name], received, name)
    agree("request.exact_asked", request["exact_asked"], received, "exact")
    models = sorted(result["model_id"] for result in said["results"])
    agree("results", models, received, "models")
    require_near("request.completed_at", request["completed_at"], certificate.completed)
    issued = [event for event in mine if event.name == "certificate.issued"][-1]
    require_near("issued.at", said["issued"]["at"], issued)
    asked, due = moment(request["received_at"]), moment(request["due_at"])
    late = f"is later than its entry at {received.position}"
    must(asked <= received.at + TOLERANCE, "request.received_at", late)
    must(asked < due, "request.due_at", "is not later than its receipt")
    for number, result in enumerate(said["results"]):
        where = f"results[{number}]"
        for name in ("already_forgotten", "not_trained_on"):  # a sample may be both
            more = "more samples are left out than were named"
            must(result[name] <= request["samples"], f"{where}.{name}", more)
        if result["after"]:
            check_version(result, where, request, events)
        else:
            check_no_version(result, where)
        check_purge(result, where, events, out)
    check_rows(said, mine, out)
    check_subjects(said, received)
    check_subject(certificate)
    out.unchecked.append(
        "what stands in the certificate alone, such as configuration, seeds and the figures of "
        "tests: the log vouches that it was issued so, and no event repeats it"
    )


def check_no_version(result: dict[str, Any], where: str) -> None:
    nothing = "a version is made, unless there is nothing to forget"
    must(result["kind"] == "nothing_to_forget", f"{where}.kind", nothing)
    for name in ("verdict", "method", "approval", "oracle_used"):
        must(not result[name], f"{where}.{name}", "no version was made")
    told = result.get("declared", result["before"])
    another = "is about another version than the one that was served"
    must(told["version"] == result["before"]["version"], f"{where}.declared.version", another)


def check_version(
    result: dict[str, Any], where: str, request: dict[str, Any], events: list[Event]
) -> None:
    """Check that the version was made as the certificate says: base, method and verdict."""
    before, after, kind, method = (result[name] for name in ("before", "after", "kind", "method"))
    nothing = "a version is made, unless there is nothing to forget"
    must(kind != "nothing_to_forget", f"{where}.kind", nothing)
    mode, was = (method["mode"], "parent") if method else ("declared", "replaces")
    fits = mode == kind and result["oracle_used"] == (kind == "exact")
    must(fits, f"{where}.kind", f"{kind} does not fit method.mode and oracle_used")
    if method:
        seed = method["config"].get("seed", method["seed"])
        must(seed == method["seed"], f"{where}.method.seed", "is not that of the configuration")
    asked = "an exact job was asked for, and this is none"
    must(kind != "approximate" or not request["exact_asked"], f"{where}.kind", asked)

    made = versions(events, model=result["model_id"], number=after["version"])
    unknown = f"the log has no version.created of version {after['version']} of this model"
    must(len(made) == 1, f"{where}.after", unknown)
    agree(f"{where}.after.weights_sha256", after["weights_sha256"], made[0], "weights_sha256")
    agree(f"{where}.before.weights_sha256", before["weights_sha256"], made[0], f"{was}_sha256")
    agree(f"{where}.kind", kind, made[0], "mode")
    for parent in versions(events, weights_sha256=before["weights_sha256"]):
        agree(f"{where}.before.version", before["version"], parent, "number")
    check_backbone(method, where, made[0])
    check_told_accuracy(result, where, made[0])
    job = made[0].data.get("job")
    ended = only([event for event in events if event.subject == job], "job.completed")
    agree(f"{where}.verdict", result["verdict"], ended, "verdict")
    check_approval(result, where, made[0], request, events)
    check_declared(result, where, made[0], events)


def check_declared(result: dict[str, Any], where: str, made: Event, events: list[Event]) -> None:
    """Check that a version that was trained elsewhere is called so, and what was declared of it."""
    told = [e for e in events if (e.name, e.subject) == ("version.declared", made.subject)]
    said = result.get("declared")
    differ = "the log and the certificate do not agree whether the version was trained elsewhere"
    must(len(told) == (said is not None), f"{where}.declared", differ)
    must((result["kind"] == "declared") == (said is not None), f"{where}.kind", differ)
    if said is None:
        return
    must(said["version"] == result["after"]["version"], f"{where}.declared.version", differ)
    for name in ("trained_on", "trained_on_sha256", "left_out"):
        agree(f"{where}.declared.{name}", said[name], told[0], name)
    accepted = told[0].data.get("accepted") or []
    must(said["accepted"] == accepted, f"{where}.declared.accepted", "the log says otherwise")


def check_backbone(method: dict[str, Any] | None, where: str, made: Event) -> None:
    """Check that the certificate names the backbone that nothing but a head was fitted on."""
    backbone = (method or {}).get("config", {}).get("backbone")
    named = backbone.get("sha256") if isinstance(backbone, dict) else None
    differ = f"version.created at {made.position} says otherwise on which backbone it was made"
    told = made.data.get("backbone_sha256")
    must(named == told, f"{where}.method.config.backbone", differ)


def check_told_accuracy(result: dict[str, Any], where: str, made: Event) -> None:
    """Check that the certificate says of the model's accuracy what the log says."""
    told, accuracy = made.data, result.get("accuracy")
    concealed = f"is left out, though version.created at {made.position} says that it was measured"
    must(accuracy is not None or "measured" not in told, f"{where}.accuracy", concealed)
    if accuracy is not None:
        other = f"version.created at {made.position} says something else"
        lost = told.get("lost_classes") or []
        must(accuracy["lost_classes"] == lost, f"{where}.accuracy.lost_classes", other)
        must(accuracy["samples"] == told.get("measured"), f"{where}.accuracy.samples", other)
        for moment in ("before", "after"):
            right = round((accuracy[moment] or 0) * accuracy["samples"])
            must(right == told.get(f"right_{moment}"), f"{where}.accuracy.{moment}", other)
    accepted = result.get("accepted_accuracy", {}).get("accepted", False)
    differ = f"version.created at {made.position} says otherwise whether it was accepted"
    must(accepted == bool(told.get("accept_accuracy")), f"{where}.accepted_accuracy", differ)


def check_approval(
    result: dict[str, Any],
    where: str,
    made: Event,
    request: dict[str, Any],
    events: list[Event],
) -> None:
    """A version with the verdict `fail` is served only if a person accepted it."""
    approval, where = result["approval"], f"{where}.approval"
    promoted = [e for e in events if (e.name, e.subject) == ("version.promoted", made.subject)]
    differ = "approval and version.promoted in the log do not agree"
    must(bool(promoted) == bool(approval), where, differ)
    accepted = "a version is accepted where, and only where, it failed"
    must((result["verdict"] == "fail") == bool(approval), where, accepted)
    if not approval:
        return
    promotion = "the version was promoted, so it was accepted"
    must(approval["decision"] == "accept", f"{where}.decision", promotion)
    other = "version.promoted in the log names another job whose version was accepted"
    told = promoted[-1].data.get("accepted_job")
    must(approval.get("accepted_job") == told, f"{where}.accepted_job", other)
    decided = [
        event
        for event in events
        if (event.name, event.subject) == ("request.decided", request["id"])
        and event.data.get("decision") == "accept"
        and event.data.get("job") == (told or made.data.get("job"))
    ]
    for event in decided:
        agree(f"{where}.decided_by", approval["decided_by"], event, "by")
    if told is None:
        require_near(f"{where}.decided_at", approval["decided_at"], promoted[-1])
        return
    nobody = f"the log has no request.decided of this request about job {shown(str(told))}"
    must(len(decided) == 1, f"{where}.accepted_job", nobody)
    require_near(f"{where}.decided_at", approval["decided_at"], decided[0])
    early = "the version was served before a person accepted another in whose place it is"
    must(decided[0].position < promoted[-1].position, f"{where}.accepted_job", early)


def check_purge(result: dict[str, Any], where: str, events: list[Event], out: Report) -> None:
    """Check that the log confirms every deletion of weights the certificate claims."""
    for number, old in enumerate(result["purge"]["superseded_weights"]):
        place = f"{where}.purge.superseded_weights[{number}]"
        made = versions(events, model=result["model_id"], number=old["version"])
        for version in made:
            agree(f"{place}.weights_sha256", old["weights_sha256"], version, "weights_sha256")
        if old["purged_at"] is None:
            continue
        if not made:
            out.unchecked.append(
                f"whether weights of version {old['version']} of {shown(result['model'])} were "
                "purged: the bundle has no events of that version"
            )
            continue
        purged = [e for e in events if (e.name, e.subject) == ("version.purged", made[0].subject)]
        lacking = "the log has no version.purged of this version"
        must(bool(purged), f"{place}.purged_at", lacking)
        agree(f"{place}.weights_sha256", old["weights_sha256"], purged[-1], "weights_sha256")
        stored = "the log says that another version still had these weights, so they were kept"
        must("weights" not in str(purged[-1].data.get("kept")), f"{place}.purged_at", stored)
        require_near(f"{place}.purged_at", old["purged_at"], purged[-1])


STILL_THERE = "still in the dataset's files"
"""What is said of rows unless all were erased."""


def check_rows(said: dict[str, Any], mine: list[Event], out: Report) -> None:
    """Check that the certificate says of the samples' rows what the newest event it names says."""
    told = [
        event
        for event in mine
        if event.name in ("request.rows_erased", "request.rows_kept")
        and event.position in said["log"]["positions"]
    ]
    rows = said.get("rows")
    concealed = "the log says what became of the samples' rows, and the certificate does not"
    must(rows is not None or not told, "rows", concealed)
    if rows is None:
        return
    status: Any = "waiting"
    left: Any = None
    if told:
        newest = told[-1]
        status, left = newest.data.get("why"), newest.data.get("left")
        if newest.name == "request.rows_erased":
            status, left = "gone", 0
        must(rows["at"] is not None, "rows.at", "is missing")
        require_near("rows.at", rows["at"], newest)
    must(rows["status"] == status, "rows.status", f"the log says {shown(str(status))}")
    must(rows["left"] == left, "rows.left", f"the log says {left}")
    differ = "does not say what the status says"
    must((STILL_THERE in rows["meaning"]) == (status != "gone"), "rows.meaning", differ)
    must(status != "gone" or "No row" in rows["meaning"], "rows.meaning", differ)
    out.unchecked.append(
        "the dataset's files: what the certificate says of the samples' rows is what the service "
        "recorded"
    )


SUBJECTS_LINE = "Subjects:"
"""How the paragraph begins that says what was found of subjects."""


def check_subjects(said: dict[str, Any], received: Event) -> None:
    """Check that the certificate says of subjects what the log says, and no more in words."""
    request, results = said["request"], said["results"]
    subjects, where = request.get("subjects"), "request.subjects"
    lines = said["scope"]["statement"].split("\n")
    about = [line for line in lines if line.startswith(SUBJECTS_LINE)]
    concealed = "the log and the certificate do not agree whether subjects were named"
    must((subjects is not None) == ("subjects" in received.data), where, concealed)
    must(len(about) == (subjects is not None), "scope.statement", concealed)
    nothing = "a request names samples, or subjects of whom none was found"
    if subjects is None:
        must(request["samples"] > 0, "request.samples", nothing)
        return
    for name, field_ in (
        ("named", "subjects"), ("unknown", "unknown_subjects"), ("samples", "subject_samples"),
        ("dataset", "dataset"), ("indexed_at", "indexed_at"),
    ):  # fmt: skip
        agree(f"{where}.{name}", subjects[name], received, field_)
    differs = f"is not the time of {received.name} at {received.position}"
    must(moment(subjects["looked_up_at"]) == received.at, f"{where}.looked_up_at", differs)
    named, unknown, samples = (subjects[name] for name in ("named", "unknown", "samples"))
    must(unknown <= named, f"{where}.unknown", "more are unknown than were named")
    must(
        (samples > 0) == (unknown < named), f"{where}.samples", "does not follow from the subjects"
    )
    must(samples <= request["samples"], f"{where}.samples", "are more than the request names")
    must(request["samples"] > 0 or not samples, "request.samples", nothing)
    made = any(result["after"] for result in results)
    must(request["samples"] > 0 or not made, "results", "a version was made, and for no sample")
    claim = f"No data was found there of {unknown} of them."
    wrong = f"it must say of {unknown} subjects, and of no others, that no data was found"
    must(("No data" in about[0]) == (unknown > 0), "scope.statement", wrong)
    must(not unknown or claim in about[0], "scope.statement", wrong)
    must(f"dataset {subjects['dataset']}" in about[0], "scope.statement", "it names no dataset")


def check_subject(certificate: Certificate) -> None:
    """Check that the statement is about the new versions, or else about the commitment."""
    request = certificate.predicate["request"]
    made = [
        {
            "name": f"{result['model']}/versions/{result['after']['version']}",
            "digest": {"sha256": result["after"]["weights_sha256"]},
        }
        for result in certificate.predicate["results"]
        if result["after"]
    ]
    entry = sha256(certificate.completed.leaf.encode()).hexdigest()
    digest = request["commitment"] or entry
    itself = [{"name": f"request/{request['id']}", "digest": {"sha256": digest}}]
    differ = "the statement is about other weights than its results"
    must(certificate.statement["subject"] == (made or itself), "subject", differ)


def versions(events: list[Event], **fields: Any) -> list[Event]:
    """The events that created versions with these fields."""
    return [
        event
        for event in events
        if event.name == "version.created"
        and all(event.data.get(name) == value for name, value in fields.items())
    ]


def only(events: list[Event], name: str) -> Event:
    found = [event for event in events if event.name == name]
    reason = f"the bundle has {len(found)} events {name} where there is exactly one"
    require(len(found) == 1, Code.CERTIFICATE, reason)
    return found[0]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def require_near(where: str, said: str, event: Event) -> None:
    far = f"is far from {event.name} at {event.position} ({event.at.isoformat()})"
    must(abs(moment(said) - event.at) <= TOLERANCE, where, far)


def check_weights(files: Sequence[Path], results: list[dict[str, Any]], out: Report) -> None:
    new = {r["after"]["weights_sha256"]: r for r in results if r["after"]}
    old = {r["before"]["weights_sha256"] for r in results}
    seen = set()
    for path in files:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        from_before = "these are weights from before: they hold what was to be forgotten"
        must(digest in new or digest not in old, shown(str(path)), from_before)
        must(digest in new, shown(str(path)), "these are not weights that the certificate names")
        result = new[digest]
        of = f"version {result['after']['version']} of {shown(result['model'])}"
        out.checked.append(f"{shown(str(path))} holds the weights of {of}")
        seen.add(digest)
    for result in (new[digest] for digest in new if digest not in seen):
        out.unchecked.append(
            f"the weight file of version {result['after']['version']} of {shown(result['model'])}: "
            f"not given (--weights); its SHA-256 must be {result['after']['weights_sha256']}"
        )


def check_anchors(anchors: list[dict[str, Any]], checkpoint: Checkpoint, out: Report) -> None:
    for number, anchor in enumerate(anchors):
        reason = f"anchors[{number}] is of {anchor['size']} entries: the log was rolled back"
        require(anchor["size"] <= checkpoint.size, Code.CONSISTENCY, reason)
    if anchors:
        out.unchecked.append(
            f"the {len(anchors)} anchors: compare them with the places they name, and check "
            "rfc3161 receipts with `openssl ts -verify`"
        )


def outcome(predicate: dict[str, Any]) -> list[str]:
    """The outcome of the request, for each model."""
    lines = []
    if subjects := predicate["request"].get("subjects"):
        lines.append(
            f"subjects: {subjects['named']} named, {subjects['unknown']} of them unknown to "
            f"dataset {shown(subjects['dataset'])}; {subjects['samples']} samples found"
        )
    for result in predicate["results"]:
        if result["after"] is None:
            lines.append(f"{shown(result['model'])}: nothing to forget; no version was made")
            continue
        verdict, approval = result["verdict"] or "none (not tested)", result["approval"]
        lines.append(
            f"{shown(result['model'])}: version {result['before']['version']} -> "
            f"{result['after']['version']}, {result['kind']}, verdict {verdict}"
            + (f", accepted by {shown(approval['decided_by'])}" if approval else "")
        )
        if lost := result.get("accuracy", {}).get("lost_classes"):
            named = ", ".join(map(str, lost[:CLASSES_NAMED])) + (
                "…" if lost[CLASSES_NAMED:] else ""
            )
            lines.append(f"{shown(result['model'])}: classes without training samples now: {named}")
    if rows := predicate.get("rows"):
        left = f", {rows['left']} left" if rows["left"] else ""
        lines.append(f"the samples' rows in the dataset's files: {rows['status']}{left}")
    return lines


# The whole log


def check_log(
    entries: Path,
    notes: Sequence[str],
    given: Sequence[Key],
    older: Path | None,
    bundled: str | None,
    out: Report,
) -> None:
    """Recompute the log from all its entries, compare it with its checkpoints, and check that a
    bundle leaves out nothing about its subjects.

    Raises:
        Refusal: at the first fault.
    """
    bundle = None if bundled is None else parse(bundled, "the bundle")
    events: list[Event] = []
    checkpoints = [read_checkpoint(note, f"checkpoint {n}") for n, note in enumerate(notes, 1)]
    if bundle is not None:
        BUNDLE(bundle, "bundle")
        events = read_events(bundle)
        checkpoints.append(read_checkpoint(bundle["checkpoint"], "the bundle's checkpoint"))
    covered = checkpoints[-1].size
    subjects = {event.subject for event in events}
    claimed = {event.position: event.leaf for event in events}
    checkpoints.sort(key=lambda each: each.size)
    newest = checkpoints[-1]
    keys = named(given, newest.origin)
    if not any([each.signer(keys) for each in checkpoints]):
        require_signed(checkpoints, keys)
    if older:
        require_same_beginning(older, entries)
        out.checked.append("the entries begin with the older entries")

    introduced: list[Introduced] = []
    tree, waiting = Tree(), list(checkpoints)
    compare(tree, waiting)
    for line in lines_of(entries):
        event = read_event(line, f"line {tree.size + 1}")
        elsewhere = f"line {tree.size + 1} is entry {event.position}, not {tree.size}"
        require(event.position == tree.size, Code.CONSISTENCY, elsewhere)
        introduced.extend(introductions([event]))
        belongs = event.subject in subjects and event.position < covered
        hidden = f"the bundle leaves out {event.name} at position {event.position}, or alters it"
        held = claimed.get(event.position)
        require(held == (line if belongs else None), Code.CERTIFICATE, hidden)
        tree.append(leaf_hash(line.encode()))
        compare(tree, waiting)
    for each in waiting:
        reason = f"{each.where} is of {each.size} entries, and there are {tree.size}"
        raise Refusal(Code.CONSISTENCY, reason)
    for each in checkpoints:
        reason = f"{each.where} is of another log"
        require(each.origin == newest.origin, Code.CONSISTENCY, reason)
    trusted = extended(keys, checkpoints, introduced)
    require_signed(checkpoints, trusted)
    for each in checkpoints:
        out.checked.append(
            f"{each.where}: the first {each.size} entries are what {each.signer(trusted)} signed"
        )
    if bundle is not None:
        out.checked.append(f"the bundle's {len(events)} events are all that the log has about them")
    if tree.size > newest.size:
        out.unchecked.append(f"{tree.size - newest.size} entries after the newest checkpoint")


def compare(tree: Tree, waiting: list[Checkpoint]) -> None:
    """Compare the tree with the checkpoints of its size, and drop those from the waiting ones."""
    while waiting and waiting[0].size == tree.size:
        checkpoint = waiting.pop(0)
        reason = f"the first {tree.size} entries are not those that {checkpoint.where} signs"
        require(checkpoint.root == tree.root(), Code.CONSISTENCY, reason)


def lines_of(entries: Path) -> Iterator[str]:
    with entries.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.removesuffix("\n")


def require_same_beginning(older: Path, entries: Path) -> None:
    """Name the first entry that differs from an older copy."""
    now = lines_of(entries)
    for position, line in enumerate(lines_of(older)):
        reason = f"the entry at position {position} is not the one in the older entries"
        require(next(now, None) == line, Code.CONSISTENCY, reason)


# The command line


def shown(text: str) -> str:
    """Text from a file, safe to print: control and look-alike characters are escaped."""
    return text if text.isascii() and text.isprintable() else ascii(text)


def print_report(out: Report, refusal: Refusal | None) -> None:
    for title, sign, lines in (
        ("Checked", "+", out.checked),
        ("Not checked", "-", out.unchecked if refusal is None else []),
        ("A valid bundle does not prove", "-", NOT_PROVEN if refusal is None else ()),
        ("What came of the request", "*", out.outcome),
    ):
        if lines:
            print(f"{title}:")
            print("".join(f"  {sign} {line}\n" for line in lines))
    if refusal is None:
        print("VALID: every check passed.")
    else:
        print(f"REFUSED ({refusal.code.name.lower()}, exit status {refusal.code}): {refusal}")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    whole_log = list(words[:1]) == ["log"]
    parser = argparse.ArgumentParser(
        prog="verify.py log" if whole_log else "verify.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    key_help = "a key you trust: public key in PEM, or name+id+key; a file, or the text"
    parser.add_argument("--key", action="append", required=True, help=key_help)
    if whole_log:
        parser.add_argument("entries", type=Path, help="all entries of the log, one a line")
        parser.add_argument("--checkpoint", action="append", type=Path, required=True)
        older_help = "a copy that you kept: names the first entry that differs"
        parser.add_argument("--older-entries", type=Path, help=older_help)
        bundle_help = "a bundle made from these entries: says whether it leaves any out"
        parser.add_argument("--bundle", type=Path, help=bundle_help)
    else:
        parser.add_argument("bundle", type=Path, help="as GET /v1/audit/bundle gives it")
        parser.add_argument("--older", type=Path, help="a checkpoint that you kept")
        weights_help = "weight files, to compare with the digests in the certificate"
        parser.add_argument(
            "--weights", type=Path, nargs="+", action="extend", default=[], help=weights_help
        )
    options = parser.parse_args(words[1:] if whole_log else words)
    options.whole_log = whole_log
    return options


def main(words: Sequence[str]) -> int:
    options = arguments(words)
    out, refusal = Report(), None
    try:
        keys = [read_key(given) for given in options.key]
        if options.whole_log:
            notes = [path.read_bytes().decode() for path in options.checkpoint]
            bundled = options.bundle and options.bundle.read_bytes().decode()
            check_log(options.entries, notes, keys, options.older_entries, bundled, out)
        else:
            content = options.bundle.read_bytes().decode()
            older = options.older and options.older.read_bytes().decode()
            check_bundle(content, keys, older, options.weights, out)
    except Refusal as error:
        refusal = error
    except UnicodeDecodeError as error:
        refusal = Refusal(Code.FORM, f"a file is not in UTF-8: {error}")
    except OSError as error:
        refusal = Refusal(Code.USAGE, str(error))
    print_report(out, refusal)
    return Code.VALID if refusal is None else refusal.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
