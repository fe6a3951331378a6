"""Forgetting leaves the same rows, whether the job passed or a person accepted its version."""

from collections import Counter
from datetime import timedelta
from hashlib import sha256
from types import SimpleNamespace

import pytest
import torch
from sqlalchemy import select

from domain import forgetting
from domain.settings import WorkerSettings
from domain.states import Decision, JobKind, JobStatus, Mode, RequestStatus, Verdict, VersionStatus
from domain.tables import (
    AuditEvent,
    DeletionRequest,
    DeletionTarget,
    Job,
    MembershipStatistics,
    ModelVersion,
    NearDuplicate,
    OutOfSamplePrediction,
    RequestSample,
    Tombstone,
)
from service.deletion_requests import decisions
from service.deletion_requests.schemas import DecisionCreate
from tests import factories
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.housekeeping import planner
from worker.jobs.unlearn import record
from worker.jobs.unlearn.inputs import Inputs, read_order
from worker.jobs.unlearn.rounds import JudgedVersion
from worker.store.artifacts import Store
from worker.unlearning.audit.advantage import Advantage
from worker.unlearning.audit.verdict import Test
from worker.unlearning.evaluation import Evaluation, EveryClass

KNOWN = ("t0", "t1", "t2", "t3", "h0", "h1")
NAMED = [("t0", "t1", "h0"), ("t1", "t2", "t3")]
MEASURED = Evaluation(
    **factories.SCORES, test_accuracy=0.9, holdout_accuracy_same_classes=0.7, k=1,
    subspace_overlap=None, forget_effective_rank=1.0, forget_feature_norm=1.0,
    holdout_feature_norm=1.0, membership_auc=0.5, lost_classes=[],
    every_class=EveryClass(measured_on="test", samples=[10, 10], right=[9, 9]),
    advantage=Advantage(bound=1.0, observed=0.5, pairs=1, forgotten=1, grouped=False),
)  # fmt: skip


