"""The attacks that somebody thought of."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import rfc8785

from attacks.evidence import Evidence, Given, Json, Log, Signer
from attacks.judge import Attack
from evidence import merkle
from evidence.signed_notes import Checkpoint, read, signed

FORM, SIGNATURE, INCLUSION, CONSISTENCY, CERTIFICATE, CONTENT = range(3, 9)

ATTACKS: list[Attack] = []
MALLORY = "mallory"
"""Whose key is not trusted."""


def attack(exit_status: int, says: str) -> Callable[[Callable[[Evidence], Given]], None]:
    """Register an attack under its function's name."""

    def register(act: Callable[[Evidence], Given]) -> None:
        ATTACKS.append(Attack(act.__name__.replace("_", " "), exit_status, says, act))

    return register


def place(given: Given, event: str) -> int:
    """Where the last such event stands in the bundle's list."""
    leaves = [json.loads(each["leaf"]) for each in given.parsed["events"]]
    return max(n for n, leaf in enumerate(leaves) if leaf["event"] == event)


def with_leaf(given: Given, event: str, change: Callable[[str], str]) -> Given:
    """Another text of one entry; nothing else."""
    at = place(given, event)

    def alter(bundle: Json) -> None:
        bundle["events"][at]["leaf"] = change(bundle["events"][at]["leaf"])

    return given.changed(alter)


def with_note(given: Given, change: Callable[[str], str]) -> Given:
    return given.changed(lambda bundle: bundle.update(checkpoint=change(bundle["checkpoint"])))


def with_envelope(given: Given, **fields: Any) -> Given:
    return given.changed(lambda bundle: bundle["certificate"].update(fields))


def said_of(given: Given, event: str) -> Json:
    """What the last such event says, the whole entry."""
    leaf = given.parsed["events"][place(given, event)]["leaf"]
    return dict(json.loads(leaf))


def result(statement: Json) -> Json:
    """What a statement says of its first model."""
    found: Json = statement["predicate"]["results"][0]
    return found


def mallory(evidence: Evidence) -> Signer:
    return Signer.of(evidence.log.origin, MALLORY)


# Entries of the log


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
    """Second preimage: the two children of a node, as the text of an entry."""
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


# Checkpoints and older states


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
    """The operator's keeper signs a log in which the event stands; the key in it signs what comes
    after."""
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


@attack(CONSISTENCY, "was rewritten")
def the_operator_rewrites_the_past(evidence: Evidence) -> Given:
    """The whole log anew, with the real key, against the checkpoint that the auditor kept."""
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
    """The log with other entries, and everything that follows from them made to fit."""
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
    """Splice: the certificate's checkpoint is of a log whose beginning was another."""
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


# The envelope of the certificate


@attack(SIGNATURE, "certificate's signature")
def the_certificate_is_edited(evidence: Evidence) -> Given:
    statement = evidence.main.statement
    result(statement)["model"] = "another"
    payload = b64encode(rfc8785.dumps(statement)).decode()
    return with_envelope(evidence.main, payload=payload)


@attack(SIGNATURE, "by: nobody")
def the_signature_of_the_certificate_is_stripped(evidence: Evidence) -> Given:
    return with_envelope(evidence.main, signatures=[])


@attack(SIGNATURE, "certificate is not signed by a trusted key")
def the_certificate_is_signed_by_an_unknown_key(evidence: Evidence) -> Given:
    payload = b64decode(evidence.main.parsed["certificate"]["payload"])
    envelope = mallory(evidence).envelope(payload)
    return evidence.main.changed(lambda bundle: bundle.update(certificate=envelope))


@attack(SIGNATURE, "certificate's signature")
def an_unknown_key_signs_under_the_id_of_a_known_one(evidence: Evidence) -> Given:
    honest = evidence.main.parsed["certificate"]
    forged = mallory(evidence).envelope(b64decode(honest["payload"]))["signatures"][0]
    keyid = honest["signatures"][0]["keyid"]
    return with_envelope(evidence.main, signatures=[{**forged, "keyid": keyid}])


