"""Attacks on the log's past: rewritten, rolled back, or spliced from two logs."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from attacks.by_hand.forging import adding_to, with_note
from attacks.evidence import Evidence, Given, Json, Log, Signer
from attacks.judge import CONSISTENCY, INCLUSION, Attack
from evidence.signed_notes import read

ATTACKS: list[Attack] = []
attack = adding_to(ATTACKS)


@attack(CONSISTENCY, "was rewritten")
def the_operator_rewrites_the_past(evidence: Evidence) -> Given:
    """The whole log is rewritten with the real key, but the auditor kept a checkpoint."""
    log = evidence.log
    received = log.find("request.received", evidence.main.parsed["request_id"])
    at = "2026-03-02T07:00:00.000000Z"
    data = {**log.entries[received]["data"], "received_at": at}
    return evidence.reissued(
        evidence.main,
        lambda s: s["predicate"]["request"].update(received_at=at),
        log.edited(received, at=at, data=data),
    )


@attack(CONSISTENCY, "was rewritten")
def the_operator_removes_an_entry_from_the_past(evidence: Evidence) -> Given:
    return _renumbered(evidence, lambda entries: entries.pop(1), shift=-1)


@attack(CONSISTENCY, "was rewritten")
def the_operator_slips_an_entry_into_the_past(evidence: Evidence) -> Given:
    return _renumbered(evidence, lambda entries: entries.insert(1, entries[5]), shift=1)


@attack(CONSISTENCY, "was rewritten")
def the_operator_swaps_two_entries_of_the_past(evidence: Evidence) -> Given:
    return _renumbered(evidence, lambda entries: entries.insert(1, entries.pop(2)), shift=0)


def _renumbered(evidence: Evidence, change: Callable[[list[Json]], Any], *, shift: int) -> Given:
    """The log with other entries, and everything that depends on them made to fit."""
    entries = list(evidence.log.entries)
    change(entries)
    log = evidence.log.of(entries)
    honest = evidence.main.parsed
    subjects = {json.loads(each["leaf"])["subject_id"] for each in honest["events"]}
    issued = log.find("certificate.issued", honest["request_id"])
    about = [e["position"] for e in log.entries[:issued] if e["subject_id"] in subjects]
    return evidence.reissued(
        evidence.main, lambda s: s["predicate"]["log"].update(positions=about), log, shift=shift
    )


@attack(CONSISTENCY, "rolled back")
def the_log_is_rolled_back_before_the_older_checkpoint(evidence: Evidence) -> Given:
    newer = evidence.log.appended(evidence.log.entries[-1])
    return replace(evidence.main, older=newer.checkpoint(evidence.signers))


@attack(CONSISTENCY, "certificate's checkpoint")
def the_log_is_rolled_back_before_the_certificate(evidence: Evidence) -> Given:
    done = evidence.log.find("request.completed", evidence.main.parsed["request_id"])
    short = evidence.log.of(evidence.log.entries[: done + 1])
    return evidence.rebuilt(evidence.main, short)


@attack(CONSISTENCY, "certificate's checkpoint")
def the_certificate_is_of_a_branch_of_the_log(evidence: Evidence) -> Given:
    """Splice: the certificate's checkpoint is of a log with a different beginning."""
    branch = evidence.log.edited(3, actor="api")
    size = read(evidence.main.statement["predicate"]["log"]["checkpoint"]).size
    done = evidence.log.find("request.completed", evidence.main.parsed["request_id"])
    spliced = {
        "completed": branch.entry(done, size),
        "checkpoint": branch.checkpoint(evidence.signers, size),
    }
    return evidence.resigned(evidence.main, lambda s: s["predicate"]["log"].update(spliced))


@attack(INCLUSION, "is not at position")
def two_logs_are_spliced(evidence: Evidence) -> Given:
    """Entries of one log under the checkpoint of another, signed by the same key."""
    branch = evidence.log.edited(3, actor="api")
    return with_note(evidence.main, lambda _: branch.checkpoint(evidence.signers))


@attack(CONSISTENCY, "is of the log")
def the_checkpoint_is_of_a_log_of_another_name(evidence: Evidence) -> Given:
    named = Log("lethe.example/other", evidence.log.entries)
    signers = [Signer(named.origin, signer.private) for signer in evidence.signers]
    return replace(with_note(evidence.main, lambda _: named.checkpoint(signers)), older=None)


@attack(CONSISTENCY, "no proof that the log continues the older checkpoint")
def the_proof_from_the_older_checkpoint_is_left_out(evidence: Evidence) -> Given:
    return evidence.main.changed(lambda bundle: bundle.update(consistency=None))


@attack(CONSISTENCY, "no proof that the log continues the certificate's checkpoint")
def the_proof_from_the_certificate_is_left_out(evidence: Evidence) -> Given:
    return evidence.main.changed(lambda bundle: bundle.update(certificate_consistency=None))


@attack(CONSISTENCY, "the proof starts from")
def the_proof_is_from_another_checkpoint(evidence: Evidence) -> Given:
    proof = evidence.log.continued(5)
    return evidence.main.changed(lambda bundle: bundle.update(consistency=proof))


@attack(CONSISTENCY, "was rewritten")
def the_proof_from_the_older_checkpoint_is_empty(evidence: Evidence) -> Given:
    return evidence.main.changed(lambda bundle: bundle["consistency"].update(proof=[]))


@attack(CONSISTENCY, "rolled back")
def an_anchor_is_of_a_longer_log(evidence: Evidence) -> Given:
    return evidence.main.changed(lambda bundle: bundle["anchors"][0].update(size=10**6))
