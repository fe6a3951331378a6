"""Attacks on the entries of the log: edited, left out, moved, invented, or written differently."""

import json
from base64 import b64decode, b64encode

import rfc8785

from attacks.by_hand.forging import adding_to, place, with_leaf
from attacks.evidence import Evidence, Given, Json
from attacks.judge import CERTIFICATE, FORM, INCLUSION, Attack

ATTACKS: list[Attack] = []
attack = adding_to(ATTACKS)


@attack(INCLUSION, "job.completed is not at position")
def an_entry_is_edited(evidence: Evidence) -> Given:
    return with_leaf(evidence.main, "job.completed", lambda s: s.replace('"pass"', '"fail"'))


@attack(CERTIFICATE, "lacks events")
def an_entry_is_deleted(evidence: Evidence) -> Given:
    at = place(evidence.main, "version.superseded")
    return evidence.main.changed(lambda bundle: bundle["events"].pop(at))


@attack(FORM, "ascending")
def entries_are_reordered(evidence: Evidence) -> Given:
    return evidence.main.changed(lambda bundle: bundle["events"].reverse())


@attack(FORM, "ascending")
def an_entry_stands_twice(evidence: Evidence) -> Given:
    return evidence.main.changed(lambda b: b["events"].insert(1, b["events"][0]))


@attack(CERTIFICATE, "lacks the completion")
def the_end_is_truncated(evidence: Evidence) -> Given:
    at = place(evidence.other, "request.completed")
    return evidence.other.changed(lambda b: b.update(events=b["events"][:at]))


@attack(FORM, "at least 1")
def all_entries_are_left_out(evidence: Evidence) -> Given:
    return evidence.main.changed(lambda bundle: bundle.update(events=[]))


@attack(INCLUSION, "said to stand at")
def a_position_is_off_by_one(evidence: Evidence) -> Given:
    def alter(bundle: Json) -> None:
        bundle["events"][-1]["position"] += 1

    return evidence.main.changed(alter)


@attack(INCLUSION, "is not at position")
def a_proof_is_of_another_entry(evidence: Evidence) -> Given:
    def alter(bundle: Json) -> None:
        bundle["events"][2]["proof"] = bundle["events"][3]["proof"]

    return evidence.main.changed(alter)


@attack(INCLUSION, "is not at position")
def a_proof_is_cut(evidence: Evidence) -> Given:
    return evidence.main.changed(lambda bundle: bundle["events"][2]["proof"].pop())


@attack(INCLUSION, "is not at position")
def a_proof_is_lengthened(evidence: Evidence) -> Given:
    def alter(bundle: Json) -> None:
        bundle["events"][2]["proof"].append(b64encode(bytes(32)).decode())

    return evidence.main.changed(alter)


@attack(INCLUSION, "is not at position")
def an_entry_is_invented_with_the_proof_of_a_real_one(evidence: Evidence) -> Given:
    def invent(leaf: str) -> str:
        return rfc8785.dumps({**json.loads(leaf), "event": "request.refused"}).decode()

    return with_leaf(evidence.main, "request.received", invent)


@attack(FORM, "is not JSON")
def a_node_is_passed_off_as_an_entry(evidence: Evidence) -> Given:
    """Second preimage: a node's two children as the text of an entry."""
    children = "".join(map(chr, b64decode(evidence.log.hashes([(0, 1)])[0])))
    return with_leaf(evidence.main, "request.received", lambda _: children)


@attack(FORM, "stands twice")
def an_entry_has_a_key_twice(evidence: Evidence) -> Given:
    return with_leaf(evidence.main, "job.completed", lambda s: s.replace("{", '{"actor":"api",', 1))


@attack(FORM, "canonical")
def an_entry_is_spaced_out(evidence: Evidence) -> Given:
    return with_leaf(evidence.main, "job.completed", lambda s: s.replace(",", ", "))


@attack(FORM, "canonical")
def an_entry_has_its_keys_in_another_order(evidence: Evidence) -> Given:
    def alter(leaf: str) -> str:
        fields = json.loads(leaf)
        turned = dict(reversed(fields.items()))
        return json.dumps(turned, separators=(",", ":"))

    return with_leaf(evidence.main, "job.completed", alter)


@attack(FORM, "canonical")
def an_entry_is_escaped_where_it_need_not_be(evidence: Evidence) -> Given:
    return with_leaf(evidence.main, "job.completed", lambda s: s.replace("pass", r"p\u0061ss"))


@attack(FORM, "has no canonical form")
def an_entry_holds_a_fraction(evidence: Evidence) -> Given:
    return with_leaf(
        evidence.main, "job.completed", lambda s: s.replace('"attempt":1', '"attempt":1.0')
    )


@attack(FORM, "NaN is not JSON")
def an_entry_holds_nan(evidence: Evidence) -> Given:
    return with_leaf(
        evidence.main, "job.completed", lambda s: s.replace('"attempt":1', '"attempt":NaN')
    )


@attack(FORM, "unknown field")
def an_entry_has_one_more_column(evidence: Evidence) -> Given:
    def alter(leaf: str) -> str:
        return rfc8785.dumps({**json.loads(leaf), "note": "all is well"}).decode()

    return with_leaf(evidence.main, "job.completed", alter)


@attack(INCLUSION, "is not at position")
def an_entry_is_written_with_look_alike_letters(evidence: Evidence) -> Given:
    return with_leaf(
        evidence.main, "signing_key.introduced", lambda s: s.replace("lethe", "l\u0435the")
    )


@attack(FORM, "surrogates not allowed")
def an_entry_holds_half_a_letter(evidence: Evidence) -> Given:
    return with_leaf(evidence.main, "job.completed", lambda s: s.replace("pass", r"\ud800"))
