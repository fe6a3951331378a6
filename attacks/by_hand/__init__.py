"""Handwritten attacks, one module for each part of the evidence."""

from attacks.by_hand import checkpoints, claims, entries, envelope, form, history, which_certificate

ATTACKS = [
    *entries.ATTACKS,
    *checkpoints.ATTACKS,
    *history.ATTACKS,
    *envelope.ATTACKS,
    *which_certificate.ATTACKS,
    *claims.ATTACKS,
    *form.ATTACKS,
]
