"""Valid rows by default, changed by keyword."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from domain import sample_digests
from domain.states import (
    Decision,
    JobKind,
    JobStatus,
    Mode,
    Objective,
    RegistrationStatus,
    RequestStatus,
    Split,
    Verdict,
    VersionStatus,
)
from domain.tables import (
    AlignmentScore,
    AuditEvent,
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Evaluation,
    Job,
    Model,
    ModelVersion,
    PooledAudit,
    RequestSample,
    ReviewDecision,
    Round,
    Sample,
    Tombstone,
    VerdictTest,
)

NOW = datetime.now(UTC)
KEY, GROUP_KEY = sample_digests.new_key(), sample_digests.new_key()

DEFINITION = {
    "columns": {"sample_id": "id", "input": "image", "label": "label", "split": "split"},
    "splits": {"train": "train", "holdout": "holdout", "test": "test"},
    "input_shape": None,
    "bad_rows": "refuse",
}


def dataset(**changes: Any) -> Dataset:
    values = {
        "id": uuid7(),
        "name": "digits",
        "uri": "file:///data/digits",
        "definition": DEFINITION,
        "tombstone_key": KEY,
        "group_key": GROUP_KEY,
        "status": RegistrationStatus.READY,
        "report": {"samples": {"train": 10, "holdout": 2, "test": 0}},
    }
    return Dataset(**values | changes)


def samples(of: Dataset, *, train: int = 10, holdout: int = 2) -> list[Sample]:
    """`t0`, `t1`, … and `h0`, `h1`, …"""
    named = [(f"t{n}", Split.TRAIN) for n in range(train)]
    named += [(f"h{n}", Split.HOLDOUT) for n in range(holdout)]
    return [
        Sample(dataset_id=of.id, sample_id=name, position=n, label=n % 2, split=split)
        for n, (name, split) in enumerate(named)
    ]


def model(of: Dataset, **changes: Any) -> Model:
    values = {
        "id": uuid7(),
        "name": "cnn",
        "dataset_id": of.id,
        "weights_uri": "file:///data/cnn.safetensors",
        "architecture": {"kind": "python", "factory": "nets.cnn:build", "arguments": {}},
        "head": "head",
        "preprocessing": {},
        "policy": {},
        "status": RegistrationStatus.READY,
    }
    return Model(**values | changes)


def job(*, finished: bool = False, **changes: Any) -> Job:
    values: dict[str, Any] = {"id": uuid7(), "kind": JobKind.UNLEARN}
    if finished:
        values |= {
            "status": JobStatus.COMPLETED,
            "progress": 1.0,
            "started_at": NOW - timedelta(seconds=30),
            "finished_at": NOW,
        }
    return Job(**values | changes)


def version(of: Model, by: Job, **changes: Any) -> ModelVersion:
    """Superseded ones are due three days later."""
    if "superseded_at" in changes:
        changes = {"purge_after": changes["superseded_at"] + timedelta(days=3), **changes}
    values = {
        "id": uuid7(),
        "model_id": of.id,
        "number": 1,
        "status": VersionStatus.CHAMPION,
        "job_id": by.id,
        "weights_sha256": (f"{9 + changes.get('number', 1):x}" * 64)[:64],
        "statistics_sha256": "b" * 64,
        "reservoir_sha256": "c" * 64,
        "figures": {"test_accuracy": 0.9},
    }
    return ModelVersion(**values | changes)


def request(of: Dataset, **changes: Any) -> DeletionRequest:
    values = {
        "id": uuid7(),
        "dataset_id": of.id,
        "objective": Objective.UNTRAIN_SAMPLES,
        "status": RequestStatus.PENDING,
        "samples": 1,
        "duplicates": 0,
        "received_at": NOW,
        "due_at": NOW + timedelta(days=30),
    }
    return DeletionRequest(**values | changes)


def request_samples(of: DeletionRequest, *ids: str) -> list[RequestSample]:
    return [RequestSample(request_id=of.id, sample_id=sample_id) for sample_id in ids]


def target(of: DeletionRequest, model: Model, **changes: Any) -> DeletionTarget:
    return DeletionTarget(**{"request_id": of.id, "model_id": model.id} | changes)


def tombstone(
    model: Model, by: Job, sample_id: str, *, key: bytes = KEY, **changes: Any
) -> Tombstone:
    """Of a model whose dataset has this key."""
    digest = sample_digests.digest(key, sample_id)
    return Tombstone(**{"model_id": model.id, "digest": digest, "job_id": by.id} | changes)


def tombstones(model: Model, by: Job, *ids: str) -> list[Tombstone]:
    return [tombstone(model, by, name) for name in ids]


def digest_of_group(name: str, *, key: bytes = GROUP_KEY) -> bytes:
    """Of a person or account, in a dataset with this key."""
    return sample_digests.digest(key, name)


SCORES = {
    "forget_accuracy": 0.7,
    "retain_accuracy": 0.99,
    "holdout_accuracy": 0.71,
    "da_forget": 0.81,
    "da_holdout": 0.8,
    "da_gap": 0.01,
    "da_gap_low": -0.01,
    "da_gap_high": 0.03,
}


def cycle(of: Job, number: int, **changes: Any) -> AlignmentScore:
    losses = {"loss_alignment": 0.1, "loss_distillation": 0.2, "loss_retain": 0.3}
    values = {"job_id": of.id, "round": 1, "cycle": number, "attempt": 1, **SCORES, **losses}
    return AlignmentScore(**values | changes)


def evaluation(of: Job, moment: str, **changes: Any) -> Evaluation:
    values = {"job_id": of.id, "moment": moment, "figures": {"test_accuracy": 0.9}, **SCORES}
    return Evaluation(**values | changes)


def pooled_audit(of: Job, **changes: Any) -> PooledAudit:
    values = {
        "job_id": of.id,
        "model_id": of.model_id,
        "version": 2,
        "verdict": Verdict.NO_POWER,
        "returned": False,
        "figures": {},
    }
    return PooledAudit(**values | changes)


def tried(of: Job, number: int = 1, **changes: Any) -> Round:
    values = {
        "job_id": of.id,
        "number": number,
        "mode": Mode.APPROXIMATE,
        "config": {"seed": 7},
        "verdict": Verdict.PASS,
        "reason": "every test passed",
        "alpha": 0.05,
        "permutations": 2000,
        "seed": 7,
        "kept": True,
    }
    return Round(**values | changes)


TEST = {
    "name": "alignment",
    "value": 0.01,
    "low": -0.02,
    "high": 0.04,
    "expected": 0.0,
    "threshold": 0.03,
    "p_value": 0.4,
    "forget_samples": 20,
    "holdout_samples": 100,
    "passed": True,
}


def audit_test(of: Round, moment: str, position: int = 0, **changes: Any) -> VerdictTest:
    keys = {"job_id": of.job_id, "round": of.number, "moment": moment, "position": position}
    return VerdictTest(**keys | TEST | changes)


def event(name: str, of: UUID, *, actor: str = "worker", **data: Any) -> AuditEvent:
    """Whatever it tells; the service records what `domain.events` has alone."""
    return AuditEvent(actor=actor, event=name, subject_id=of, data=data)


def decision(of: DeletionRequest, job: Job, **changes: Any) -> ReviewDecision:
    values = {
        "id": uuid7(),
        "request_id": of.id,
        "job_id": job.id,
        "decision": Decision.ACCEPT,
        "ground": "Ms. Miller agrees",
        "decided_by": "admin",
        "decided_at": NOW,
    }
    return ReviewDecision(**values | changes)
