"""Requests, jobs, decisions and losses in any order: what must hold after each of them.

The operations are the service's own, on a real database; only the work of a job is left out.
"""

from collections import Counter
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from sqlalchemy import NullPool, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from domain import forgetting, jobs, sample_digests
from domain.errors import DomainError, LeaseLost
from domain.states import (
    JOB_STEPS,
    OPEN_JOBS,
    REQUEST_STEPS,
    VERSION_STEPS,
    Decision,
    JobStatus,
    Mode,
    RequestStatus,
    VersionStatus,
)
from domain.tables import (
    AuditEvent,
    DeletionRequest,
    DeletionTarget,
    Job,
    ModelVersion,
    RequestSample,
    ReviewDecision,
    Tombstone,
)
from service.deletion_requests import cancellation, decisions
from service.deletion_requests.schemas import DecisionCreate
from service.jobs import retry
from tests import acting, factories
from tests.worker.engine.totals import total
from worker.engine import lease
from worker.housekeeping import planner
from worker.jobs.unlearn import record
from worker.jobs.unlearn.inputs import read_order

LEASE = timedelta(minutes=1)
SAMPLES = [f"t{n}" for n in range(10)] + ["h0", "h1"]
CANCELLABLE = [
    RequestStatus.PENDING, RequestStatus.SCHEDULED, RequestStatus.RUNNING, RequestStatus.FAILED,
]  # fmt: skip
SELDOM = st.sampled_from([False, False, True])
"""What ends walks early would else happen before anything can come of them."""

ENDS = ["pass", "review", "lose", "review", "fail", "pass", "release"]
"""How attempts end, in turns: walks come to it too seldom to draw."""

FINAL = {RequestStatus.COMPLETED, RequestStatus.CANCELLED, RequestStatus.REFUSED}


