"""The inputs of certificates: rows of completed requests, a log, and a key."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from uuid import UUID

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from uuid_utils.compat import uuid7

from devstack import local
from domain.states import Mode, RequestStatus, Verdict, VersionStatus
from evidence import accuracy, advantage, fine_tuned, merkle, signed_notes
from evidence.statement import Case, Entry, Keyed, Log, Outcome, instant
from tests import factories

SCHEMA = json.loads((local.REPOSITORY / "verifier/predicate.schema.json").read_text())
ORIGIN = "lethe.example/log"
KEYED = Keyed(commitment="1" * 64, subject_ref="2" * 64, reason="3" * 64)
ENVIRONMENT = {
    "lethe": "0.1.0",
    "code_sha256": "d" * 64,
    "python": "3.11.9",
    "torch": "2.13.0",
    "cuda": "none",
    "device": "cpu",
}
CONFIG = {"objective": "untrain_samples", "cycles": 3, "forget_lr": 0.1, "anneal": True,
          "k": None, "seed": 7}  # fmt: skip
PRIVATE = Ed25519PrivateKey.generate()
KEY_ID = sha256(PRIVATE.public_key().public_bytes_raw()).hexdigest()


def signer() -> CryptoSigner:
    return CryptoSigner(PRIVATE, SSlibKey.from_crypto(PRIVATE.public_key(), keyid=KEY_ID))


def log(request_id: UUID, *also: str, before: int = 2) -> Log:
    """A log: `before` events of others, then the request received, completed, and `also`."""
    names = ["model.registered"] * before + ["request.received", "request.completed", *also]
    subjects = [uuid7() for _ in range(before)] + [request_id] * (len(names) - before)
    leaves = [
        rfc8785.dumps(
            {
                "actor": "worker",
                "at": instant(factories.NOW),
                "data": {},
                "event": name,
                "id": position + 1,
                "position": position,
                "subject_id": str(subject),
            }
        )
        for position, (name, subject) in enumerate(zip(names, subjects, strict=True))
    ]
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    nodes, completed = merkle.grow(0, {}, hashes), before + 1
    checkpoint = signed_notes.Checkpoint(ORIGIN, len(leaves), merkle.root_of(hashes))
    key = signed_notes.NoteKey(ORIGIN, PRIVATE.public_key().public_bytes_raw(), PRIVATE.sign)
    return Log(
        origin=ORIGIN,
        events=list(enumerate(names))[before:],
        completed=Entry(
            position=completed,
            leaf=leaves[completed].decode(),
            proof=[merkle.hash_of(s, nodes) for s in merkle.inclusion(completed, len(leaves))],
        ),
        checkpoint=signed_notes.signed(checkpoint, [key]),
    )


@dataclass(frozen=True)
class Story:
    """Rows that tell of a completed request, in the order in which they can be stored."""

    case: Case
    rows: list[Any]


def changed(
    *,
    mode: Mode = Mode.APPROXIMATE,
    verdict: Verdict | None = Verdict.PASS,
    **changes: Any,
) -> Story:
    """A model was changed or retrained: version 1 made way for version 2.

    A verdict `fail` was accepted by a person; None stands for a job without an audit.
    """
    dataset = factories.dataset()
    model = factories.model(dataset)
    request = completed(dataset, samples=30, **changes)
    registration = factories.job(model_id=model.id, kind="register_model", finished=True)
    job = factories.job(
        model_id=model.id,
        finished=True,
        mode=mode,
        mode_reason="The model is changed.",
        verdict=verdict,
        config=CONFIG,
        environment=ENVIRONMENT,
    )
    old = factories.version(
        model, registration, status=VersionStatus.SUPERSEDED, superseded_at=factories.NOW,
        figures={"test_accuracy": 0.9, "accuracy_check": ACCEPTED},
    )  # fmt: skip
    new = factories.version(
        model, job, number=2, mode=mode, parent_id=old.id, weights_sha256="e" * 64
    )
    done = RequestStatus.COMPLETED
    target = factories.target(
        request, model, job_id=job.id, status=done, already_forgotten=0, not_trained_on=0
    )
    kept = factories.tried(job, mode=mode, verdict=verdict, config=CONFIG) if verdict else None
    audited = [
        factories.audit_test(kept, moment, **figures)
        for moment, figures in (tests_of(verdict) if verdict else ())
    ]
    accepted = factories.decision(request, job) if verdict is Verdict.FAIL else None
    measured = [factories.evaluation(job, moment, figures=FIGURES[moment]) for moment in FIGURES]
    outcome = Outcome(
        model=model,
        target=target,
        before=old,
        old=[old],
        job=job,
        after=new,
        round=kept,
        tests=audited,
        acceptance=accepted,
        accuracy=accuracy.report(FIGURES["before"], FIGURES["after"]),
        advantage=advantage.report(FIGURES["before"], FIGURES["after"]),
        fine_tuned=fine_tuned.report(FIGURES["after"]),
        pooled_audit=POOLED,
    )
    together = factories.pooled_audit(
        job,
        **{name: POOLED[name] for name in ("version", "verdict", "returned")},
        figures=POOLED | NOT_CERTIFIED,
    )
    rows = [
        dataset, model, registration, job, together, *measured, old, new, request, target, kept,
        *audited, accepted,
    ]  # fmt: skip
    case = Case(request=request, outcomes=[outcome], log=log(request.id), keyed=KEYED)
    return Story(case, [row for row in rows if row is not None])


def declared(*, accepted: Sequence[str] = (), **changes: Any) -> Story:
    """Somebody registered version 2, which was trained elsewhere: without the samples, as was
    declared."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    request = completed(dataset, samples=30, **changes)
    registration = factories.job(model_id=model.id, kind="register_model", finished=True)
    old = factories.version(
        model, registration, status=VersionStatus.SUPERSEDED, superseded_at=factories.NOW
    )
    job = factories.job(
        model_id=model.id, kind="register_version", finished=True, mode=Mode.EXACT,
        base_version_id=old.id,
    )  # fmt: skip
    told = {
        "trained_on": 970, "trained_on_sha256": "f" * 64, "left_out": 30, "accepted": [*accepted],
    }  # fmt: skip
    check = ACCEPTED | {"accepted": False}
    new = factories.version(
        model, job, number=2, weights_sha256="e" * 64,
        figures={"declared": told, "accuracy_check": check},
    )  # fmt: skip
    target = factories.target(
        request, model, job_id=job.id, status=RequestStatus.COMPLETED, already_forgotten=0,
        not_trained_on=0,
    )  # fmt: skip
    outcome = Outcome(model=model, target=target, before=old, old=[old], job=job, after=new)
    case = Case(request=request, outcomes=[outcome], log=log(request.id), keyed=KEYED)
    rows = [dataset, model, registration, old, job, new, request, target]
    return Story(case, rows)