@attack(SIGNATURE, "certificate's signature")
def the_payload_type_is_changed(evidence: Evidence) -> Given:
    return with_envelope(evidence.main, payloadType="application/json")


@attack(FORM, "payloadType")
def the_operator_signs_another_payload_type(evidence: Evidence) -> Given:
    payload = b64decode(evidence.main.parsed["certificate"]["payload"])
    envelope = evidence.signer.envelope(payload, "application/json")
    return evidence.main.changed(lambda bundle: bundle.update(certificate=envelope))


@attack(SIGNATURE, "certificate's signature")
def the_signature_is_over_the_payload_alone(evidence: Evidence) -> Given:
    """Not over the payload with its type, as DSSE has it."""
    honest = evidence.main.parsed["certificate"]
    raw = evidence.signer.private.sign(b64decode(honest["payload"]))
    signature = {**honest["signatures"][0], "sig": b64encode(raw).decode()}
    return with_envelope(evidence.main, signatures=[signature])


@attack(SIGNATURE, "certificate's signature")
def the_signature_of_the_checkpoint_is_put_on_the_certificate(evidence: Evidence) -> Given:
    honest = evidence.main.parsed
    line = honest["checkpoint"].splitlines()[-1]
    sig = b64encode(b64decode(line.split(" ")[2])[4:]).decode()
    signature = {**honest["certificate"]["signatures"][0], "sig": sig}
    return with_envelope(evidence.main, signatures=[signature])


@attack(FORM, "stands twice")
def the_certificate_has_a_key_twice(evidence: Evidence) -> Given:
    payload = b64decode(evidence.main.parsed["certificate"]["payload"])
    twice = payload.replace(b'"verdict":"pass"', b'"verdict":"fail","verdict":"pass"')
    envelope = evidence.signer.envelope(twice)
    return evidence.main.changed(lambda bundle: bundle.update(certificate=envelope))


# Which certificate it is


@attack(CERTIFICATE, "no certificate")
def the_certificate_is_left_out(evidence: Evidence) -> Given:
    return evidence.main.changed(lambda bundle: bundle.update(certificate=None))


@attack(CERTIFICATE, "certificate is of request")
def the_certificates_of_two_requests_are_swapped(evidence: Evidence) -> Given:
    envelope = evidence.other.parsed["certificate"]
    return evidence.rebuilt(evidence.main, evidence.log, envelope)


@attack(CERTIFICATE, "certificate is of request")
def the_bundle_is_said_to_be_of_another_request(evidence: Evidence) -> Given:
    request_id = evidence.other.parsed["request_id"]
    return evidence.main.changed(lambda bundle: bundle.update(request_id=request_id))


@attack(CERTIFICATE, "rests on request.completed of")
def the_certificate_is_relabelled_for_another_request(evidence: Evidence) -> Given:
    request_id = evidence.other.parsed["request_id"]
    relabelled = evidence.resigned(
        evidence.main, lambda s: s["predicate"]["request"].update(id=request_id)
    )
    return relabelled.changed(lambda bundle: bundle.update(request_id=request_id))


@attack(CERTIFICATE, "a later certificate was issued")
def an_old_certificate_is_replayed(evidence: Evidence) -> Given:
    return evidence.rebuilt(evidence.main, evidence.log, evidence.replaced)


@attack(CERTIFICATE, "no certificate.issued in the log has this certificate's hash")
def a_second_certificate_is_signed_that_the_log_does_not_name(evidence: Evidence) -> Given:
    return evidence.resigned(
        evidence.main, lambda s: s["predicate"]["issued"].update(at="2026-03-02T12:00:00.000000Z")
    )


