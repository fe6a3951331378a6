"""What a certificate says: an in-toto statement about one completed request.

Pure: rows that were read go in, JSON comes out. Its form is `verifier/predicate.schema.json`.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from domain.events import CertificateIssued
from domain.states import Mode, RowsStatus
from domain.tables import (
    DeletionRequest,
    DeletionTarget,
    Job,
    Model,
    ModelVersion,
    ReviewDecision,
    Round,
    VerdictTest,
)
from domain.trail import instant
from evidence import subjects, wording
from evidence.subjects import LookedUp
from evidence.wording import Kind

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:lethe:unlearning:v1"

METHODS = {
    Mode.APPROXIMATE: "alternating alignment and distillation",
    Mode.EXACT: "retraining",
}
REFIT = "refit of the head on a frozen backbone"
"""The name of exact mode where nothing else was trained."""
TEST = (
    "moment", "name", "value", "low", "high", "expected", "threshold", "p_value",
    "forget_samples", "holdout_samples", "passed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event in the log, and the proof that the checkpoint covers it."""

    position: int
    leaf: str
    proof: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the log says of a request, at a checkpoint that covers its completion."""

    origin: str
    events: Sequence[tuple[int, str]]
    """Position and name of every event about the request, in their order."""

    completed: Entry
    """Its `request.completed`."""

    checkpoint: str
    """The signed note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """What stands for personal data, made with the request's own key, in hex.

    All empty for a request that was received before there were such keys.
    """

    commitment: str | None = None
    subject_ref: str | None = None
    reason: str | None = None
    grounds: Mapping[UUID, str] = field(default_factory=dict)
    """Of acceptances, by the jobs whose outcome they are about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """When the weights of a version are, and were, deleted."""

    due_at: datetime | None = None
    purged_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a request for one model."""

    model: Model
    target: DeletionTarget
    before: ModelVersion
    """The version that was served until then, and still is where there is no `after`."""

    old: Sequence[ModelVersion]
    """Superseded versions that may hold the samples, by their numbers."""

    job: Job | None = None
    after: ModelVersion | None = None
    """The version that was made to forget the samples."""

    round: Round | None = None
    """The one that `after` comes from; None where there was no audit."""

    tests: Sequence[VerdictTest] = ()
    """Of that round, in the order of the audit."""

    acceptance: ReviewDecision | None = None
    """The decision to serve `after` in spite of its verdict."""

    accuracy: Mapping[str, Any] | None = None
    """As `evidence.accuracy` reports it; None where it was not measured."""

    advantage: Mapping[str, Any] | None = None
    """As `evidence.advantage` reports it; None where it was not measured."""

    fine_tuned: Mapping[str, Any] | None = None
    """As `evidence.fine_tuned` reports it; None where it was not measured."""

    pooled_audit: Mapping[str, Any] | None = None
    """What all that the model had forgotten said together when `after` was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the log says of the samples' rows in the files of a dataset that erases."""

    status: RowsStatus
    left: int | None = None
    at: datetime | None = None
    """When a job that was to erase them last ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that a certificate rests on, but for its number and its time."""

    request: DeletionRequest
    outcomes: Sequence[Outcome]
    """One for each model, by their names."""

    log: Log
    keyed: Keyed = Keyed()
    purges: Mapping[UUID, Purge] = field(default_factory=dict)
    """By version."""

    rows: Rows | None = None
    """None where the dataset does not erase."""

    looked_up: LookedUp | None = None
    """None where the request named no subject."""


def statement(case: Case, *, number: int, at: datetime) -> dict[str, Any]:
    """The statement to sign.

    Args:
        number: of the certificate, from 1 for each request.
        at: when it is issued.
    """
    results = [_result(case, outcome) for outcome in case.outcomes]
    return {
        "_type": STATEMENT_TYPE,
        "subject": _subject(case),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "request": _request(case.request, case.keyed, case.looked_up),
            "results": results,
            **_rows(case.rows),
            "scope": _scope(case, results),
            "log": _log(case.log),
            "issued": {"number": number, "at": instant(at)},
        },
    }