FIGURES = {
    moment: {
        "every_class": {
            "measured_on": "test", "samples": [60, 40], "right": [54, right],
        },
        "lost_classes": [1],
        "advantage": {
            "bound": bound, "observed": observed, "pairs": 30, "forgotten": 30, "grouped": False,
            "confidence": 0.95,
        },
    }
    for moment, right, bound, observed in (("before", 36, 0.98, 0.9), ("after", 0, 0.713, 0.504))
}  # fmt: skip
FIGURES["after"]["fine_tuned"] = {
    "steps": 100, "samples": 900, "membership_auc_before": 0.504, "membership_auc_after": 0.503,
}  # fmt: skip
"""Class 1 lost all of its training samples."""

POOLED = {
    "version": 2, "verdict": "no_power", "returned": False, "requests": 3, "samples": 40,
    "remeasured": 30, "units": 40, "pairs": 36, "observed": 0.51, "low": 0.3, "high": 0.72,
    "days": 90,
}  # fmt: skip
"""What all that the model had forgotten says together."""

NOT_CERTIFIED = {"p_value": 1.0, "observed_before": 0.8, "p_value_before": 0.001, "reason": "So."}
"""Figures of a pooled audit that no certificate repeats."""

ACCEPTED = {
    "accepted": True, "objections": ["no_better_than_chance"], "train": 0.51, "train_samples": 100,
    "train_class_mean": 0.5, "holdout": 0.5, "holdout_samples": 40, "chance": 0.5, "expected": None,
}  # fmt: skip
"""What registration found of a model whose accuracy was accepted."""

TOLD_APART = {
    "name": "membership_loss",
    "value": 0.91,
    "low": 0.85,
    "high": 0.97,
    "expected": 0.5,
    "threshold": 0.06,
    "p_value": 0.0005,
    "passed": False,
}
NOT_TOLD_APART = TOLD_APART | {
    "value": 0.52,
    "low": 0.46,
    "high": 0.58,
    "p_value": 0.62,
    "passed": True,
}
GUARD = {
    "name": "test_accuracy",
    "value": 0.004,
    "low": -0.003,
    "high": None,
    "expected": 0.0,
    "threshold": 0.03,
    "p_value": 1.0,
    "forget_samples": 0,
    "holdout_samples": 1000,
}


def tests_of(verdict: Verdict) -> list[tuple[str, dict[str, Any]]]:
    """Tests from which a verdict follows, by moment."""
    before = NOT_TOLD_APART if verdict is Verdict.NO_POWER else TOLD_APART
    after = TOLD_APART if verdict is Verdict.FAIL else NOT_TOLD_APART
    return [("before", before), ("after", after), ("guard", GUARD)]


def untouched(*, already_forgotten: int = 1, not_trained_on: int = 0, **changes: Any) -> Story:
    """Nothing was to be forgotten when the request came in: it was completed at once."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    registration = factories.job(model_id=model.id, kind="register_model", finished=True)
    version = factories.version(model, registration)
    request = completed(dataset, **changes)
    target = factories.target(
        request,
        model,
        status=RequestStatus.COMPLETED,
        already_forgotten=already_forgotten,
        not_trained_on=not_trained_on,
    )
    outcome = Outcome(model=model, target=target, before=version, old=[])
    case = Case(request=request, outcomes=[outcome], log=log(request.id), keyed=KEYED)
    return Story(case, [dataset, model, registration, version, request, target])


def completed(dataset: Any, **changes: Any) -> Any:
    values = {"status": RequestStatus.COMPLETED, "exact": False, "finished_at": factories.NOW}
    return factories.request(dataset, **values | changes)


def of_two(first: Story, second: Story) -> Case:
    """One request to two models."""
    outcomes = [*first.case.outcomes, *second.case.outcomes]
    return replace(first.case, outcomes=outcomes)


WAYS_TO_CHANGE = {
    "changed": changed(),
    "retrained": changed(mode=Mode.EXACT, exact=True),
    "accepted": changed(verdict=Verdict.FAIL),
    "without power": changed(verdict=Verdict.NO_POWER),
    "without audit": changed(verdict=None),
}
