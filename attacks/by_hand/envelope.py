"""Attacks on the certificate's envelope: its payload and its signatures."""

from base64 import b64decode, b64encode

import rfc8785

from attacks.by_hand.forging import adding_to, mallory, result, with_envelope
from attacks.evidence import Evidence, Given
from attacks.judge import FORM, SIGNATURE, Attack

ATTACKS: list[Attack] = []
attack = adding_to(ATTACKS)


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
    """The signature is not over the payload with its type, as DSSE requires."""
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
