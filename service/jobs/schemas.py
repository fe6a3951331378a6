"""What comes out of the routes of jobs."""

from typing import Any
from uuid import UUID

from domain.policy import Escalation
from domain.states import JobKind, JobStatus, Mode, Objective, Verdict
from service.fields import Failure, Instant, Out, Scores, VersionBrief
from service.jobs.accuracy import AccuracyChange
from service.jobs.advantage import AdvantageChange
from service.jobs.fine_tuned import FineTunedRead


class CycleRead(Scores):
    """Scores and losses after one cycle, that is, one forget phase and one recover phase."""

    round: int
    """The round of the job that the cycle belongs to, counted from 1."""

    cycle: int
    """The cycle's number within its round, counted from 1."""

    attempt: int
    """The attempt of the job that measured these scores."""

    loss_alignment: float
    """Mean alignment loss over the steps of the forget phase, before it is weighted."""

    loss_distillation: float
    """Mean distillation loss over the steps of the forget phase, in nats, before it is weighted."""

    loss_retain: float
    """Mean loss on retain samples over the steps of the recover phase, in nats."""

    created_at: Instant
    """When the cycle ended."""


class EvaluationRead(Scores):
    """Everything measured before or after a job."""

    figures: dict[str, Any]
    """Further measurements by name, such as `test_accuracy`, `membership_auc` or `k`, the number of
    directions of the eigenspace. A figure is null if there was nothing to measure it on."""


class TestRead(Out):
    """One statistical test of an audit, and what its value was compared with."""

    name: str
    """The test's name, for example `membership_loss` or `alignment`."""

    value: float
    """The measured value of the test's statistic."""

    low: float | None
    """Lower end of the value's interval, which holds simultaneously for all tests of the family.
    A guard is one-sided and has only this bound. Null if there is none."""

    high: float | None
    """Upper end of the value's interval; null for a guard."""

    expected: float | None
    """The value for samples that the model was never trained on; null if there is none."""

    threshold: float | None
    """The largest distance between `value` and `expected` that passes; for a guard, the limit that
    `low` must not exceed. Null if there is none."""

    p_value: float | None
    """The p-value, adjusted for all tests of the family; null for a test that has none."""

    forget_samples: int
    """How many of the samples to forget were compared; 0 for a guard."""

    holdout_samples: int
    """How many hold-out samples they were compared with; for a guard, how many samples it was
    measured on."""

    passed: bool
    """Whether the test passed."""


class AuditRead(Out):
    """The audit of one round, that is, of one attempt of the job to make a version.

    The hold-out samples it compares with played no part in the job.
    """

    round: int
    """The number of the round, counted from 1."""

    step: Escalation | None
    """What was tried because the round before had failed; null for the first round."""

    mode: Mode
    """How the round made its version."""

    kept: bool
    """Whether the job's new version comes from this round."""

    verdict: Verdict
    """The verdict on the version that the round made."""

    reason: str
    """Which tests decided the verdict, in words."""

    meaning: str
    """What the verdict means in plain language, and no more than that."""

    alpha: float | None
    """Probability that the family of tests rejects a model that was never trained on the samples.
    Null, like all figures, if the round broke off before there was anything to audit."""

    permutations: int | None
    """How many permutations the p-values rest on; null if the round broke off."""

    seed: int | None
    """The seed that the permutations were drawn with; null if the round broke off."""

    config: dict[str, Any]
    """The configuration of the method in this round, by parameter."""

    before: list[TestRead]
    """The family of tests on the version that knew the samples. It shows whether the tests can
    detect them at all."""

    after: list[TestRead]
    """The family of tests on the new version, the same as in `before`."""

    guards: list[TestRead]
    """Tests of what the new version had to keep, such as its test accuracy, and of what a removed
    class had to lose."""


