"""What a model forgot is judged together at each version, and measured again where it still is."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select, update

from domain.states import Verdict
from domain.tables import (
    AuditEvent,
    Job,
    Model,
    PooledAudit,
    PooledStatistic,
    Sample,
    WebhookDelivery,
    WebhookEndpoint,
)
from tests.worker.jobs.unlearn.digit_models import PEOPLE, TRAIN, flat_floats, training_samples
from worker.housekeeping import pooled_statistics
from worker.jobs.unlearn import pooled
from worker.jobs.unlearn.job import unlearn_model
from worker.unlearning.audit.pooled import judge
from worker.unlearning.errors import NotFinite

FIRST, SECOND, THIRD = TRAIN[:4], TRAIN[4:10], TRAIN[10:13]


@pytest.fixture
def model(registered):
    """A model that is retrained for each job."""
    return registered(flat_floats, recipe="learn", escalation=[], max_test_accuracy_drop=1.0)


@pytest.fixture
def forget(model, ask, sync_sessions):
    """Have these samples forgotten; the pooled audit of the version."""

    def run(*ids):
        bench = ask(model, *ids, exact=True)
        unlearn_model(bench)
        with sync_sessions() as session:
            row = session.get(PooledAudit, bench.claim.job_id)
            return bench, row

    return run


def pool(found, **changes):
    return pooled.Pool(mine=[], found=found, requests=3, remeasured=2, days=90, **changes)


def rejected(verdict="fail"):
    return replace(judge([], []), verdict=verdict)


def test_jobs_are_judged_together_and_measured_again_while_their_rows_are_there(
    forget, sync_sessions, model
):
    _, first = forget(*FIRST)
    _, second = forget(*SECOND)
    with sync_sessions.begin() as session:
        session.execute(delete(Sample).where(Sample.sample_id == SECOND[0]))
    _, third = forget(*THIRD)

    shown = [
        (row.figures["requests"], row.figures["samples"], row.figures["remeasured"])
        for row in (first, second, third)
    ]
    assert shown == [(1, 4, 4), (2, 10, 10), (3, 13, 7)]
    assert [row.version for row in (first, second, third)] == [2, 3, 4]
    assert third.figures["pairs"] <= 13
    with sync_sessions() as session:
        rows = session.scalars(select(PooledStatistic)).all()
    assert len(rows) == 13
    assert all(0 <= row.after <= 1 and row.model_id == model.id for row in rows)


def test_whom_a_version_knows_by_other_samples_is_not_in_the_pool(registered, ask, sync_sessions):
    """Not when some are forgotten, nor by these later: the job that has the rest forgotten stands
    for the whole person. How many samples count depends on the classes of the unseen people."""
    model = registered(
        flat_floats, groups=PEOPLE, recipe="learn", escalation=[], max_test_accuracy_drop=1.0
    )
    known, whole = (training_samples(PEOPLE, f"trained {n}") for n in (3, 4))
    shown = []
    for ids in ([*known[:6], *whole], known[6:]):
        unlearn_model(bench := ask(model, *ids, exact=True))
        with sync_sessions() as session:
            row = session.get_one(PooledAudit, bench.claim.job_id)
        shown.append([row.figures[name] for name in ("units", "samples", "remeasured")])

    (first, alone, again), (both, together, all_again) = shown
    assert (first, both) == (1, 2)
    assert 0 < alone == again <= len(whole)
    assert 0 < together - alone <= len(known) - 6
    assert all_again == together


def test_what_another_version_lets_return_is_seen_although_no_job_measured_it(
    forget, monkeypatch, sync_sessions
):
    forget(*FIRST)
    with sync_sessions.begin() as session:
        session.execute(update(PooledStatistic).values(after=0.25))
    judged = []
    monkeypatch.setattr(
        pooled.pooled, "judge", lambda after, before: judged.append(after) or judge(after, before)
    )

    forget(*SECOND)

    [after] = judged
    assert 0.25 not in [unit.share for unit in after[len(SECOND) :]]


def test_samples_of_others_that_cannot_be_measured_again_stop_no_job(forget, monkeypatch):
    forget(*FIRST)

    def not_finite(*_):
        raise NotFinite("the model answers with values that are not finite")

    monkeypatch.setattr(pooled, "Outputs", type("Outputs", (), {"of": staticmethod(not_finite)}))
    _, second = forget(*SECOND)

    assert (second.figures["samples"], second.figures["remeasured"]) == (10, 6)


def test_a_memory_that_returns_is_made_known_and_only_then(forget, sync_sessions, model):
    with sync_sessions.begin() as session:
        session.add(WebhookEndpoint(url="https://a.example", secret=b"s" * 32))
    bench, _ = forget(*FIRST)
    registration = select(Job).where(Job.id != bench.claim.job_id).limit(1)

    def announced(last, served=True):
        """The events and the deliveries when the pool fails after this last verdict."""
        with sync_sessions() as session:
            session.execute(delete(WebhookDelivery))
            session.execute(delete(PooledAudit))
            job = session.get_one(Job, bench.claim.job_id)
            if last is not None:
                job_id = session.scalars(registration).one().id
                session.add(
                    PooledAudit(
                        job_id=job_id, model_id=model.id, version=1, verdict=last,
                        returned=False, figures={},
                    )
                )  # fmt: skip
            pooled.store(session, pool(rejected()), job, version=2, served=served)
            session.flush()
            told = select(AuditEvent.data).filter_by(event="model.memory_returned")
            found = (
                session.scalars(told).all(),
                session.scalars(select(WebhookDelivery.event)).all(),
            )
            session.rollback()
        return found

    events, sent = announced(Verdict.PASS)
    assert [(data["version"], data["requests"], data["remeasured"]) for data in events] == [
        (2, 3, 2)
    ]
    assert sent == ["lethe.deletion_request.memory_returned"]
    assert announced(Verdict.NO_POWER) == (events, sent)
    assert announced(None) == announced(Verdict.FAIL) == ([], [])
    assert announced(Verdict.PASS, served=False) == ([], [])


def test_measurements_go_with_the_days_of_the_policy(forget, sync_sessions, model):
    forget(*FIRST)
    with sync_sessions.begin() as session:
        pooled_statistics.forget_old(session)
        assert session.scalar(select(func.count()).select_from(PooledStatistic)) == 4

        session.execute(update(PooledStatistic).values(created_at=func.now() - timedelta(days=91)))
        pooled_statistics.forget_old(session)

        assert session.scalar(select(func.count()).select_from(PooledStatistic)) == 0


def test_a_policy_of_no_days_keeps_nothing(forget, sync_sessions, model):
    with sync_sessions.begin() as session:
        policy = model.policy | {"pooled_audit_days": 0}
        session.execute(update(Model).values(policy=policy))

    _, row = forget(*FIRST)

    assert row is None
    with sync_sessions() as session:
        assert session.scalar(select(func.count()).select_from(PooledStatistic)) == 0
