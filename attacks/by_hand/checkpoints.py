"""Attacks on the signed checkpoint, and on the keys that sign it."""

import json
from base64 import b64encode
from dataclasses import replace

import rfc8785

from attacks.by_hand.forging import MALLORY, adding_to, mallory, with_leaf, with_note
from attacks.evidence import Evidence, Given, Signer
from attacks.judge import FORM, INCLUSION, SIGNATURE, Attack
from evidence import merkle
from evidence.signed_notes import Checkpoint, read, signed

ATTACKS: list[Attack] = []
attack = adding_to(ATTACKS)


@attack(SIGNATURE, "does not hold")
def the_size_in_a_checkpoint_is_raised(evidence: Evidence) -> Given:
    size = read(evidence.main.parsed["checkpoint"]).size
    return with_note(evidence.main, lambda s: s.replace(f"\n{size}\n", f"\n{size + 1}\n"))


@attack(FORM, "not a checkpoint")
def a_checkpoint_has_an_enormous_size(evidence: Evidence) -> Given:
    size = read(evidence.main.parsed["checkpoint"]).size
    return with_note(evidence.main, lambda s: s.replace(f"\n{size}\n", f"\n1{'0' * 5000}\n"))


@attack(INCLUSION, "is not at position")
def the_operator_signs_a_huge_size(evidence: Evidence) -> Given:
    checkpoint = read(evidence.main.parsed["checkpoint"])
    return _signed_anew(evidence, replace(checkpoint, size=2**62))


@attack(INCLUSION, "is not at position")
def the_operator_signs_an_empty_log(evidence: Evidence) -> Given:
    empty = Checkpoint(evidence.log.origin, 0, merkle.EMPTY_ROOT)
    return _signed_anew(evidence, empty)


@attack(INCLUSION, "is not at position")
def the_operator_signs_a_log_of_one_entry(evidence: Evidence) -> Given:
    return _signed_anew(evidence, read(evidence.log.checkpoint(evidence.signers, 1)))


def _signed_anew(evidence: Evidence, checkpoint: Checkpoint) -> Given:
    keys = [signer.note_key for signer in evidence.signers]
    return with_note(evidence.main, lambda _: signed(checkpoint, keys))


@attack(FORM, "not a checkpoint")
def a_size_is_written_with_leading_zeros(evidence: Evidence) -> Given:
    size = read(evidence.main.parsed["checkpoint"]).size
    return with_note(evidence.main, lambda s: s.replace(f"\n{size}\n", f"\n0{size}\n"))


@attack(FORM, "not a checkpoint")
def a_checkpoint_has_one_more_line(evidence: Evidence) -> Given:
    return with_note(evidence.main, lambda s: s.replace("\n\n", "\nmore\n\n"))


@attack(FORM, "no signature")
def a_checkpoint_has_a_line_that_is_no_signature(evidence: Evidence) -> Given:
    return with_note(evidence.main, lambda s: s + "all is well\n")


@attack(SIGNATURE, "by: nobody")
def the_signature_of_the_checkpoint_is_stripped(evidence: Evidence) -> Given:
    return with_note(evidence.main, lambda s: s.partition("\n\n")[0] + "\n\n")


@attack(SIGNATURE, "not signed by a trusted key")
def the_checkpoint_is_signed_by_an_unknown_key(evidence: Evidence) -> Given:
    unknown = Signer.of("elsewhere.example/log", MALLORY)
    checkpoint = read(evidence.main.parsed["checkpoint"])
    return with_note(evidence.main, lambda _: signed(checkpoint, [unknown.note_key]))


@attack(SIGNATURE, "not signed by a trusted key")
def the_checkpoint_is_signed_by_a_key_of_the_same_name(evidence: Evidence) -> Given:
    return with_note(evidence.main, lambda _: evidence.log.checkpoint([mallory(evidence)]))


@attack(SIGNATURE, "does not hold")
def the_checkpoint_bears_a_signature_of_another_text(evidence: Evidence) -> Given:
    shorter = evidence.log.checkpoint(evidence.signers, evidence.log.size - 1)
    tail = shorter.partition("\n\n")[2]
    return with_note(evidence.main, lambda s: s.partition("\n\n")[0] + "\n\n" + tail)


@attack(SIGNATURE, "not signed by a trusted key")
def everything_is_made_anew_by_an_unknown_key(evidence: Evidence) -> Given:
    forger = replace(evidence, signers=(mallory(evidence),))
    return replace(forger.reissued(evidence.main, lambda _: None), older=None)


@attack(SIGNATURE, "neither given nor introduced")
def a_key_is_added_to_those_that_are_named(evidence: Evidence) -> Given:
    name, public = evidence.log.origin, b64encode(mallory(evidence).public).decode()
    return evidence.main.changed(lambda b: b["keys"].append({"name": name, "public_key": public}))


@attack(SIGNATURE, "not signed by a trusted key")
def a_key_is_introduced_by_who_may_write_to_the_database(evidence: Evidence) -> Given:
    """The operator's keeper signs a log with the event in it; the key in the event signs what
    follows."""
    forger, entries = mallory(evidence), evidence.log.entries
    real = next(entry for entry in reversed(entries) if entry["event"] == "signing_key.introduced")
    said = {
        "name": evidence.log.origin,
        "public_key": b64encode(forger.public).decode(),
        "replaces": real["data"]["public_key"],
        "endorsement": forger.word_for(forger),
        "acknowledgement": forger.word_for(evidence.signer),
    }
    log = evidence.log.appended({**real, "id": 1000, "data": said})
    given = replace(evidence.main, older=log.checkpoint(evidence.signers))
    return replace(evidence, signers=(forger,)).rebuilt(given, log.appended(entries[3]))


@attack(INCLUSION, "signing_key.introduced is not at position")
def a_key_is_introduced_in_the_bundle_only(evidence: Evidence) -> Given:
    public = b64encode(mallory(evidence).public).decode()

    def alter(leaf: str) -> str:
        fields = json.loads(leaf)
        fields["data"]["public_key"] = public
        return rfc8785.dumps(fields).decode()

    return with_leaf(evidence.main, "signing_key.introduced", alter)
