"""Attacks on the form of the bundle and of the certificate."""

import json
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from attacks.by_hand.forging import adding_to
from attacks.evidence import Evidence, Given, Json
from attacks.judge import FORM, Attack

ATTACKS: list[Attack] = []
attack = adding_to(ATTACKS)


def _form(says: str, name: str, alter: Callable[[Json], Any]) -> None:
    def act(evidence: Evidence, change: Callable[[Json], Any]) -> Given:
        return evidence.main.changed(change)

    ATTACKS.append(Attack(name, FORM, says, partial(act, change=alter)))


_form("bundle.bundle", "another version of the bundle", lambda b: b.update(bundle="v2"))
_form("unknown field", "a bundle with one more field", lambda b: b.update(valid=True))
_form("lacks the field keys", "a bundle without its keys", lambda b: b.pop("keys"))
_form("at least 1", "a bundle with an empty list of keys", lambda b: b.update(keys=[]))
_form("a UUID", "a request id in capitals", lambda b: b.update(request_id=b["request_id"].upper()))
_form("whole number", "true for a position", lambda b: b["events"][0].update(position=True))
_form("whole number", "a negative position", lambda b: b["events"][0].update(position=-1))
_form("whole number", "a position above all", lambda b: b["events"][0].update(position=2**64))
_form("base64", "a proof in another alphabet", lambda b: b["events"][0]["proof"].append("-_" * 22))
_form("32 bytes", "a proof with a short hash", lambda b: b["events"][0]["proof"].append("AAAA"))
_form(
    "at most 64", "an endless proof", lambda b: b["events"][0].update(proof=["A" * 43 + "="] * 99)
)


@attack(FORM, "predicateType")
def the_predicate_is_of_another_kind(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: s.update(predicateType="urn:other:v1"))


@attack(FORM, "unknown field")
def the_predicate_has_one_more_field(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: s["predicate"].update(gdpr="compliant"))


@attack(FORM, "stands twice")
def the_bundle_has_a_key_twice(evidence: Evidence) -> Given:
    text = json.dumps(evidence.main.parsed)
    return replace(evidence.main, bundle=text.replace("{", '{"anchors": [], ', 1))


@attack(FORM, "NaN is not JSON")
def the_bundle_holds_nan(evidence: Evidence) -> Given:
    text = json.dumps(evidence.main.parsed)
    return replace(evidence.main, bundle=text.replace('"size": 12', '"size": NaN'))


@attack(FORM, "is not a finite number")
def the_certificate_holds_an_infinite_number(evidence: Evidence) -> Given:
    payload = b64decode(evidence.main.parsed["certificate"]["payload"])
    endless = payload.replace(b'"value":0.61', b'"value":1e999')
    envelope = evidence.signer.envelope(endless)
    return evidence.main.changed(lambda bundle: bundle.update(certificate=envelope))


@attack(FORM, "is not JSON")
def the_bundle_is_nested_without_end(evidence: Evidence) -> Given:
    return replace(evidence.main, bundle="[" * 100_000)


@attack(FORM, "is not JSON")
def the_bundle_is_cut_off(evidence: Evidence) -> Given:
    text = json.dumps(evidence.main.parsed)
    return replace(evidence.main, bundle=text[: len(text) // 2])