class World:
    """A model that is asked to forget, and whoever does it."""

    def __init__(self, sessions, folder):
        self.sessions, self.folder = sessions, folder
        self.dataset = factories.dataset()
        self.model = factories.model(self.dataset)
        registered = factories.job(
            model_id=self.model.id, kind=JobKind.REGISTER_MODEL, finished=True
        )
        figures = {"classes": 2, "test_accuracy": 0.9, "samples": {"train": 10}}
        self.champion = factories.version(self.model, registered, figures=figures)
        self.requests = [factories.request(self.dataset, samples=len(ids)) for ids in NAMED]
        statistics = [
            MembershipStatistics(model_id=self.model.id, sample_id=name, out_mean=0.0, out_std=1.0)
            for name in KNOWN
        ]
        predictions = [
            OutOfSamplePrediction(model_id=self.model.id, sample_id=name, probabilities=b"12")
            for name in KNOWN
        ]
        alike = [
            NearDuplicate(model_id=self.model.id, sample_id=name, group_number=0) for name in KNOWN
        ]
        self.add(
            [self.dataset], [self.model], [registered], factories.samples(self.dataset),
            [self.champion, *self.requests], statistics, predictions, alike,
            [factories.target(request, self.model) for request in self.requests],
        )  # fmt: skip
        for request, ids in zip(self.requests, NAMED, strict=True):
            self.add(factories.request_samples(request, *ids))

    def add(self, *together):
        with self.sessions.begin() as session:
            for rows in together:
                session.add_all(rows)
                session.flush()

    def forgotten_meanwhile(self, *ids):
        self.earlier = factories.job(model_id=self.model.id, finished=True)
        self.add([self.earlier], factories.tombstones(self.model, self.earlier, *ids))

    def claimed(self):
        with self.sessions.begin() as session:
            planner.plan(session)
            job = session.scalars(select(Job).filter_by(status=JobStatus.QUEUED)).one()
            held = lease.claim(session, job.id, worker="w", lease=timedelta(minutes=1))
        settings = WorkerSettings(
            database_url="postgresql://unused",
            broker_url="redis://unused",
            store=self.folder,
            device="cpu",
        )
        store = Store(self.folder, held.signature)
        self.job_id = held.job_id
        return Workbench(held, self.sessions, store, settings)

    def end(self, verdict, *tests, meanwhile=lambda: None):
        """As the job does, with what it made; the tests are those that failed."""
        bench = self.claimed()
        with self.sessions.begin() as session:
            order = read_order(session, self.job_id)
        tried = factories.tried(Job(id=self.job_id), verdict=verdict, kept=False)
        self.add([tried], [factories.audit_test(tried, "after", **test) for test in tests])
        names = ["forget", "calibration", "calibration_ids", "audit", "audit_ids", "groups"]
        nothing = dict.fromkeys([*names, "remarks", "kept", "source"], ())
        inputs = Inputs(retain=(), test=None, class_counts=torch.tensor([5, 5]), **nothing)
        made = JudgedVersion(
            number=1, mode=Mode.APPROXIMATE, config={}, network=None, moments=None, observed=None,
            audit=SimpleNamespace(
                fails=verdict is Verdict.FAIL, has_power=True, guards=(),
                tests=tuple(Test(**factories.TEST | test) for test in tests),
            ),
        )  # fmt: skip
        meanwhile()
        record.new_version(bench, order, inputs, made, MEASURED, MEASURED, None)

    def accept(self):
        wanted = DecisionCreate(decision=Decision.ACCEPT, ground="it was looked at")
        with self.sessions.begin() as session:
            decisions._decide(session, self.requests[0].id, wanted)

    def left(self):
        """What there is now, without what is different each time."""
        with self.sessions() as session:
            name_of = {factories.tombstone(self.model, Job(), name).digest: name for name in KNOWN}
            graves = {
                (name_of[grave.digest], grave.job_id == self.job_id)
                for grave in session.scalars(select(Tombstone))
            }
            targets = [
                (each.status, each.job_id == self.job_id, each.already_forgotten)
                for request in self.requests
                if (each := session.get_one(DeletionTarget, (request.id, self.model.id)))
            ]
            asked = [
                (each.status, each.finished_at is not None)
                for each in session.scalars(select(DeletionRequest))
            ]
            versions = {
                (each.number, each.status, each.superseded_at is None, each.purge_after is None)
                for each in session.scalars(select(ModelVersion))
            }
            references = [
                set(session.scalars(select(table.sample_id)))
                for table in (MembershipStatistics, OutOfSamplePrediction, NearDuplicate)
            ]
            ids = set(session.scalars(select(RequestSample.sample_id)))
            counts = session.get_one(Job, self.job_id).forgotten_at is not None
            return graves, targets, asked, versions, references, ids, counts

    def told(self):
        with self.sessions() as session:
            return Counter(session.scalars(select(AuditEvent.event)))


@pytest.fixture
def world(sync_sessions, tmp_path, monkeypatch):
    """Makes a world after undoing the one before. The files of a version are three words."""

    def write_files(bench, order, inputs, made):
        names = ("weights_sha256", "statistics_sha256", "reservoir_sha256")
        return {
            name: bench.store.put(lambda path, name=name: path.write_text(f"{name} {order.job.id}"))
            for name in names
        }

    monkeypatch.setattr(record, "_write_files", write_files)
    connection = sync_sessions.kw["bind"]

    def make():
        nonlocal before
        if before is not None:
            before.rollback()
        before = connection.begin_nested()
        return World(sync_sessions, tmp_path)

    before = None
    return make


@pytest.mark.parametrize("meanwhile", [(), ("t1",), ("t1", "h0")])
def test_a_completed_and_an_accepted_request_leave_the_same_rows(world, meanwhile):
    passed = world()
    passed.forgotten_meanwhile(*meanwhile)
    passed.end(Verdict.PASS)
    first, told_first = passed.left(), passed.told()
    accepted = world()
    accepted.forgotten_meanwhile(*meanwhile)
    accepted.end(Verdict.FAIL)
    accepted.accept()
    second, told_second = accepted.left(), accepted.told()

    assert first == second
    graves, targets, asked, versions, references, ids, counts = first
    assert graves == {(name, name not in meanwhile) for name in ("t0", "t1", "t2", "t3", "h0")}
    assert targets == [
        (RequestStatus.COMPLETED, True, len({*meanwhile} & {*named})) for named in NAMED
    ]
    assert asked == [(RequestStatus.COMPLETED, True)] * 2
    assert versions == {
        (1, VersionStatus.SUPERSEDED, False, False),
        (2, VersionStatus.CHAMPION, True, True),
    }
    assert references == [{"h1"}] * 3
    assert (ids, counts) == (set(), True)
    of_the_person = {"request.needs_review": 2, "request.decided": 2, "version.promoted": 1}
    assert told_second - told_first == Counter(of_the_person)
    assert not told_first - told_second