@attack(CERTIFICATE, "not numbered")
def an_earlier_certificate_is_left_out(evidence: Evidence) -> Given:
    """Its event too; the certificate does not name it, so nothing else shows it."""
    bundle = evidence.main.parsed
    first = next(n for n, e in enumerate(bundle["events"]) if '"certificate.issued"' in e["leaf"])
    gone = bundle["events"][first]["position"]
    honest = evidence.main.statement["predicate"]["log"]["positions"]
    positions = [position for position in honest if position != gone]
    forged = evidence.reissued(
        evidence.main, lambda s: s["predicate"]["log"].update(positions=positions)
    )
    without_history = replace(forged, older=None)
    return without_history.changed(lambda b: b["events"].pop(first))


@attack(CERTIFICATE, "leaves out events")
def a_certificate_hides_an_event(evidence: Evidence) -> Given:
    honest = evidence.failed.statement["predicate"]["log"]["positions"]
    hidden = said_of(evidence.failed, "request.decided")["position"]
    positions = [position for position in honest if position != hidden]
    return evidence.reissued(
        evidence.failed, lambda s: s["predicate"]["log"].update(positions=positions)
    )


@attack(CERTIFICATE, "younger than itself")
def a_certificate_names_events_to_come(evidence: Evidence) -> Given:
    honest = evidence.main.statement["predicate"]["log"]["positions"]
    later = said_of(evidence.main, "certificate.issued")["position"]
    return evidence.reissued(
        evidence.main,
        lambda s: s["predicate"]["log"].update(positions=[*honest, later]),
    )


# What the certificate says. The operator issues it falsely: signed, and named in the log.


@attack(CONTENT, "job.completed")
def a_verdict_is_upgraded(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        said = result(statement)
        said.update(verdict="pass")
        for test in said["tests"]:
            if test["moment"] == "after":
                test.update(passed=True, p_value=0.9)
        statement["predicate"]["scope"]["statement"] = "Model cnn: well."

    return evidence.reissued(evidence.failed, alter)


@attack(CONTENT, "does not follow from the tests")
def a_verdict_is_upgraded_beside_failed_tests(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.failed, lambda s: result(s).update(verdict="pass"))


@attack(CONTENT, "does not follow from its figures")
def a_failed_test_is_called_passed(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.failed, lambda s: result(s)["tests"][1].update(passed=True))


@attack(CONTENT, "does not follow from its figures")
def a_guard_is_called_passed_above_its_limit(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s)["tests"][2].update(low=0.5))


@attack(CONTENT, "does not follow from the tests")
def a_pass_has_no_tests(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s).update(tests=[]))


@attack(CONTENT, "does not follow from the tests")
def a_pass_hides_that_the_tests_had_no_power(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s)["tests"].pop(0))


@attack(CONTENT, "where the verdict is not pass")
def words_of_success_stand_beside_a_fail(evidence: Evidence) -> Given:
    words = "Model cnn: the samples were forgotten."
    return evidence.reissued(
        evidence.failed, lambda s: s["predicate"]["scope"].update(statement=words)
    )


