"""Attacks that present a certificate other than the valid one."""

from dataclasses import replace

from attacks.by_hand.forging import adding_to, said_of
from attacks.evidence import Evidence, Given
from attacks.judge import CERTIFICATE, Attack

ATTACKS: list[Attack] = []
attack = adding_to(ATTACKS)


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
    """Its event is removed too; the certificate does not name it, so nothing else reveals it."""
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
