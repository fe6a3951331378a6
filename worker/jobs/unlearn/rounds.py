"""The rounds of a job: each makes a version, and the audit judges it.

All rounds are stored with every test, whatever the verdict. Shapes: F forget samples, C classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import delete
from sqlalchemy.orm import Session
from torch import Tensor

from domain import functions
from domain.errors import JobError, Stopped
from domain.policy import Escalation
from domain.states import Mode, Verdict
from domain.tables import AlignmentScore, Round, VerdictTest
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.jobs.unlearn import plan, refit, resume, retrain
from worker.jobs.unlearn.inputs import Inputs, Order
from worker.jobs.unlearn.plan import Plan
from worker.jobs.unlearn.resume import Point
from worker.unlearning.alignment import Moments
from worker.unlearning.audit.retrained import by_construction
from worker.unlearning.audit.verdict import Audit, Limits, ReferenceScores, Test, audit
from worker.unlearning.config import default_config
from worker.unlearning.errors import UnlearningError
from worker.unlearning.evaluation import Observed, retain_moments
from worker.unlearning.network import Network
from worker.unlearning.samples import skew
from worker.unlearning.unlearn import CycleScores, State, unlearn

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What all rounds of a job share."""

    order: Order
    inputs: Inputs
    plan: Plan
    champion: Network
    moments: Moments
    """Moments of the champion's retain features, without the forget set."""

    before: Observed
    """The champion's outputs on everything."""

    predictions: Tensor | None
    """(F, C) answers of models that never saw the forget samples."""

    ease: Tensor | None
    """(F,) how easy these models find them, where samples have groups: what a person is like to
    networks that do not know them."""

    references: ReferenceScores | None
    """Confidence of such models on the forget and the audit samples."""

    seed: int
    points: Mapping[int, Point]
    """Where to resume each round after a lost attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedVersion:
    """A round's network and its audit."""

    number: int
    mode: Mode
    config: dict[str, Any]
    network: Network
    moments: Moments
    """Moments of the retain features under the network."""

    observed: Observed
    audit: Audit

    @property
    def verdict(self) -> Verdict:
        return Verdict.of(fails=self.audit.fails, has_power=self.audit.has_power)

    @property
    def shortcoming(self) -> tuple[int, float]:
        """How far it is from a pass, to be compared among rounds: the number of guards that failed,
        then how far the worst test is from what unseen samples give, in units of what passes."""
        broken = sum(not guard.passed for guard in self.audit.guards)
        return broken, max(map(_distance, self.audit.tests), default=0.0)


def run(bench: Workbench, basis: Basis) -> JudgedVersion:
    """Try the steps of the plan in turn until the verdict is better than `fail`.

    Returns:
        The round with the better verdict; if all failed, the one that forgot most among those that
        kept most of what the policy asks for.

    Raises:
        JobError, UnlearningError: no round reached its audit; the error of the last one.
        LeaseLost: another worker has the job.
    """
    best: JudgedVersion | None = None
    for number, step in enumerate(basis.plan.steps, 1):
        try:
            made = _carry_out(bench, basis, number, step)
        except (JobError, UnlearningError) as error:
            _store_broken(bench, basis, number, step, error)
            if best is None and number == len(basis.plan.steps):
                raise
            continue
        _store(bench, made, step)
        if made.verdict is not Verdict.FAIL:
            return made
        if best is None or made.shortcoming <= best.shortcoming:
            best = made
    assert best is not None  # noqa: S101 (there is at least one round, and the last one raised)
    return best


def _distance(test: Test) -> float:
    """Of a test's value from what unseen samples give; up to 1, it passes."""
    away = abs(test.value - test.expected)
    units = away / test.threshold if test.threshold else math.inf
    return min(units, 1.0) if test.passed else units


def _carry_out(
    bench: Workbench, basis: Basis, number: int, step: Escalation | None
) -> JudgedVersion:
    mode = basis.plan.mode_of(step)
    exact = mode is Mode.EXACT
    network, moments, config = (_train if exact else _change)(bench, basis, number, step)
    bench.report(_phase(number, step, "judging the new version"), plan.progress(number, 0.9))
    observed = basis.inputs.shown_to(network)
    counts = basis.inputs.class_counts
    policy = basis.order.policy
    found = audit(
        basis.before,
        observed,
        class_counts=counts,
        removing=basis.order.removing,
        limits=Limits(
            max_test_accuracy_drop=policy.max_test_accuracy_drop,
            max_class_accuracy_drop=policy.max_class_accuracy_drop,
            max_nll_increase=policy.max_nll_increase,
            max_ece_increase=policy.max_ece_increase,
        ),
        references=basis.references,
        groups=basis.inputs.groups,
        seed=basis.seed,
    )
    if exact:
        found = by_construction(found)
    remarks = [*basis.inputs.remarks, *([refit.REMARK] if _is_refit(basis, mode) else [])]
    found = replace(found, reason=found.reason + in_brackets(remarks))
    return JudgedVersion(
        number=number,
        mode=mode,
        config=config,
        network=network,
        moments=moments or retain_moments(observed.retain, counts),
        observed=observed,
        audit=found,
    )


def in_brackets(remarks: Sequence[str]) -> str:
    """The remarks as they follow a reason."""
    return "".join(f" ({remark})" for remark in remarks)


