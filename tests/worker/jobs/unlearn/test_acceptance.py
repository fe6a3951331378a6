"""What a person accepted is made anew, once other requests have overtaken it."""

import pytest
from sqlalchemy import select

from domain.states import Decision, Mode, RequestStatus, Verdict, VersionStatus
from domain.tables import AuditEvent
from service.deletion_requests import decisions
from service.deletion_requests.schemas import DecisionCreate
from tests import factories
from tests.worker.jobs.unlearn.digit_models import NAMED, ruinous
from worker.housekeeping import planner
from worker.jobs.unlearn import acceptance
from worker.jobs.unlearn.job import unlearn_model
from worker.unlearning.audit.verdict import Audit, Test


def events_of(sessions, *subjects):
    with sessions() as session:
        told = select(AuditEvent.event, AuditEvent.data).where(AuditEvent.subject_id.in_(subjects))
        return session.execute(told.order_by(AuditEvent.id)).all()


def test_what_was_accepted_and_overtaken_is_made_anew_and_served(
    registered, ask, claim, outcome, sync_sessions
):
    model = registered(ruinous, recipe="learn", escalation=[])
    first = ask(model, *NAMED[:10])
    unlearn_model(first)
    later = ask(model, *NAMED[10:], exact=True)
    unlearn_model(later)
    accepted, candidate, asked, _ = outcome(first)
    assert candidate.status is VersionStatus.CANDIDATE
    wanted = DecisionCreate(decision=Decision.ACCEPT, ground="it was looked at")
    with sync_sessions.begin() as session:
        decisions._decide(session, asked.id, wanted)
        planner.plan(session)
    bench = claim(model)

    unlearn_model(bench)

    job, version, request, _ = outcome(bench)
    assert request.id == asked.id
    assert (job.accepted_job_id, job.verdict) == (accepted.id, Verdict.FAIL)
    assert (version.number, version.status) == (4, VersionStatus.CHAMPION)
    assert version.parent_id == outcome(later)[1].id
    assert request.status is RequestStatus.COMPLETED
    told = events_of(sync_sessions, job.id, version.id, request.id)
    assert [event for event, _ in told][-9:] == [
        "request.decided", "request.pending", "job.queued", "request.scheduled", "job.started",
        "request.running", "version.created", "version.promoted", "job.completed",
        "request.completed",
    ][-9:]  # fmt: skip
    data = dict(told)
    assert data["job.queued"]["accepted_job"] == str(accepted.id)
    assert data["version.promoted"]["accepted_job"] == str(accepted.id)
    assert data["job.completed"]["acceptance"] == "stands"


def figures(name, value, low, high, *, passed=False, expected=0.5):
    return {
        "name": name, "value": value, "low": low, "high": high, "expected": expected,
        "threshold": 0.05, "p_value": 0.001, "forget_samples": 10, "holdout_samples": 50,
        "passed": passed,
    }  # fmt: skip


AUC = figures("membership_loss", 0.60, 0.54, 0.66)
GUARD = figures("test_accuracy", 0.08, 0.05, None, expected=0.0)


@pytest.mark.parametrize(
    ("now", "covered"),
    [
        ([("after", AUC)], True),
        ([("after", AUC | {"value": 0.65})], True),
        ([("after", AUC | {"value": 0.35})], True),  # as far, though on the other side
        ([("after", AUC | {"value": 0.67})], False),
        ([("after", AUC | {"name": "alignment"})], False),
        ([("after", AUC | {"name": "alignment", "passed": True}), ("after", AUC)], True),
        ([("guard", GUARD | {"value": 0.10, "low": 0.07})], True),
        ([("guard", GUARD | {"value": 0.12, "low": 0.09})], False),
        ([("guard", AUC | {"high": None})], False),
        ([], False),
    ],
)
def test_it_covers_what_failed_before_and_by_no_more(sync_sessions, now, covered):
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, finished=True, verdict=Verdict.FAIL)
    discarded, kept = (
        factories.tried(job, number, kept=number == 2, step=step, mode=Mode.APPROXIMATE)
        for number, step in ((1, None), (2, "stronger"))
    )
    worse = AUC | {"value": 0.99, "low": 0.98, "high": 1.0}
    with sync_sessions.begin() as session:
        for row in (
            dataset, model, job, discarded, kept,
            factories.audit_test(discarded, "after", **worse),
            factories.audit_test(kept, "before", **worse),
            factories.audit_test(kept, "after", **AUC),
            factories.audit_test(kept, "guard", **GUARD),
        ):  # fmt: skip
            session.add(row)
            session.flush()

        tests, guards = (
            tuple(Test(**test) for moment, test in now if moment == which)
            for which in ("after", "guard")
        )
        found = Audit(
            fails=True, has_power=True, reason="", tests=tests, before=(), guards=guards,
            alpha=0.03, permutations=1, seed=0,
        )  # fmt: skip
        assert acceptance.covers(session, job.id, found) is covered
