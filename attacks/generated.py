"""Generated attacks: each field altered, each field left out.

One for each column of each event and each field of the bundle and the certificate, both without
keys and by the operator, who signs the altered evidence again.
"""

import copy
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import rfc8785

from attacks.evidence import Evidence, Given, Json
from attacks.judge import CERTIFICATE, CONSISTENCY, CONTENT, FORM, INCLUSION, SIGNATURE, Attack
from evidence.signed_notes import read

Path = tuple[str | int, ...]
Forgery = Callable[[Evidence, str, Path], Given]
"""Alters a field of a certificate, given the request and the path."""

Rules = Sequence[tuple[str, int, str]]
"""Paths, the exit status they lead to, and the text of the reason; the first match counts."""

UNGUARDED = r"anchors\[\d+\]\.(kind|size|at|receipt)$"
"""Bundle fields that the verifier does not check, and says so."""

IN_BUNDLE: Rules = (
    (r"^bundle$", FORM, r"bundle\.bundle"),
    (r"^request_id$", CERTIFICATE, "certificate is of request"),
    (r"^checkpoint$", FORM, "bundle's checkpoint"),
    (r"^keys", SIGNATURE, r"keys\[\d\] was neither"),
    (r"^events\[\d+\]\.position", INCLUSION, "said to stand at"),
    (r"^events\[\d+\]\.proof", INCLUSION, r"events\[\d+\]: .* is not at position"),
    (r"^certificate\.(payload|payloadType)$", SIGNATURE, "signature by .* does not hold"),
    (r"^certificate\.signatures\[\d\]\.keyid", SIGNATURE, "not signed by a trusted key"),
    (r"^certificate\.signatures", SIGNATURE, "signature by .* does not hold"),
    (r"^(certificate_)?consistency\.from", CONSISTENCY, "the proof starts from"),
    (r"^(certificate_)?consistency\.proof", CONSISTENCY, "was rewritten"),
)

SIGNED_AGAIN: Rules = (
    (r"^(_type|predicateType)$", FORM, "is none of"),
    (r"^results\[\d\]\.status$", FORM, "is none of"),
    (r"\.accuracy\.measured_on$|\.objections", FORM, "is none of"),
    (r"^log\.completed\.leaf$", FORM, r"completed\.leaf"),
    (r"^log\.checkpoint$", FORM, "certificate's checkpoint"),
    (r"^log\.completed", INCLUSION, r"log\.completed"),
    (r"^log\.origin", CERTIFICATE, "names the log"),
    (r"^log\.positions", CERTIFICATE, "positions|events|younger|hash"),
    (r"^request\.id", CERTIFICATE, "certificate is of request"),
    (r"", CERTIFICATE, "no certificate.issued in the log has this certificate's hash"),
)
"""The operator signs another certificate; the log names the honest one."""

ISSUED_FALSELY: Rules = (
    *SIGNED_AGAIN[:-1],
    (r"^subject", CONTENT, "^subject"),
    (r"^request\.", CONTENT, "^request"),
    (r"^results\[0\]\.model$", CONTENT, "says nothing about model"),
    (r"^results\[0\]\.model_id$", CONTENT, "results"),
    (r"^results\[0\]\.(kind|verdict|oracle_used)$", CONTENT, r"^results\[0\]\.\w"),
    (r"^results\[0\]\.(before|after)", CONTENT, r"^results\[0\]\.\w|^subject"),
    (r"^results\[0\]\.method\.(mode|seed)$", CONTENT, r"results\[0\]\.(kind|method)"),
    (r"^results\[0\]\.tests\[\d\]\.passed$", CONTENT, "passed"),
    (r"^results\[0\]\.approval\.(decision|decided_by|decided_at)$", CONTENT, "approval"),
    (r"^results\[0\]\.approval$", CONTENT, "approval"),
    (r"^results\[0\]\.accuracy\.", CONTENT, r"^results\[0\]\.accuracy\."),
    (r"^results\[0\]\.accepted_accuracy\.accepted$", CONTENT, "whether it was accepted"),
    (r"^results\[0\]\.purge.*(version|weights_sha256|purged_at)$", CONTENT, "purge"),
    (r"^issued\.number$", CERTIFICATE, "calls itself number"),
    (r"^issued\.at$", CONTENT, r"^issued\.at"),
)
"""The operator issues another certificate, and rewrites the log to name it. Fields that match no
rule are in no event: only someone who holds an older checkpoint, or the honest certificate, can
detect the change."""

OPTIONAL = (
    "accuracy", "accepted_accuracy", "advantage", "fine_tuned", "pooled_audit", "accepted_job",
    "subjects",
)  # fmt: skip
"""Fields that honest certificates may lack."""

NOT_REPEATED = r"^results\[0\]\.before\."
"""If there was nothing to forget, no event in the bundle repeats these."""