class JobSummary(Out):
    """One piece of work, and how far it is."""

    id: UUID
    """The job's id, used in its URL."""

    kind: JobKind
    """What the job does."""

    status: JobStatus
    """Whether the job waits, runs or has ended."""

    model: str | None
    """Name of the model that the job works on; null for a job on a dataset alone."""

    dataset: str | None
    """Name of the dataset that the job works on, or on which its model was trained."""

    attempt: int
    """How many times a worker has taken the job; 0 while it waits for its first one."""

    losses: int
    """How many attempts were lost with their worker. After LETHE_MAX_LOSSES of them the job
    fails."""

    phase: str | None
    """What the job is doing now, in words for people; null before it starts."""

    progress: float
    """Share of the work that is done, from 0 to 1."""

    requests: int
    """How many deletion requests the job serves."""

    created_at: Instant
    """When the job was queued."""

    started_at: Instant | None
    """When a worker first took the job; null until then."""

    finished_at: Instant | None
    """When the job ended, well or badly; null until then."""

    duration_seconds: float | None
    """Seconds from the job's first start to its end; null until it has ended."""

    failure: Failure | None
    """Why the job failed; null unless its status is `failed`."""


class JobRead(JobSummary):
    """A job with how it ran and what it measured."""

    worker: str | None
    """Name of the worker process that has or had the job; null before one has taken it."""

    lease_until: Instant | None
    """Until when the worker holds the job; null unless it runs. A worker that falls silent for
    longer loses the job."""

    not_before: Instant | None
    """Until when no worker takes the job, because the last attempt failed through the machine's
    fault; null if it can be taken at any time."""

    objective: Objective | None
    """What forgetting means for this job; null for a job that forgets nothing."""

    config: dict[str, Any] | None
    """The full configuration of the method as it ran, including the seed; null before that is
    decided, and for other kinds of job."""

    environment: dict[str, Any] | None
    """Versions of the code and its libraries, and the device the job ran on; null before it
    starts, and for other kinds of job."""

    base_version: VersionBrief | None
    """The version the job started from; null before it starts, and for other kinds of job."""

    new_version: VersionBrief | None
    """The version the job made; null if it has made none."""

    accepted_job_id: UUID | None
    """The job whose version a person accepted after other requests had overtaken it, and which this
    job makes anew; null for any other job."""

    mode: Mode | None
    """How the job makes its version; null until that is decided."""

    mode_reason: str | None
    """Why the job makes its version in this way, in words; null until that is decided."""

    verdict: Verdict | None
    """What the audit found about the version the job made; null while there is none."""

    audit: AuditRead | None
    """The audit that the verdict rests on, of the round whose version was kept; null while there is
    none."""

    rounds: list[AuditRead]
    """Every round of the job, in order. After a `fail`, the model's policy says what is tried
    next."""

    before: EvaluationRead | None
    """What was measured on the base version; null until it has been measured."""

    cycles: list[CycleRead]
    """Scores after every cycle so far, in order."""

    after: EvaluationRead | None
    """What was measured on the new version; null until it has been measured."""

    accuracy: AccuracyChange | None
    """What the job did to the accuracy over all classes, and to each class; null until it has been
    measured, and for other kinds of job."""

    advantage: AdvantageChange | None
    """How many guesses about who was forgotten may still be right; null until it has been measured,
    and for other kinds of job."""

    fine_tuned: FineTunedRead | None
    """What further training of a copy of the new version brought back; null unless the model's
    policy asks for it."""


class AlignmentPoint(Out):
    """Dimensional alignment (DA) at one moment: of forget samples, of hold-out samples, and the gap
    between them."""

    da_forget: float
    """Mean dimensional alignment of the samples to forget, from 0 to 1."""

    da_holdout: float | None
    """Mean dimensional alignment of hold-out samples of the same classes, from 0 to 1; null if it
    was not measured."""

    da_gap: float | None
    """The alignment gap, `da_forget - da_holdout`; null if it was not measured."""

    da_gap_low: float | None
    """Lower end of the 95 % bootstrap interval of `da_gap`; null if there are too few samples."""

    da_gap_high: float | None
    """Upper end of the 95 % bootstrap interval of `da_gap`; null if there are too few samples."""


class AlignmentCycle(AlignmentPoint):
    """Dimensional alignment after one cycle of a job."""

    round: int
    """The round of the job that the cycle belongs to, counted from 1."""

    cycle: int
    """The cycle's number within its round, counted from 1."""


class AlignmentRead(Out):
    """The alignment scores of a job so far, as a curve over its cycles."""

    job_id: UUID
    """The job that the curve belongs to."""

    status: JobStatus
    """Whether the job waits, runs or has ended."""

    before: AlignmentPoint | None
    """Alignment on the base version; null until it has been measured."""

    cycles: list[AlignmentCycle]
    """Alignment after every cycle so far, in order."""

    after: AlignmentPoint | None
    """Alignment on the new version; null until it has been measured."""