def test_nothing_counts_as_forgotten_that_a_version_was_not_made_without(world):
    mine = world()

    def another_is_named():
        mine.add(factories.request_samples(mine.requests[0], "t5"))

    mine.end(Verdict.PASS, meanwhile=another_is_named)

    with mine.sessions() as session:
        assert list(session.scalars(select(Tombstone))) == []
        assert session.get_one(Job, mine.job_id).status is JobStatus.QUEUED
        assert list(session.scalars(select(ModelVersion.number))) == [1]


def failed(value):
    return {"name": "membership_loss", "value": value, "low": value - 0.05, "high": value + 0.05,
            "expected": 0.5, "passed": False}  # fmt: skip


@pytest.mark.parametrize("exceeded", [False, True])
def test_a_person_is_asked_again_only_about_what_is_worse_than_what_they_accepted(world, exceeded):
    mine, later = world(), factories.NOW + timedelta(days=1)
    mine.end(Verdict.FAIL, failed(0.60))
    accepted = mine.job_id
    other = factories.job(model_id=mine.model.id, finished=True)
    mine.add([other], [factories.tombstone(mine.model, other, "h1", forgotten_at=later)])
    mine.accept()
    before = mine.told()

    mine.end(Verdict.FAIL, failed(0.70 if exceeded else 0.64))

    _, targets, asked, versions, *_ = mine.left()
    expected = RequestStatus.NEEDS_REVIEW if exceeded else RequestStatus.COMPLETED
    assert [status for status, *_ in targets] == [expected] * 2
    assert [status for status, _ in asked] == [expected] * 2
    served = 1 if exceeded else 3
    assert [number for number, status, *_ in versions if status is VersionStatus.CHAMPION] == [
        served
    ]
    told = mine.told() - before
    assert told["version.promoted"] == (not exceeded)
    with mine.sessions() as session:
        job = session.get_one(Job, mine.job_id)
        assert job.accepted_job_id == accepted
        events = select(AuditEvent).filter_by(event="job.completed", subject_id=job.id)
        told = session.scalars(events).one().data["acceptance"]
        assert told == ("exceeded" if exceeded else "stands")
        waits = set(session.scalars(select(DeletionTarget.accepted_job_id)))
        assert waits == ({None} if exceeded else {accepted})


def test_a_job_with_nothing_left_to_forget_counts_as_none(world):
    mine = world()
    mine.forgotten_meanwhile("t0", "t1", "t2", "t3", "h0")
    mine.claimed()

    with mine.sessions.begin() as session:
        forgetting.record_forgotten(session, job_id=mine.job_id, model_id=mine.model.id)

    graves, targets, *_, counts = mine.left()
    assert {by_this_job for _, by_this_job in graves} == {False}
    assert [already for *_, already in targets] == [3, 3]
    assert not counts


def test_what_others_asked_of_the_model_is_not_forgotten_yet(world):
    mine = world()
    mine.claimed()
    waiting = factories.request(mine.dataset)
    mine.add(
        [waiting], [factories.target(waiting, mine.model)], factories.request_samples(waiting, "t9")
    )

    with mine.sessions.begin() as session:
        forgetting.record_forgotten(session, job_id=mine.job_id, model_id=mine.model.id)
        ours = factories.tombstone(mine.model, Job(), "t9").digest
        assert ours not in set(session.scalars(select(Tombstone.digest)))


def test_another_reservoir_is_told_with_what_it_replaces(world):
    mine = world()
    mine.claimed()
    digest = sha256(b"another").hexdigest()

    with mine.sessions.begin() as session:
        champion = session.get_one(ModelVersion, mine.champion.id)
        replaced = forgetting.replace_reservoir(
            session, champion, digest, job_id=mine.job_id, left_out=2, actor="worker"
        )
        session.flush()
        event = session.scalars(select(AuditEvent).filter_by(event="reservoir.replaced")).one()

    assert (replaced, champion.reservoir_sha256) == ("c" * 64, digest)
    assert event.data == {
        "job": str(mine.job_id),
        "reservoir_sha256": digest,
        "replaced_sha256": replaced,
        "samples": 2,
    }
