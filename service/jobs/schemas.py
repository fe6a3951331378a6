"""What comes out of the routes of jobs."""

from typing import Any
from uuid import UUID

from domain.policy import Escalation
from domain.states import JobKind, JobStatus, Mode, Objective, Verdict
from service.fields import Failure, Instant, Out, Scores, VersionBrief


class CycleRead(Scores):
    """The scores and losses after one cycle: a forget phase and a recover phase."""

    round: int
    cycle: int
    attempt: int
    """The attempt of the job that measured them."""

    loss_alignment: float
    loss_distillation: float
    loss_retain: float
    created_at: Instant


class EvaluationRead(Scores):
    """Everything measured before or after a job."""

    figures: dict[str, Any]
    """The remaining figures, by name, with the numbers of samples they rest on."""


class TestRead(Out):
    """One test of an audit, with what it was held against."""

    name: str
    value: float
    low: float | None
    """With `high`, the interval of the value, simultaneous over the family."""

    high: float | None
    expected: float | None
    """What it is for samples the model was never trained on."""

    threshold: float | None
    p_value: float | None
    """Adjusted for the family."""

    forget_samples: int
    holdout_samples: int
    passed: bool


class AuditRead(Out):
    """What the audit said of one round: one try of the job at a version.

    The hold-out samples it compares with played no part in the job.
    """

    round: int
    step: Escalation | None
    """What was tried because the round before failed; null for the first."""

    mode: Mode
    kept: bool
    """Whether the job's version comes from this round."""

    verdict: Verdict
    reason: str
    """Which tests decided, in words."""

    meaning: str
    """What the verdict says, and no more."""

    alpha: float | None
    """Chance that the family of tests rejects a model that was never trained on the samples. Null,
    like all figures, where the round broke off before there was anything to audit."""

    permutations: int | None
    seed: int | None
    config: dict[str, Any]
    """The configuration of the round."""

    before: list[TestRead]
    """The family of tests on the version that knew the samples: can they tell?"""

    after: list[TestRead]
    """The same on the new version."""

    guards: list[TestRead]
    """What the new version must have kept, and a removed class must have lost."""


class JobSummary(Out):
    """One piece of work, and how far it is."""

    id: UUID
    kind: JobKind
    status: JobStatus
    model: str | None
    dataset: str | None
    attempt: int
    """How often a worker took it."""

    losses: int
    """How often its worker was lost; too often, and it fails."""

    phase: str | None
    """What it is doing now, for people."""

    progress: float
    """Share of the work that is done, 0 to 1."""

    requests: int
    """How many deletion requests it serves."""

    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    duration_seconds: float | None
    """From its first start to its end."""

    failure: Failure | None


class JobRead(JobSummary):
    """A job with how it ran and what it measured."""

    worker: str | None
    lease_until: Instant | None
    """Until when its worker holds it; a worker that falls silent loses it."""

    not_before: Instant | None
    """Until then nobody takes it: the last attempt found the machine at fault."""

    objective: Objective | None
    config: dict[str, Any] | None
    """The full configuration of the method, as it ran, the seed included."""

    environment: dict[str, Any] | None
    """Code version, library versions and device it ran with."""

    base_version: VersionBrief | None
    """The version it started from."""

    new_version: VersionBrief | None
    """The version it made."""

    mode: Mode | None
    """How it makes its version; null until that is decided."""

    mode_reason: str | None
    """Why so."""

    verdict: Verdict | None
    audit: AuditRead | None
    """What the verdict rests on; of the round whose version was kept."""

    rounds: list[AuditRead]
    """All that was tried, in this order: after a `fail`, what the model's policy says."""

    before: EvaluationRead | None
    cycles: list[CycleRead]
    after: EvaluationRead | None


class AlignmentPoint(Out):
    """Dimensional alignment at one moment, in [0, 1]: forget samples, hold-out, and their gap."""

    da_forget: float
    da_holdout: float | None
    da_gap: float | None
    da_gap_low: float | None
    da_gap_high: float | None


class AlignmentCycle(AlignmentPoint):
    round: int
    cycle: int


class AlignmentRead(Out):
    """The curve of alignment scores of a job, from its start to where it is."""

    job_id: UUID
    status: JobStatus
    before: AlignmentPoint | None
    cycles: list[AlignmentCycle]
    after: AlignmentPoint | None