ANOTHER = {
    "pass": "no_power",
    "fail": "no_power",
    "no_power": "pass",
    "approximate": "exact",
    "completed": "failed",
    "nothing_to_forget": "approximate",
    "untrain_samples": "remove_class",
    "before": "after",
    "after": "guard",
    "guard": "after",
    "accept": "retry",
}
BASE64 = (
    "payload", "sig", "public_key", "replaces", "endorsement", "acknowledgement", "proof",
)  # fmt: skip
HASH = b64encode(bytes(32)).decode()
INSTEAD_OF_NULL: Json = {
    "verdict": "pass",
    "after": {"version": 9, "weights_sha256": "0" * 64},
    "method": {
        "name": "none",
        "mode": "approximate",
        "mode_reason": None,
        "config": {},
        "seed": None,
        "code_version": None,
        "libraries": {},
        "device": None,
    },
    "approval": {
        "decision": "accept",
        "decided_by": "admin",
        "decided_at": "2026-03-02T08:00:00.000000Z",
        "ground_hmac": None,
    },
    "reason_hmac": "0" * 64,
    "high": 0.5,
    "alpha": 0.5,
    "permutations": 9,
    "audit_seed": 9,
    "due_at": "2026-03-02T08:00:00.000000Z",
    "purged_at": "2026-03-02T08:00:00.000000Z",
    "low": 0.5,
    "expected": 0.5,
    "threshold": 0.5,
    "p_value": 0.5,
    "commitment": "0" * 64,
    "subject_ref_hmac": "0" * 64,
    "ground_hmac": "0" * 64,
    "receipt": "AAAA",
    "replaces": HASH,
    "endorsement": b64encode(bytes(64)).decode(),
    "acknowledgement": b64encode(bytes(64)).decode(),
}


def attacks(evidence: Evidence) -> list[Attack]:
    return [
        *_columns_of_the_past(evidence),
        *on_bundle(evidence),
        *_fields_of_certificates(evidence, "main", FORGED_LOG),
        *_fields_of_certificates(evidence, "failed", [*FORGED_CERTIFICATE, *FORGED_LOG]),
        *_fields_of_certificates(evidence, "other", [*FORGED_CERTIFICATE, *FORGED_LOG]),
        *_left_out(evidence, "failed"),
        *_left_out(evidence, "other"),
    ]


def on_bundle(evidence: Evidence) -> list[Attack]:
    """The attacks that need only the main bundle and the signing key."""
    return [
        *_columns(evidence),
        *_fields_of_the_bundle(evidence),
        *_fields_of_certificates(evidence, "main", FORGED_CERTIFICATE),
        *_left_out(evidence, "main"),
    ]


def _columns(evidence: Evidence) -> Iterator[Attack]:
    for number, event in enumerate(evidence.main.parsed["events"]):
        for path, _ in leaves_of(json.loads(event["leaf"])):
            says = "said to stand at" if path == ("position",) else rf"^events\[{number}\]: "
            yield Attack(
                f"a column of an event is altered: {number} {written(path)}",
                INCLUSION,
                says,
                partial(_alter_column, number=number, path=path),
            )


def _alter_column(evidence: Evidence, number: int, path: Path) -> Given:
    def change(bundle: Json) -> None:
        event = bundle["events"][number]
        event["leaf"] = rfc8785.dumps(altered(json.loads(event["leaf"]), path)).decode()

    return evidence.main.changed(change)


def _columns_of_the_past(evidence: Evidence) -> Iterator[Attack]:
    """The operator alters one and rebuilds all that follows; the auditor kept a checkpoint."""
    shown = {event["position"] for event in evidence.main.parsed["events"]}
    for entry in evidence.log.entries[: read(evidence.main.older or "").size]:
        for path, _ in leaves_of(entry):
            misplaced = path == ("position",) and entry["position"] in shown
            yield Attack(
                f"a column is altered and the log rebuilt: {entry['position']} {written(path)}",
                INCLUSION if misplaced else CONSISTENCY,
                "said to stand at" if misplaced else "older checkpoint .* was rewritten",
                partial(_alter_past, position=entry["position"], path=path),
            )


def _alter_past(evidence: Evidence, position: int, path: Path) -> Given:
    log = evidence.log.edited(position, **altered(evidence.log.entries[position], path))
    return evidence.reissued(evidence.main, lambda _: None, log)


def _fields_of_the_bundle(evidence: Evidence) -> Iterator[Attack]:
    bundle = evidence.main.parsed
    for path, _ in leaves_of(bundle):
        name = written(path)
        if name.endswith(".leaf") or re.search(UNGUARDED, name):
            continue  # leaves: column by column
        exit_status, says = _expected(IN_BUNDLE, name) or (0, "")
        act = partial(_alter_bundle, path=path)
        yield Attack(f"a field of the bundle is altered: {name}", exit_status, says, act)
    for path in fields_of(bundle):
        act = partial(_drop_from_bundle, path=path)
        name = f"a field of the bundle is left out: {written(path)}"
        yield Attack(name, FORM, f"lacks the field {path[-1]}", act)