def _scope(case: Case, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What it means, and what it does not prove; about subjects first."""
    looked_up, erased = (
        case.looked_up,
        case.rows is not None and case.rows.status is RowsStatus.GONE,
    )
    said = wording.statement(results, nothing_found=case.request.samples == 0)
    not_proven = wording.not_proven(case.request.objective, results, erased=erased)
    if looked_up is None:
        return {"statement": said, "not_proven": not_proven}
    named = case.request.samples
    outside = named > 0 and all(result["not_trained_on"] == named for result in results)
    return {
        "statement": f"{subjects.statement(looked_up, outside_training=outside)}\n{said}",
        "not_proven": [*subjects.not_proven(looked_up), *not_proven],
    }


def says_more(new: Mapping[str, Any], old: Mapping[str, Any], log: Log) -> bool:
    """Whether a statement says more than an older one about the same request.

    That the older one was issued is no news, nor is a newer checkpoint.

    Args:
        log: from which the new one was made.
    """
    told = set(old["predicate"]["log"]["positions"])
    news = {position for position, event in log.events if event != CertificateIssued.event} - told
    same = all(
        new["predicate"][part] == old["predicate"][part] for part in ("request", "results", "scope")
    )
    return bool(news) or not same


def _rows(rows: Rows | None) -> dict[str, Any]:
    """What is said of the rows. Certificates of datasets that do not erase have no such member, nor
    have those of earlier releases."""
    if rows is None:
        return {}
    said = {
        "status": rows.status,
        "left": rows.left,
        "at": _maybe(rows.at),
        "meaning": wording.ROWS[rows.status],
    }
    return {"rows": said}


def _subject(case: Case) -> list[dict[str, Any]]:
    """The new versions. Where there is none, the request, by its commitment; by the entry that
    completed it if it has no commitment."""
    made = [
        {
            "name": f"{outcome.model.name}/versions/{outcome.after.number}",
            "digest": {"sha256": outcome.after.weights_sha256},
        }
        for outcome in case.outcomes
        if outcome.after is not None
    ]
    digest = case.keyed.commitment or sha256(case.log.completed.leaf.encode()).hexdigest()
    return made or [{"name": f"request/{case.request.id}", "digest": {"sha256": digest}}]


def _request(request: DeletionRequest, keyed: Keyed, looked_up: LookedUp | None) -> dict[str, Any]:
    """What was asked. Certificates of requests that name no subject have no such member."""
    return {
        "id": str(request.id),
        "received_at": instant(request.received_at),
        "due_at": instant(request.due_at),
        "completed_at": _maybe(request.finished_at),
        "objective": request.objective,
        "exact_asked": request.exact,
        "samples": request.samples,
        "duplicates": request.duplicates,
        "commitment": keyed.commitment,
        "subject_ref_hmac": keyed.subject_ref,
        "reason_hmac": keyed.reason,
        **({} if looked_up is None else {"subjects": looked_up.said()}),
    }


def _result(case: Case, outcome: Outcome) -> dict[str, Any]:
    """What came of one model.

    `oracle_used` says whether a model trained without the samples was judged by the audit: so it is
    where the version itself was retrained. The audit of a changed version compares with samples
    that were never trained on, not with a retrained model. Reference models are none: each saw a
    half of the data, and a test that uses them says so by its name.
    """
    target, after, tried = outcome.target, outcome.after, outcome.round
    declared = _kind(after) is Kind.DECLARED
    return {
        "model": outcome.model.name,
        "model_id": str(outcome.model.id),
        "status": target.status,
        "kind": _kind(after),
        "verdict": tried.verdict if tried else None,
        "before": _version(outcome.before),
        "after": _version(after) if after else None,
        "method": None if declared or not after else _method(outcome.job, after),
        "tests": [{name: getattr(test, name) for name in TEST} for test in outcome.tests],
        "alpha": tried.alpha if tried else None,
        "permutations": tried.permutations if tried else None,
        "audit_seed": tried.seed if tried else None,
        "oracle_used": after is not None and after.mode is Mode.EXACT and not declared,
        "already_forgotten": target.already_forgotten,
        "not_trained_on": target.not_trained_on,
        "approval": _approval(outcome, case.keyed),
        "purge": {"superseded_weights": [_old(version, case.purges) for version in outcome.old]},
        **_measured(outcome),
    }


def _measured(outcome: Outcome) -> dict[str, Any]:
    """What is told of the model's accuracy and of guesses about the samples, where there is
    something to tell: certificates of earlier releases have no such member."""
    told: dict[str, Any] = {}
    if outcome.accuracy is not None:
        told["accuracy"] = outcome.accuracy
    if outcome.advantage is not None:
        told["advantage"] = outcome.advantage
    if outcome.fine_tuned is not None:
        told["fine_tuned"] = outcome.fine_tuned
    if outcome.pooled_audit is not None:
        told["pooled_audit"] = outcome.pooled_audit
    served = outcome.after or outcome.before
    if (declared := served.figures.get("declared")) is not None:
        told["declared"] = {"version": served.number, **declared}
    check = (served if declared else outcome.before).figures.get("accuracy_check")
    if check is not None and check["accepted"]:
        names = ("accepted", "objections", "train", "train_samples", "holdout", "holdout_samples")
        told["accepted_accuracy"] = {name: check[name] for name in names}
    return told


def _kind(after: ModelVersion | None) -> Kind:
    """How the version came to be that was made, if one was."""
    if after is None:
        return Kind.NOTHING_TO_FORGET
    return Kind.DECLARED if "declared" in after.figures else Kind(after.mode)


def _version(version: ModelVersion) -> dict[str, Any]:
    return {"version": version.number, "weights_sha256": version.weights_sha256}


def _method(job: Job | None, made: ModelVersion) -> dict[str, Any] | None:
    if job is None:
        return None
    config = job.config or {}
    libraries = dict(job.environment or {})
    device, code, digest = (
        libraries.pop(name, None) for name in ("device", "lethe", "code_sha256")
    )
    return {
        "name": REFIT if "backbone" in config else METHODS[made.mode],
        "mode": made.mode,
        "mode_reason": job.mode_reason,
        "config": config,
        "seed": config.get("seed"),
        "code_version": f"{code}+sha256.{digest}" if code and digest else code,
        "libraries": libraries,
        "device": device,
    }


def _approval(outcome: Outcome, keyed: Keyed) -> dict[str, Any] | None:
    """The decision. It names the job that it was about, where another made this version."""
    decision, target = outcome.acceptance, outcome.target
    if decision is None:
        return None
    other = decision.job_id != target.job_id
    return {
        **({"accepted_job": str(decision.job_id)} if other else {}),
        "decision": decision.decision,
        "decided_by": decision.decided_by,
        "decided_at": instant(decision.decided_at),
        "ground_hmac": keyed.grounds.get(decision.job_id),
    }


def _old(version: ModelVersion, purges: Mapping[UUID, Purge]) -> dict[str, Any]:
    purge = purges.get(version.id, Purge())
    return {
        **_version(version),
        "due_at": _maybe(purge.due_at),
        "purged_at": _maybe(purge.purged_at),
    }


def _log(log: Log) -> dict[str, Any]:
    return {
        "origin": log.origin,
        "positions": [position for position, _ in log.events],
        "completed": {
            "position": log.completed.position,
            "leaf": log.completed.leaf,
            "proof": [b64encode(sibling).decode() for sibling in log.completed.proof],
        },
        "checkpoint": log.checkpoint,
    }


def _maybe(at: datetime | None) -> str | None:
    return None if at is None else instant(at)
