"""A job that is interrupted, and what happens to its model meanwhile."""

import dataclasses
import shutil

import pytest
from sqlalchemy import delete, func, select

from domain import forgetting
from domain.errors import LeaseLost, Stopped
from domain.states import JobStatus, Mode, RequestStatus, VersionStatus
from domain.tables import (
    AlignmentScore,
    AuditEvent,
    Dataset,
    Job,
    ModelVersion,
    RequestSample,
    Round,
    Tombstone,
)
from tests import factories
from tests.worker.jobs.unlearn.digit_models import NAMED, flat_floats, ruinous
from worker.engine import environment
from worker.engine.workbench import Workbench
from worker.jobs.unlearn.job import unlearn_model
from worker.networks import functions


@pytest.fixture(autouse=True)
def two_cycles(monkeypatch):
    """As large sets have them: a few samples take one."""
    monkeypatch.setattr("worker.unlearning.config.FEW", 0)
    monkeypatch.setattr("worker.unlearning.config.MORE", 0)


@pytest.fixture
def overtaken(claim):
    """Carry a job out, but lose it just before its end; the workbench of the next attempt."""

    class Overtaken(Workbench):
        def report(self, phase, progress):
            super().report(phase, progress)
            if phase == "storing the new version":
                later.append(claim(model_of[self.claim.job_id]))

    later, model_of = [], {}

    def carry_out(model, bench) -> Workbench:
        model_of[bench.claim.job_id] = model
        fields = {f.name: getattr(bench, f.name) for f in dataclasses.fields(bench)}
        with pytest.raises(LeaseLost):
            unlearn_model(Overtaken(**fields))
        return later.pop()

    return carry_out


def objects(bench):
    return sorted(path.name for path in bench.store.root.rglob("objects/*/*"))


def attempts_of_cycles(sync_sessions):
    with sync_sessions() as session:
        scores = select(AlignmentScore.attempt).filter_by(round=1).order_by(AlignmentScore.cycle)
        return session.scalars(scores).all()


def test_a_second_attempt_gives_the_same_weights_and_one_version(
    registered, ask, overtaken, sync_sessions
):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    second = overtaken(model, first)
    files = objects(first)
    shutil.rmtree(first.store.root / "checkpoints")

    unlearn_model(second)

    assert second.claim.attempt == 2
    assert objects(first) == files
    assert attempts_of_cycles(sync_sessions) == [2, 2]
    with sync_sessions() as session:
        numbers = session.scalars(select(ModelVersion.number).filter_by(model_id=model.id)).all()
        assert sorted(numbers) == [1, 2]


def test_an_attempt_goes_on_from_the_last_cycle_to_the_same_weights(
    registered, ask, claim, overtaken, sync_sessions
):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    bench = overtaken(model, first)
    undisturbed = objects(first)
    shutil.rmtree(first.store.root / "checkpoints")

    bench.stop.set()
    with pytest.raises(Stopped):
        unlearn_model(bench)
    unlearn_model(claim(model))

    assert attempts_of_cycles(sync_sessions) == [2, 3]
    assert objects(first) == undisturbed
    with sync_sessions() as session:
        resumed = session.scalars(select(AuditEvent.data).filter_by(event="job.resumed")).all()
    assert {"attempt": 3, "round": 1, "cycle": 1} in resumed


def test_a_damaged_checkpoint_is_not_gone_on_from(registered, ask, claim, sync_sessions):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    first.stop.set()
    with pytest.raises(Stopped):
        unlearn_model(first)
    (file,) = first.store.root.glob("checkpoints/*/*")
    file.write_bytes(file.read_bytes()[:-1] + b"!")

    unlearn_model(claim(model))

    assert attempts_of_cycles(sync_sessions) == [2, 2]


