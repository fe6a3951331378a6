"""The audit of each round, and what follows a failed one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select

from domain.policy import Escalation
from domain.states import JobStatus, Mode, RequestStatus, Verdict, VersionStatus
from domain.tables import AlignmentScore, ModelVersion, Tombstone, VerdictTest
from tests.worker.jobs.unlearn.digit_models import NAMED, PARTS, flat_floats, poisonous, ruinous
from worker.data import reservoir
from worker.jobs.unlearn import rounds
from worker.jobs.unlearn.job import unlearn_model
from worker.jobs.unlearn.rounds import JudgedVersion
from worker.unlearning.audit.verdict import Audit, Test


def test_the_audit_is_stored_with_every_test(registered, ask, outcome, sync_sessions):
    bench = ask(registered(flat_floats), *NAMED)

    unlearn_model(bench)

    job, version, request, tried_rounds = outcome(bench)
    assert job.verdict in (Verdict.PASS, Verdict.NO_POWER)
    assert (version.status, version.mode) == (VersionStatus.CHAMPION, Mode.APPROXIMATE)
    assert request.status is RequestStatus.COMPLETED
    assert [tried.kept for tried in tried_rounds] == [False] * (len(tried_rounds) - 1) + [True]
    assert tried_rounds[-1].verdict is job.verdict
    assert tried_rounds[-1].reason
    assert tried_rounds[-1].config == job.config
    with sync_sessions() as session:
        tests = session.scalars(
            select(VerdictTest).filter_by(job_id=job.id, round=len(tried_rounds))
        ).all()
    by_moment = {moment: [t for t in tests if t.moment == moment] for moment in ("before", "after")}
    assert {t.name for t in by_moment["before"]} == {t.name for t in by_moment["after"]}
    assert "alignment" in {t.name for t in tests}
    assert {t.name for t in tests if t.moment == "guard"} >= {"test_accuracy", "class_accuracy"}
    holdout = PARTS.tolist().count("valid")
    assert all(0 < t.holdout_samples < holdout for t in by_moment["after"])  # the audit half


def test_after_every_fail_comes_the_next_step_and_then_a_person(
    registered, ask, outcome, sync_sessions
):
    model = registered(ruinous)
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    job, version, request, tried_rounds = outcome(bench)
    assert [tried.step for tried in tried_rounds] == [
        None, Escalation.MORE_CYCLES, Escalation.STRONGER,
    ]  # fmt: skip
    assert {tried.verdict for tried in tried_rounds} == {Verdict.FAIL}
    assert [tried.kept for tried in tried_rounds].count(True) == 1
    assert (job.status, job.verdict) == (JobStatus.COMPLETED, Verdict.FAIL)
    assert (version.number, version.status) == (2, VersionStatus.CANDIDATE)
    assert request.status is RequestStatus.NEEDS_REVIEW
    assert request.finished_at is None
    with sync_sessions() as session:
        champion = session.scalars(
            select(ModelVersion).filter_by(model_id=model.id, status=VersionStatus.CHAMPION)
        ).one()
        assert champion.number == 1
        assert session.scalar(select(func.count(Tombstone.digest))) == 0
        keys = select(AlignmentScore.round, AlignmentScore.cycle).order_by(
            AlignmentScore.round, AlignmentScore.cycle
        )
        stored = session.execute(keys.filter_by(job_id=job.id)).all()
    assert {number for number, _ in stored} == {1, 2, 3}
    kept = reservoir.read(bench.store, champion.reservoir_sha256)["sample_id"].to_pylist()
    assert set(kept) & set(NAMED)


def test_a_candidate_does_not_stand_in_the_way_of_other_requests(
    registered, ask, outcome, sync_sessions
):
    model = registered(ruinous, escalation=[])
    unlearn_model(ask(model, *NAMED[:5]))

    bench = ask(model, *NAMED[5:10])
    unlearn_model(bench)

    _, version, _, _ = outcome(bench)
    assert (version.number, version.status) == (3, VersionStatus.CANDIDATE)
    with sync_sessions() as session:
        parents = session.scalars(
            select(ModelVersion.parent_id).where(ModelVersion.parent_id.is_not(None))
        )
        assert len(set(parents)) == 1


def test_the_last_step_is_a_training_with_the_recipe(registered, ask, outcome):
    bench = ask(registered(ruinous, recipe="learn"), *NAMED)

    unlearn_model(bench)

    job, version, request, tried_rounds = outcome(bench)
    assert [tried.mode for tried in tried_rounds] == [Mode.APPROXIMATE] * 3 + [Mode.EXACT]
    assert tried_rounds[-1].step is Escalation.RETRAIN
    assert (job.mode, version.mode) == (Mode.EXACT, Mode.EXACT)
    assert job.verdict is not Verdict.FAIL
    assert version.status is VersionStatus.CHAMPION
    assert request.status is RequestStatus.COMPLETED


def shown(number, *tests, guard=True):
    """A round whose tests have these distances from what unseen samples give."""
    limit = {"expected": 0.0, "threshold": 0.1, "low": 0.0, "high": None, "p_value": 1.0}
    made = [
        Test(name=str(n), value=value, passed=abs(value) <= 0.1, forget_samples=1,
             holdout_samples=1, **limit)
        for n, value in enumerate(tests)
    ]  # fmt: skip
    found = Audit(
        fails=True, has_power=True, reason="", tests=tuple(made), before=(), alpha=0.03,
        guards=(replace(made[0], passed=guard),), permutations=1, seed=0,
    )  # fmt: skip
    return JudgedVersion(
        number=number, mode=Mode.APPROXIMATE, config={}, network=None, moments=None, observed=None,
        audit=found,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "kept"),
    [
        ([shown(1, 0.217), shown(2, 0.311), shown(3, 0.317)], 1),
        ([shown(1, 0.2, 0.2, 0.2), shown(2, 0.5)], 1),  # fewer tests fail, but it forgot less
        ([shown(1, 0.3), shown(2, -0.2), shown(3, -0.4)], 2),
        ([shown(1, 0.3), shown(2, 0.0, guard=False), shown(3, 0.4)], 1),
        ([shown(1, 0.3, guard=False), shown(2, 0.2, guard=False)], 2),
        ([shown(1, 0.3), shown(2, 0.3)], 2),
    ],
)
def test_of_rounds_that_fail_the_one_that_forgot_most_is_kept(monkeypatch, made, kept):
    monkeypatch.setattr(rounds, "_carry_out", lambda bench, basis, number, step: made[number - 1])
    monkeypatch.setattr(rounds, "_store", lambda bench, made, step: None)
    steps = SimpleNamespace(steps=(None,) * len(made))

    assert rounds.run(None, SimpleNamespace(plan=steps)).number == kept


def test_a_round_that_breaks_off_is_stored_and_the_next_one_tried(registered, ask, outcome):
    model = registered(poisonous, recipe="learn")
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    job, _, _, tried_rounds = outcome(bench)
    assert [tried.verdict for tried in tried_rounds[:3]] == [Verdict.FAIL] * 3
    assert all("broke off" in tried.reason and tried.alpha is None for tried in tried_rounds[:3])
    assert (tried_rounds[3].step, tried_rounds[3].kept) == (Escalation.RETRAIN, True)
    assert job.verdict is not Verdict.FAIL