class AnyOrder(RuleBasedStateMachine):
    url: str

    @initialize()
    def two_models_of_one_dataset(self) -> None:
        self.engine = acting.engine(self.url, poolclass=NullPool)
        self.connection = self.engine.connect()
        self.outer = self.connection.begin()
        self.session = Session(
            self.connection, expire_on_commit=True, join_transaction_mode="create_savepoint"
        )
        self.read = {}
        self.dataset = factories.dataset()
        self.models = [factories.model(self.dataset, name=name) for name in ("cnn", "vit")]
        for model in self.models:
            model.policy = {"batch": {"max_samples": 8}}
        jobs = [factories.job(model_id=model.id, finished=True) for model in self.models]
        with self.transaction():
            for rows in ([self.dataset], self.models, jobs, factories.samples(self.dataset)):
                self.session.add_all(rows)
                self.session.flush()
            for model, job in zip(self.models, jobs, strict=True):
                self.session.add(factories.version(model, job))
        self.ended = {}
        self.named = {}
        self.turn = 0
        self.seen = Counter()
        self.claims = []

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.session.close()
            self.outer.rollback()
            self.connection.close()
            self.engine.dispose()

    @contextmanager
    def transaction(self):
        if self.session.in_transaction():
            self.session.commit()  # what an invariant has read
        try:
            with self.session.begin():
                yield
        finally:
            self.read.clear()

    def rows(self, table):
        """All rows of a table; read once after each transaction."""
        if table not in self.read:
            self.read[table] = self.session.scalars(select(table)).all()
        return self.read[table]

    @rule(
        named=st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=4, unique=True),
        of=st.sampled_from(["cnn", "vit", "both"]),
        at_once=st.booleans(),
    )
    def ask(self, named, of, at_once):
        request = factories.request(self.dataset, samples=len(named))
        self.named[request.id] = set(named)
        with self.transaction():
            self.session.add(request)
            self.session.flush()
            for model in self.models:
                if of in (model.name, "both"):
                    self.session.add(factories.target(request, model))
            self.session.add_all(factories.request_samples(request, *named))
        if at_once:
            self.plan_and_take()

    @rule()
    def plan_and_take(self):
        with self.transaction():
            planner.plan(self.session)
        with self.transaction():
            waiting = self.session.scalars(select(Job.id).where(*jobs.is_ready())).all()
            for job in waiting:
                self.claims.append(lease.claim(self.session, job, worker="w", lease=LEASE))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def end_an_attempt(self, data):
        self.end(
            data.draw(st.sampled_from(self.claims[-3:])),
            how=ENDS[(3 * self.turn + 2 * len(self.named)) % len(ENDS)],
        )

    def end(self, claim, *, how):
        ways = {
            "pass": lambda job: self.make_a_version(job, failed=False),
            "review": lambda job: self.make_a_version(job, failed=True),
            "fail": lambda job: jobs.fail(
                self.session, job, actor="worker", kind="bug", reason="it broke"
            ),
            "lose": lambda job: jobs.lose(
                self.session, job, actor="worker", why="killed", max_losses=2
            ),
            "release": lambda job: jobs.release(self.session, job, actor="worker", why="stopped"),
        }
        current = self.session.scalar(
            select(Job.id).filter_by(
                id=claim.job_id, attempt=claim.attempt, status=JobStatus.RUNNING
            )
        )
        if current is None:
            self.seen["a lost claim"] += 1
            for refused in (lease.hold, partial(lease.renew, lease=LEASE)):
                with pytest.raises(LeaseLost), self.transaction():
                    refused(self.session, claim)
            self.claims.remove(claim)
            return
        self.turn += 1
        self.seen[how] += 1
        with self.transaction():
            ways[how](lease.hold(self.session, claim))

    def make_a_version(self, job, *, failed):
        """As `unlearn_model` ends; none, where nothing was left to forget."""
        order = read_order(self.session, job.id)
        champion = order.champion
        if not order.forget:
            forgetting.record_forgotten(self.session, job_id=job.id, model_id=order.model.id)
            jobs.complete(self.session, job, actor="worker")
            return
        made = factories.version(
            order.model,
            job,
            number=record._next_number(self.session, order.model.id),
            status=VersionStatus.CANDIDATE,
            mode=Mode.APPROXIMATE,
            parent_id=champion.id,
        )
        covered = job.accepted_job_id is not None and self.turn % 2 == 0
        if failed and not covered:
            self.session.add(made)
            self.session.flush()
            record._ask_anew(self.session, job.id)
            jobs.complete(self.session, job, actor="worker", requests=RequestStatus.NEEDS_REVIEW)
        else:
            forgetting.promote(self.session, made, over=champion, actor="worker")
            forgetting.record_forgotten(self.session, job_id=job.id, model_id=order.model.id)
            jobs.complete(self.session, job, actor="worker")

    @precondition(lambda self: self.some(Job, JobStatus.RUNNING))
    @rule(seldom=SELDOM)
    def leases_run_out(self, seldom):
        if not seldom:
            return
        with self.transaction():
            over = func.now() - LEASE
            held = update(Job).where(Job.status == JobStatus.RUNNING)
            self.session.execute(held.values(lease_until=over))
            planner.free_expired(self.session, max_losses=2)

    @precondition(lambda self: self.some(DeletionRequest, *CANCELLABLE))
    @rule(data=st.data(), seldom=SELDOM)
    def cancel(self, data, seldom):
        if not seldom:
            return
        self.cancel_one(self.draw_one(data, DeletionRequest, *CANCELLABLE))

    def cancel_one(self, request):
        status = self.session.get(DeletionRequest, request).status
        self.as_client(f"cancel {status}", lambda: cancellation._cancel(self.session, request))

    @precondition(lambda self: self.some(DeletionRequest, RequestStatus.NEEDS_REVIEW))
    @rule(data=st.data())
    def decide(self, data):
        # Walks come here too seldom to draw; and what they do must follow from themselves.
        decision = list(Decision)[(self.turn + 1) % 3]
        self.decide_one(self.draw_one(data, DeletionRequest, RequestStatus.NEEDS_REVIEW), decision)

    def decide_one(self, request, decision):
        wanted = DecisionCreate(decision=decision, ground="it was looked at")
        if decision is not Decision.ACCEPT:
            self.as_client(decision, lambda: decisions._decide(self.session, request, wanted))
            return
        mine = {"request_id": request, "status": RequestStatus.NEEDS_REVIEW}
        reviewed = self.session.scalars(select(DeletionTarget).filter_by(**mine)).all()
        with self.transaction():
            decisions._decide(self.session, request, wanted)  # it is never too late
        for target in reviewed:
            done = target.status is RequestStatus.COMPLETED
            assert done or (target.status is RequestStatus.PENDING and target.accepted_job_id)
            self.seen["accept" if done else "accept what was overtaken"] += 1

    @precondition(lambda self: self.some(Job, JobStatus.FAILED))
    @rule(data=st.data())
    def retry(self, data):
        job = self.draw_one(data, Job, JobStatus.FAILED)
        self.as_client("retry a job", lambda: retry._retry(self.session, job))

    @rule(
        seldom=SELDOM,
        table=st.sampled_from(
            [
                (DeletionTarget, REQUEST_STEPS, RequestStatus),
                (Job, JOB_STEPS, JobStatus),
                (ModelVersion, VERSION_STEPS, VersionStatus),
            ]
        ),
        data=st.data(),
    )
    def somebody_tries_an_unlawful_step(self, seldom, table, data):
        if not seldom:
            return
        rows, steps, statuses = table
        source = data.draw(st.sampled_from(statuses))
        lawful = {source, *steps.get(source, ())}
        target = data.draw(
            st.sampled_from([each for each in statuses if each not in lawful] or [0])
        )
        if not target or not self.session.scalar(select(rows.status).filter_by(status=source)):
            return
        with pytest.raises(IntegrityError), self.transaction():
            self.session.execute(
                text(f"UPDATE {rows.__tablename__} SET status = :target WHERE status = :source"),
                {"target": target.value, "source": source.value},
            )

    def some(self, table, *statuses):
        """Ids of the rows in these statuses."""
        return sorted(row.id for row in self.rows(table) if row.status in statuses)

    def draw_one(self, data, table, *statuses):
        return data.draw(st.sampled_from(self.some(table, *statuses)))

    def as_client(self, what, operation):
        with suppress(DomainError):
            with self.transaction():
                operation()
            self.seen[what] += 1

    @invariant()
    def what_a_job_serves_is_as_far_as_the_job(self):
        jobs = {job.id: job for job in self.rows(Job)}
        for target in self.rows(DeletionTarget):
            job = jobs.get(target.job_id)
            if target.status in (RequestStatus.PENDING, RequestStatus.CANCELLED):
                assert job is None
            elif target.status is RequestStatus.SCHEDULED:
                assert job.status is JobStatus.QUEUED
            elif target.status is RequestStatus.RUNNING:
                assert job.status is JobStatus.RUNNING
            elif target.status in (RequestStatus.COMPLETED, RequestStatus.NEEDS_REVIEW):
                assert job.status is JobStatus.COMPLETED
            if job is not None:
                assert job.model_id == target.model_id
            if target.status in (RequestStatus.SCHEDULED, RequestStatus.RUNNING):
                assert target.accepted_job_id == job.accepted_job_id

    @invariant()
    def an_acceptance_stands_where_it_was_given(self):
        given = self.rows(ReviewDecision)
        decided = {(each.request_id, each.job_id, each.decision) for each in given}
        for target in self.rows(DeletionTarget):
            if accepted := target.accepted_job_id:
                assert target.status is not RequestStatus.NEEDS_REVIEW
                assert (target.request_id, accepted, Decision.ACCEPT) in decided

    @invariant()
    def a_model_has_one_open_job_and_one_champion(self):
        jobs = Counter(job.model_id for job in self.rows(Job) if job.status in OPEN_JOBS)
        assert all(count == 1 for count in jobs.values())
        versions = self.rows(ModelVersion)
        champions = [each.model_id for each in versions if each.status is VersionStatus.CHAMPION]
        assert sorted(champions) == sorted(model.id for model in self.models)

    @invariant()
    def a_request_is_the_sum_of_its_targets(self):
        statuses = {}
        for target in self.rows(DeletionTarget):
            statuses.setdefault(target.request_id, []).append(target)
        for request in self.rows(DeletionRequest):
            assert request.status == total(statuses[request.id])
            assert (request.finished_at is not None) == (request.status in (*FINAL, "failed"))

    @invariant()
    def what_is_final_stays(self):
        now = {request.id: request.status for request in self.rows(DeletionRequest)}
        for request, status in self.ended.items():
            assert now[request] is status
        self.ended = {request: status for request, status in now.items() if status in FINAL}

    @invariant()
    def every_state_has_its_event(self):
        told = {}
        for row in sorted(self.rows(AuditEvent), key=lambda row: row.id):
            told[row.subject_id] = row.event.removeprefix("request.").removeprefix("job.")
        for request in self.rows(DeletionRequest):
            if request.status is not RequestStatus.PENDING:
                assert told[request.id] in (request.status, "cancel_asked", "decided")
        words = {"queued": {"queued", "released", "retried"}, "running": {"started"}}
        for job in (job for job in self.rows(Job) if job.objective is not None):
            assert told[job.id] in words.get(job.status, {job.status})

    @invariant()
    def what_was_forgotten_is_buried_and_never_served_again(self):
        buried = {(t.model_id, t.digest): t for t in self.rows(Tombstone)}
        versions = {v.id: v for v in self.rows(ModelVersion)}
        of_job = {version.job_id: version for version in versions.values()}
        served = {}
        for version in versions.values():
            if version.status is VersionStatus.CHAMPION:
                line = served.setdefault(version.model_id, set())
                while version is not None:
                    line.add(version.id)
                    version = versions.get(version.parent_id)
        for (model_id, _), tombstone in buried.items():
            made = of_job.get(tombstone.job_id)
            assert made is None or made.id in served[model_id]
        targets = self.rows(DeletionTarget)
        completed = [target for target in targets if target.status is RequestStatus.COMPLETED]
        digests = {name: sample_digests.digest(factories.KEY, name) for name in SAMPLES}
        assert set(buried) == {
            (target.model_id, digests[name])
            for target in completed
            for name in self.named[target.request_id]
        }

    @invariant()
    def the_ids_of_a_request_are_kept_until_its_end_and_no_longer(self):
        kept = {}
        for row in self.rows(RequestSample):
            kept.setdefault(row.request_id, set()).add(row.sample_id)
        requests = [each.id for each in self.rows(DeletionRequest) if each.status not in FINAL]
        assert kept == {request: self.named[request] for request in requests}