@pytest.mark.parametrize("whose", ["ours", "the user's"])
def test_a_checkpoint_of_other_code_is_not_gone_on_from(
    registered, ask, claim, sync_sessions, monkeypatch, whose
):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    first.stop.set()
    with pytest.raises(Stopped):
        unlearn_model(first)
    if whose == "ours":
        monkeypatch.setattr(environment, "code_sha256", lambda: "0" * 64)
    else:
        monkeypatch.setattr(functions, "source_sha256", lambda function: "0" * 64)

    unlearn_model(claim(model))

    assert attempts_of_cycles(sync_sessions) == [2, 2]
    with sync_sessions() as session:
        resumed = session.scalars(select(AuditEvent.data).filter_by(event="job.resumed")).all()
    assert not resumed


def test_a_request_that_left_the_job_meanwhile_is_not_in_what_it_goes_on_from(
    registered, ask, claim, sync_sessions
):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    first.stop.set()
    with pytest.raises(Stopped):
        unlearn_model(first)
    with sync_sessions.begin() as session:
        session.execute(delete(RequestSample).filter_by(sample_id=NAMED[0]))

    unlearn_model(claim(model))

    assert attempts_of_cycles(sync_sessions) == [2, 2]


def test_samples_forgotten_meanwhile_leave_nothing_to_do(registered, ask, sync_sessions):
    model = registered(flat_floats)
    unlearn_model(ask(model, *NAMED[:5]))

    unlearn_model(ask(model, *NAMED[:5]))

    with sync_sessions() as session:
        assert session.scalar(select(func.count(ModelVersion.id))) == 2
        assert session.scalar(select(func.count(Tombstone.digest))) == 5
        done = select(AuditEvent.id).filter_by(event=f"request.{RequestStatus.COMPLETED}")
        assert len(session.scalars(done).all()) == 2


def test_a_job_that_has_nothing_left_to_do_shows_nothing_of_an_earlier_attempt(
    registered, ask, claim, sync_sessions
):
    model = registered(flat_floats)
    lost = ask(model, *NAMED[:5])
    with sync_sessions.begin() as session:  # as an attempt leaves it whose end was not stored
        job = session.get_one(Job, lost.claim.job_id)
        job.mode, job.mode_reason, job.config = Mode.APPROXIMATE, "The model is changed.", {}
        session.add(factories.tried(job, kept=False))
        key = session.get_one(Dataset, model.dataset_id).tombstone_key
        session.add_all(factories.tombstone(model, job, name, key=key) for name in NAMED[:5])

    unlearn_model(claim(model))

    with sync_sessions() as session:
        job = session.get_one(Job, lost.claim.job_id)
        assert job.status is JobStatus.COMPLETED
        assert (job.mode, job.mode_reason, job.config) == (None, None, None)
        assert session.scalar(select(func.count()).select_from(Round)) == 0


def test_a_champion_that_was_replaced_meanwhile_sends_the_job_back(
    registered, ask, claim, outcome, sync_sessions
):
    class Promoted(Workbench):
        """Sees another version become the champion just before its end."""

        def report(self, phase, progress):
            super().report(phase, progress)
            if phase == "storing the new version":
                with sync_sessions.begin() as session:
                    candidate = session.scalars(select(ModelVersion).filter_by(number=2)).one()
                    old = session.scalars(select(ModelVersion).filter_by(number=1)).one()
                    forgetting.supersede(session, old, actor="api")
                    candidate.status = VersionStatus.CHAMPION

    model = registered(ruinous, escalation=[])
    unlearn_model(ask(model, *NAMED[:5]))
    bench = ask(model, *NAMED[5:10])
    fields = {f.name: getattr(bench, f.name) for f in dataclasses.fields(bench)}

    unlearn_model(Promoted(**fields))

    with sync_sessions() as session:
        job = session.get_one(Job, bench.claim.job_id)
        assert job.status is JobStatus.QUEUED
        assert session.scalar(select(func.count(ModelVersion.id))) == 2
    again = claim(model)
    unlearn_model(again)
    job, version, _, _ = outcome(again)
    assert (job.attempt, version.number) == (2, 3)
