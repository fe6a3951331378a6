"""Jobs: how they run, what they measured, and how they were judged."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from lethe.calls import Call
from lethe.schemas.common import (
    OPEN_JOBS,
    Failure,
    Followed,
    JobStatus,
    Mode,
    Objective,
    Result,
    Scores,
    Verdict,
    VersionBrief,
    Word,
)
from lethe.schemas.models import Escalation


class JobKind(Word):
    """What a job does."""

    INDEX_DATASET = "index_dataset"
    INDEX_STATE = "index_state"
    REGISTER_MODEL = "register_model"
    REGISTER_VERSION = "register_version"
    TRAIN_REFERENCES = "train_references"
    UNLEARN = "unlearn"
    ESTIMATE = "estimate"
    PURGE = "purge"
    ERASE_ROWS = "erase_rows"
    CHECK_DATASET = "check_dataset"


class Cycle(Scores):
    """The scores and losses after one cycle: a forget phase and a recover phase."""

    round: int
    cycle: int
    attempt: int
    loss_alignment: float
    loss_distillation: float
    loss_retain: float
    created_at: datetime


class Evaluation(Scores):
    """Everything measured before or after a job."""

    figures: dict[str, Any]


class Test(Result):
    """One test of an audit, with what it was held against."""

    __test__ = False  # pytest looks at classes of this name

    name: str
    value: float
    low: float | None
    high: float | None
    expected: float | None
    """What it is for samples the model was never trained on."""

    threshold: float | None
    p_value: float | None
    """Adjusted for the family of tests."""

    forget_samples: int
    holdout_samples: int
    passed: bool


class Audit(Result):
    """What the audit said of one round: one attempt of the job at a version."""

    round: int
    step: Escalation | None
    """What was tried because the round before failed; None for the first."""

    mode: Mode
    kept: bool
    """Whether the job's version comes from this round."""

    verdict: Verdict
    reason: str
    meaning: str
    """What the verdict says, and no more."""

    alpha: float | None
    permutations: int | None
    seed: int | None
    config: dict[str, Any]
    before: list[Test]
    """On the version that knew the samples: can the tests tell?"""

    after: list[Test]
    """The same on the new version."""

    guards: list[Test]
    """What the new version must have kept, and a removed class must have lost."""


class MeasuredOn(Word):
    """Test samples, or hold-out samples where there are none."""

    TEST = "test"
    HOLDOUT = "holdout"


class ClassAccuracy(Result):
    """The accuracy on samples of one class, which the model was never trained on."""

    label: int
    samples: int
    before: float | None
    after: float | None


class AccuracyChange(Result):
    """The accuracy before and after a job, over all classes and for each."""

    measured_on: MeasuredOn
    samples: int
    before: float | None
    after: float | None
    classes: list[ClassAccuracy]
    """All of them for a job, at most 100 for a deletion request."""

    lost_classes: list[int]
    """Classes that lost all of their training samples."""

    remarks: list[str]
    """What this means, in sentences."""


class Guesses(Result):
    """How many guesses about who was forgotten the data do not exclude to be right."""

    bound: float
    """From 0.5, which is chance, to 1, which excludes nothing."""

    observed: float | None
    pairs: int
    forgotten: int
    grouped: bool
    in_part: int = 0
    """How many samples are left out, because others of their groups stay in training."""

    confidence: float


class AdvantageChange(Result):
    """The same before and after a job."""

    before: Guesses
    after: Guesses
    remarks: list[str]
    """What this means, in sentences."""


class FineTuned(Result):
    """Membership, before and after a copy of the new version was trained further."""

    steps: int
    samples: int
    membership_auc_before: float | None
    membership_auc_after: float | None
    remarks: list[str]
    """What this means, in sentences."""


class JobSummary(Followed):
    """One piece of work, and how far it is."""

    id: UUID
    kind: JobKind
    status: JobStatus
    model: str | None
    dataset: str | None
    attempt: int
    losses: int
    """How often its worker was lost; too often, and it fails."""

    phase: str | None
    """What it is doing now, for people."""

    progress: float
    """Share of the work that is done, 0 to 1."""

    requests: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    failure: Failure | None

    def again(self) -> Call[Self]:
        return Call(
            method="GET", path="/v1/jobs/{job_id}", places={"job_id": self.id}, reads=type(self)
        )

    @property
    def is_settled(self) -> bool:
        return self.status not in OPEN_JOBS

    def job_ids(self) -> list[UUID]:
        return [self.id]


class Job(JobSummary):
    """A job with how it ran and what it measured."""

    worker: str | None
    lease_until: datetime | None
    not_before: datetime | None
    objective: Objective | None
    config: dict[str, Any] | None
    environment: dict[str, Any] | None
    base_version: VersionBrief | None
    new_version: VersionBrief | None
    mode: Mode | None
    accepted_job_id: UUID | None
    """The job whose version was accepted when it had been overtaken, and which this makes anew."""

    mode_reason: str | None
    verdict: Verdict | None
    audit: Audit | None
    """What the verdict rests on; of the round whose version was kept."""

    rounds: list[Audit]
    before: Evaluation | None
    cycles: list[Cycle]
    after: Evaluation | None
    accuracy: AccuracyChange | None
    """What the job did to the accuracy over all classes."""

    advantage: AdvantageChange | None
    """How many guesses about who was forgotten may still be right."""

    fine_tuned: FineTuned | None
    """What further training of a copy brought back; None unless the policy asks for it."""


class AlignmentPoint(Result):
    """Dimensional alignment at one moment, in [0, 1]: forget samples, hold-out, and their gap."""

    da_forget: float
    da_holdout: float | None
    da_gap: float | None
    da_gap_low: float | None
    da_gap_high: float | None


class AlignmentCycle(AlignmentPoint):
    """The same after one cycle."""

    round: int
    cycle: int


class Alignment(Result):
    """The curve of alignment scores of a job, from its start to where it is."""

    job_id: UUID
    status: JobStatus
    before: AlignmentPoint | None
    cycles: list[AlignmentCycle]
    after: AlignmentPoint | None