@attack(CONTENT, "where the verdict is not pass")
def words_of_success_stand_in_a_line_of_their_own(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        statement["predicate"]["scope"]["statement"] += "\nIn short: a success."

    return evidence.reissued(evidence.failed, alter)


@attack(CONTENT, "no certificate can say")
def the_certificate_calls_itself_a_guarantee(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        statement["predicate"]["scope"]["statement"] += " This is guaranteed."

    return evidence.reissued(evidence.main, alter)


@attack(CONTENT, "says nothing about model")
def the_statement_is_about_another_model(evidence: Evidence) -> Given:
    words = "Model vit: influence reduced."
    return evidence.reissued(
        evidence.main, lambda s: s["predicate"]["scope"].update(statement=words)
    )


@attack(FORM, "not_proven")
def nothing_is_said_not_to_be_proven(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: s["predicate"]["scope"].update(not_proven=[]))


@attack(CONTENT, "version.created")
def the_new_weights_are_swapped(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        digest = result(statement)["before"]["weights_sha256"]
        result(statement)["after"]["weights_sha256"] = digest
        statement["subject"][0]["digest"]["sha256"] = digest

    return evidence.reissued(evidence.main, alter)


@attack(CONTENT, "before.weights_sha256")
def the_old_weights_are_swapped(evidence: Evidence) -> Given:
    return evidence.reissued(
        evidence.main, lambda s: result(s)["before"].update(weights_sha256="0" * 64)
    )


@attack(CONTENT, "subject")
def the_statement_is_about_weights_that_its_results_do_not_name(evidence: Evidence) -> Given:
    digest = {"sha256": "0" * 64}
    return evidence.reissued(evidence.main, lambda s: s["subject"][0].update(digest=digest))


@attack(CONTENT, "no version.created")
def a_version_is_named_that_was_never_made(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        result(statement)["after"]["version"] = 9
        statement["subject"][0]["name"] = "cnn/versions/9"

    return evidence.reissued(evidence.main, alter)


@attack(CONTENT, "kind")
def an_approximate_version_is_called_exact(evidence: Evidence) -> Given:
    def alter(statement: Json) -> None:
        result(statement).update(kind="exact", oracle_used=True)
        result(statement)["method"]["mode"] = "exact"

    return evidence.reissued(evidence.main, alter)


@attack(CONTENT, "oracle_used")
def an_oracle_is_claimed(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s).update(oracle_used=True))


@attack(CONTENT, "nothing to forget")
def a_version_is_hidden_behind_nothing_to_forget(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: result(s).update(kind="nothing_to_forget"))


@attack(CONTENT, "approval")
def the_approval_of_a_failed_version_is_left_out(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.failed, lambda s: result(s).update(approval=None))


@attack(CONTENT, "decided_by")
def somebody_else_is_said_to_have_approved(evidence: Evidence) -> Given:
    return evidence.reissued(
        evidence.failed, lambda s: result(s)["approval"].update(decided_by="board")
    )


@attack(CONTENT, "purged_at")
def weights_are_said_to_be_deleted_that_were_not(evidence: Evidence) -> Given:
    """The entry of their deletion is made another, after the older checkpoint."""
    entries = list(evidence.log.entries)
    purged = next(e["position"] for e in entries if e["event"] == "version.purged")
    log = evidence.log.edited(purged, event="version.looked_at")
    return evidence.reissued(evidence.main, lambda _: None, log)


@attack(CONTENT, "purged_at: the log says")
def weights_are_said_to_be_deleted_that_were_kept(evidence: Evidence) -> Given:
    """The entry says that another version still had them."""
    entries = list(evidence.log.entries)
    purged = next(e for e in entries if e["event"] == "version.purged")
    log = evidence.log.edited(purged["position"], data={**purged["data"], "kept": ["weights"]})
    return evidence.reissued(evidence.main, lambda _: None, log)


@attack(CONTENT, "request.commitment")
def the_commitment_is_another(evidence: Evidence) -> Given:
    """A commitment to other sample ids than the request had."""
    return evidence.reissued(
        evidence.main, lambda s: s["predicate"]["request"].update(commitment="0" * 64)
    )


@attack(CONTENT, "request.samples")
def fewer_samples_are_said_to_have_been_named(evidence: Evidence) -> Given:
    return evidence.reissued(evidence.main, lambda s: s["predicate"]["request"].update(samples=2))


@attack(CONTENT, "request.completed_at")
def the_completion_is_dated_back(evidence: Evidence) -> Given:
    at = "2026-03-01T08:00:00.000000Z"
    return evidence.reissued(
        evidence.main, lambda s: s["predicate"]["request"].update(completed_at=at)
    )


@attack(CONTENT, "issued.at")
def the_certificate_is_dated_back(evidence: Evidence) -> Given:
    at = "2026-03-01T08:00:00.000000Z"
    return evidence.reissued(evidence.main, lambda s: s["predicate"]["issued"].update(at=at))


@attack(CONTENT, "results")
def the_result_of_another_model_is_shown(evidence: Evidence) -> Given:
    other = said_of(evidence.main, "job.completed")["subject_id"]
    return evidence.reissued(evidence.main, lambda s: result(s).update(model_id=other))


# The form


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