def _alter_bundle(evidence: Evidence, path: Path) -> Given:
    bundle = altered(evidence.main.parsed, path)
    return evidence.main.changed(lambda b: b.update(bundle))


def _drop_from_bundle(evidence: Evidence, path: Path) -> Given:
    return evidence.main.changed(lambda bundle: holder(bundle, path).pop(path[-1]))


def _fields_of_certificates(
    evidence: Evidence, of: str, forgeries: Sequence[tuple[str, Forgery, Rules]]
) -> Iterator[Attack]:
    for path, _ in leaves_of(getattr(evidence, of).statement):
        name = written(path).removeprefix("predicate.")
        for kind, act, rules in forgeries:
            expected = _expected(rules, name)
            if of == "other" and act is _issue_falsely and re.search(NOT_REPEATED, name):
                continue
            if expected:
                title = f"a field of a certificate is {kind}: {of} {name}"
                yield Attack(title, *expected, _against(of, path, act))


def _left_out(evidence: Evidence, of: str) -> Iterator[Attack]:
    for path in fields_of(getattr(evidence, of).statement):
        title = f"a field of a certificate is left out and signed again: {of} {written(path)}"
        if path[-1] in OPTIONAL:
            yield Attack(title, *SIGNED_AGAIN[-1][1:], _against(of, path, _leave_out))
        elif "config" not in path and "libraries" not in path:  # the content of these is free
            says = f"lacks the field {path[-1]}"
            yield Attack(title, FORM, says, _against(of, path, _leave_out))


def _edit(evidence: Evidence, of: str, path: Path) -> Given:
    given: Given = getattr(evidence, of)
    payload = b64encode(rfc8785.dumps(altered(given.statement, path))).decode()
    return given.changed(lambda bundle: bundle["certificate"].update(payload=payload))


def _sign_again(evidence: Evidence, of: str, path: Path) -> Given:
    return evidence.resigned(getattr(evidence, of), _altering(path))


def _issue_falsely(evidence: Evidence, of: str, path: Path) -> Given:
    return evidence.reissued(getattr(evidence, of), _altering(path))


def _leave_out(evidence: Evidence, of: str, path: Path) -> Given:
    return evidence.resigned(
        getattr(evidence, of), lambda statement: holder(statement, path).pop(path[-1])
    )


def _altering(path: Path) -> Callable[[Json], None]:
    return lambda statement: statement.update(altered(statement, path))


def _against(of: str, path: Path, act: Forgery) -> Callable[[Evidence], Given]:
    return lambda evidence: act(evidence, of, path)


FORGED_CERTIFICATE: Sequence[tuple[str, Forgery, Rules]] = (
    ("altered", _edit, ((r"", SIGNATURE, "certificate's signature .* does not hold"),)),
    ("altered and signed again", _sign_again, SIGNED_AGAIN),
)
FORGED_LOG: Sequence[tuple[str, Forgery, Rules]] = (
    ("altered and issued falsely", _issue_falsely, ISSUED_FALSELY),
)


def _expected(rules: Rules, name: str) -> tuple[int, str] | None:
    for pattern, exit_status, says in rules:
        if re.search(pattern, name):
            return exit_status, says
    return None


# JSON values, by their paths


def leaves_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each scalar value, with its path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            yield from leaves_of(inner, (*path, name))
    else:
        yield path, value


def fields_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of each field of each object."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            if isinstance(value, dict):
                yield (*path, name)
            yield from fields_of(inner, (*path, name))


def written(path: Path) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def holder(value: Any, path: Path) -> Any:
    """The container of the value at a path."""
    for part in path[:-1]:
        value = value[part]
    return value


def altered(value: Json, path: Path) -> Json:
    """A copy with a different value of the same form at a path."""
    changed = copy.deepcopy(value)
    of = holder(changed, path)
    of[path[-1]] = other(of[path[-1]], next(p for p in reversed(path) if isinstance(p, str)))
    return changed


def other(value: Any, name: str) -> Any:
    match value:
        case None:
            return copy.deepcopy(INSTEAD_OF_NULL.get(name, 1))
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value + 0.125
        case str() if value in ANOTHER:
            return ANOTHER[value]
        case str() if re.fullmatch(r"[0-9a-f-]{36}|[0-9a-f]{64}", value):
            return value[:-1] + ("0" if value[-1] != "0" else "1")
        case str() if re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", value):
            return f"{int(value[:4]) - 1}{value[4:]}"
        case str() if name in BASE64:
            raw = b64decode(value)
            return b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode()
    return value + "x"