def _change(
    bench: Workbench, basis: Basis, number: int, step: Escalation | None
) -> tuple[Network, None, dict[str, Any]]:
    """Make a copy of the champion forget. After every cycle, the scores are stored as a row, and
    the state of the run as a file from which another attempt can resume."""
    inputs, order = basis.inputs, basis.order
    config = default_config(
        removing=order.removing,
        forget_count=len(inputs.forget),
        reservoir_count=len(inputs.retain),
        skew=skew(inputs.forget.labels, inputs.class_counts),
        seed=basis.seed,
        level=plan.LEVELS[step],
    )
    _start(bench, Mode.APPROXIMATE, asdict(config))
    bench.report(_phase(number, step, "forgetting"), plan.progress(number, 0.0))

    def keep(scores: CycleScores, state: State) -> None:
        checkpoint = resume.write(bench, order, number, state)
        for attempt in bench.transaction():
            with attempt as session:
                lease.report(
                    session,
                    bench.claim,
                    phase=_phase(
                        number, step, f"cycle {scores.cycle} of at most {config.most_cycles}"
                    ),
                    progress=plan.progress(number, 0.85 * scores.cycle / config.most_cycles),
                )
                session.merge(
                    AlignmentScore(
                        job_id=bench.claim.job_id,
                        attempt=bench.claim.attempt,
                        round=number,
                        **asdict(scores),
                    )
                )
                if checkpoint is not None:
                    session.merge(checkpoint)
        resume.drop_older(bench, number, checkpoint)
        if bench.stop.is_set():
            raise Stopped

    point = basis.points.get(number)
    changed = unlearn(
        basis.champion,
        forget=inputs.forget,
        retain=inputs.retain,
        retain_logits=basis.before.retain.logits,
        holdout=inputs.calibration,
        moments=basis.moments,
        class_counts=inputs.class_counts,
        config=config,
        on_cycle=keep,
        predictions=basis.predictions,
        ease=basis.ease,
        resume=resume.read(point.path) if point else None,
    )
    return basis.champion.around(changed), None, asdict(config)


def _train(
    bench: Workbench, basis: Basis, number: int, step: Escalation | None
) -> tuple[Network, Moments, dict[str, Any]]:
    """The model, retrained without the forget set, or as much of it as ever learned from data."""
    if _is_refit(basis, Mode.EXACT):
        _start(bench, Mode.EXACT, config := refit.config(basis.order))
        bench.report(_phase(number, step, "fitting the head anew"), plan.progress(number, 0.0))
        return *refit.refit(bench, basis.order, basis.champion), config
    config = {"recipe": basis.order.model.recipe, "seed": basis.seed}
    _start(bench, Mode.EXACT, config)
    bench.report(_phase(number, step, "retraining"), plan.progress(number, 0.0))
    network, moments = retrain.retrain(bench, basis.order, basis.champion, seed=basis.seed)
    return network, moments, config


def _is_refit(basis: Basis, mode: Mode) -> bool:
    return mode is Mode.EXACT and functions.is_head(basis.order.model.recipe)


def _phase(number: int, step: Escalation | None, what: str) -> str:
    return f"round {number}{f' ({step})' if step else ''}: {what}"


def _start(bench: Workbench, mode: Mode, config: dict[str, Any]) -> None:
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            job.mode, job.config = mode, config


def _store(bench: Workbench, made: JudgedVersion, step: Escalation | None) -> None:
    """Store the round and every test of its audit."""
    found = made.audit
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            _drop(session, job.id, made.number)
            session.add(
                Round(
                    job_id=job.id,
                    number=made.number,
                    step=step,
                    mode=made.mode,
                    config=made.config,
                    verdict=made.verdict,
                    reason=found.reason,
                    alpha=found.alpha,
                    permutations=found.permutations,
                    seed=found.seed,
                )
            )
            session.flush()
            for moment, tests in _by_moment(found).items():
                session.add_all(
                    VerdictTest(
                        job_id=job.id,
                        round=made.number,
                        moment=moment,
                        position=position,
                        **asdict(test),
                    )
                    for position, test in enumerate(tests)
                )
    log.info("round.judged", round=made.number, mode=made.mode, verdict=made.verdict)


def _by_moment(found: Audit) -> dict[str, Sequence[Test]]:
    return {"before": found.before, "after": found.tests, "guard": found.guards}


def _store_broken(
    bench: Workbench,
    basis: Basis,
    number: int,
    step: Escalation | None,
    error: JobError | UnlearningError,
) -> None:
    """Store a round that broke off, with nothing to audit."""
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            _drop(session, job.id, number)
            session.add(
                Round(
                    job_id=job.id,
                    number=number,
                    step=step,
                    mode=basis.plan.mode_of(step),
                    config=job.config or {},
                    verdict=Verdict.FAIL,
                    reason=f"The round broke off: {error}",
                )
            )
    log.warning("round.broken", round=number, kind=type(error).__name__)


def _drop(session: Session, job_id: UUID, number: int) -> None:
    """Delete what was stored of a round, in case its transaction runs a second time."""
    session.execute(delete(VerdictTest).filter_by(job_id=job_id, round=number))
    session.execute(delete(Round).filter_by(job_id=job_id, number=number))
