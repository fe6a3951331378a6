"""Weights that were trained elsewhere become the champion, if what was declared of them holds."""

from datetime import timedelta
from functools import cache
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_model
from sqlalchemy import delete, func, select, update

from domain import jobs
from domain.drift import of_version
from domain.errors import JobError
from domain.sample_digests import digest
from domain.states import JobKind, RegistrationStatus, RequestStatus, VersionStatus
from domain.tables import (
    AuditEvent,
    Dataset,
    DatasetState,
    DeletionTarget,
    FormerSample,
    Job,
    LiftedSample,
    ModelVersion,
    PooledAudit,
    RequestSample,
    Sample,
    SuppressionLift,
    Tombstone,
    VersionRegistration,
    derived_data,
)
from tests import factories
from tests.worker.jobs.unlearn.digit_models import (
    ALLOWED,
    COUNT,
    LABELS,
    PARTS,
    PIXELS,
    TRAIN,
    flat_floats,
    learn,
    perceptron,
    trained,
)
from worker.data import reservoir
from worker.housekeeping import planner
from worker.jobs import register_version as module
from worker.jobs.register_version import register_version
from worker.jobs.unlearn import pooled
from worker.jobs.unlearn.job import unlearn_model
from worker.networks.recipes import TrainingData
from worker.unlearning.audit.pooled import Unit, judge
from worker.unlearning.samples import Samples

GONE, ASKED, OTHERS = TRAIN[:6], TRAIN[6:12], TRAIN[12:15]
HOLDOUT = f"digit-{list(PARTS).index('valid')}"


@cache
def learned(*left_out, seed=5):
    """The perceptron, trained on all training samples but these."""
    torch.manual_seed(seed)
    rows = [n for n in range(COUNT) if PARTS[n] == "train" and f"digit-{n}" not in left_out]
    samples = Samples(torch.tensor(PIXELS[rows]), torch.tensor(LABELS[rows]))
    data = TrainingData(samples, lambda pixels: pixels.float() / 16)
    return learn(perceptron(), data, seed=seed)


def without(*ids):
    return [each for each in TRAIN if each not in ids]


@pytest.fixture
def model(registered):
    """A model that is retrained for each job."""
    return registered(flat_floats, recipe="learn", escalation=[], max_test_accuracy_drop=1.0)


@pytest.fixture
def forgotten(model, ask):
    """It has forgotten `GONE`."""
    unlearn_model(ask(model, *GONE, exact=True))


@pytest.fixture
def asked(model, sync_sessions):
    """A request for these samples, that waits or is as keywords say; its id."""

    def make(*ids, **of_target):
        with sync_sessions.begin() as session:
            status = of_target.get("status", RequestStatus.PENDING)
            ended = {"finished_at": func.now()} if status is RequestStatus.FAILED else {}
            dataset = factories.dataset(id=model.dataset_id)  # for its id alone
            request = factories.request(dataset, samples=len(ids), status=status, **ended)
            session.add(request)
            session.flush()
            session.add(factories.target(request, model, **of_target))
            session.add_all(factories.request_samples(request, *ids))
        return request.id

    return make


@pytest.fixture
def offer(model, sync_sessions, bench_of, write, tmp_path):
    """A workbench for the job that registers this network."""

    def make(network, ids=None, *, read_at=None, **columns):
        place = tmp_path / f"version-{len(list(tmp_path.iterdir()))}.safetensors"
        save_model(network, str(place))
        trained_on = {"split_read_at": read_at.isoformat()} if read_at else {"column": "id"}
        if read_at is None:
            trained_on["uri"] = str(write({"id": ids}, f"{place.stem}/ids.parquet"))
        with sync_sessions.begin() as session:
            job = jobs.queue(session, JobKind.REGISTER_VERSION, actor="api", model_id=model.id)
            session.add(
                VersionRegistration(
                    **{
                        "model_id": model.id, "job_id": job.id, "idempotency_key": str(job.id),
                        "fingerprint": "f", "weights_uri": str(place), "trained_on": trained_on,
                        "accept_accuracy": False, "accept_memory": False,
                    }
                    | columns
                )
            )  # fmt: skip
        return bench_of(job.id, **ALLOWED)

    return make


@pytest.fixture
def refused(offer, sync_sessions, model):
    """Why a registration fails; the champion stays."""

    def run(*args, **columns):
        bench = offer(*args, **columns)
        with pytest.raises(JobError) as caught:
            register_version(bench)
        with sync_sessions.begin() as session:
            job = session.get_one(Job, bench.claim.job_id)
            jobs.fail(session, job, actor="worker", kind="input", reason=str(caught.value))
            row = session.scalars(select(VersionRegistration).filter_by(job_id=job.id)).one()
            assert (row.status, row.failure) == (RegistrationStatus.FAILED, str(caught.value))
            made = session.scalars(select(ModelVersion).filter_by(job_id=job.id)).all()
            assert not made
        assert not any(each in str(caught.value) for each in TRAIN)
        return str(caught.value)

    return run


def read(sync_sessions, bench):
    with sync_sessions() as session:
        version = session.scalars(select(ModelVersion).filter_by(job_id=bench.claim.job_id)).one()
        targets = {target.request_id: target for target in session.scalars(select(DeletionTarget))}
    return version, targets


def test_it_is_served_and_answers_what_it_was_trained_without(
    model, forgotten, asked, offer, sync_sessions
):
    covered, open_still = asked(*ASKED, HOLDOUT), asked(*OTHERS)
    also = asked(ASKED[0], OTHERS[0])
    bench = offer(learned(*GONE, *ASKED), without(*GONE, *ASKED))

    register_version(bench)

    version, targets = read(sync_sessions, bench)
    assert (version.number, version.status, version.mode) == (3, "champion", "exact")
    assert targets[covered].status is RequestStatus.COMPLETED
    assert (targets[covered].job_id, targets[covered].already_forgotten) == (version.job_id, 0)
    assert targets[open_still].status is targets[also].status is RequestStatus.PENDING
    drift = of_version(version.number, version.figures)
    assert (drift.trained_on, drift.forgotten) == (len(TRAIN) - 12, 0)
    told = version.figures["declared"]
    assert (told["trained_on"], told["left_out"], told["accepted"]) == (len(TRAIN) - 12, 6, [])
    kept = reservoir.read(bench.store, version.reservoir_sha256)["sample_id"].to_pylist()
    assert not {*kept} & {*GONE, *ASKED, HOLDOUT}
    with sync_sessions() as session:
        old = session.scalars(select(ModelVersion).where(ModelVersion.number < 3)).all()
        buried = session.scalars(select(Tombstone).filter_by(job_id=version.job_id)).all()
        key = session.get_one(Dataset, model.dataset_id).tombstone_key
        left = session.scalars(select(RequestSample.request_id)).all()
        events = session.scalars(select(AuditEvent).filter_by(subject_id=version.id)).all()
        pool = session.get_one(PooledAudit, version.job_id)
        sources = session.execute(
            select(derived_data.c.version, derived_data.c.tainted_by).where(
                derived_data.c.kind == "source_weights"
            )
        ).all()
    assert all(each.status is VersionStatus.SUPERSEDED and each.purge_after for each in old)
    assert {each.digest for each in buried} == {digest(key, each) for each in (*ASKED, HOLDOUT)}
    assert {*left} == {open_still, also}
    data = {each.event: each.data for each in events}
    assert data["version.created"]["mode"] == "declared"
    assert data["version.created"]["replaces_sha256"] == old[1].weights_sha256
    declared = data["version.declared"]
    assert (declared["left_out"], declared["requests"], declared["remeasured"]) == (6, 1, 12)
    assert declared["trained_on_sha256"] == told["trained_on_sha256"]
    assert (pool.version, pool.figures["samples"]) == (3, 12)
    assert dict(sources)[3] == []


def test_what_it_was_trained_on_is_forgotten_by_the_next_job(
    model, asked, offer, claim, sync_sessions
):
    request = asked(*OTHERS)
    register_version(offer(learned(), TRAIN))

    with sync_sessions.begin() as session:
        planner.plan(session)
    unlearn_model(claim(model))

    with sync_sessions() as session:
        target = session.scalars(select(DeletionTarget).filter_by(request_id=request)).one()
        made = session.scalars(select(ModelVersion).filter_by(job_id=target.job_id)).one()
        parent = session.get_one(ModelVersion, made.parent_id)
    assert (target.status, parent.number) == (RequestStatus.COMPLETED, 2)
    assert "declared" not in made.figures


def test_what_is_forgotten_must_not_be_among_what_it_was_trained_on(
    model, forgotten, refused, offer, sync_sessions
):
    network = perceptron()
    assert "trained on 2 that this model has forgotten" in refused(network, without(*GONE[2:]))
    early, now = factories.NOW - timedelta(days=1), factories.NOW + timedelta(hours=1)
    assert "6 samples" in refused(network, read_at=early)
    bench = offer(learned(*GONE), read_at=now)
    register_version(bench)
    version, _ = read(sync_sessions, bench)
    assert version.figures["declared"]["trained_on"] == len(TRAIN) - 6

    with sync_sessions.begin() as session:  # another model of the dataset forgot more
        other = factories.model(factories.dataset(id=model.dataset_id), name="other")
        job = factories.job(model_id=other.id, finished=True)
        key = session.get_one(Dataset, model.dataset_id).tombstone_key
        graves = [factories.tombstone(other, job, each, key=key) for each in OTHERS]
        for rows in ([other], [job], graves):
            session.add_all(rows)
            session.flush()
    told = refused(network, without(*GONE))
    assert "3 that other models of the dataset have forgotten" in told
    assert "/check`" in told

    with sync_sessions.begin() as session:
        lift = SuppressionLift(
            dataset_id=model.dataset_id, samples=1, reason="r", authorised_by="a", lifted_by="b"
        )
        moved = factories.job(kind=JobKind.INDEX_STATE, dataset_id=model.dataset_id, finished=True)
        session.add_all([lift, moved])
        session.flush()
        of = {"dataset_id": model.dataset_id, "lift_id": lift.id}
        session.add(LiftedSample(digest=digest(key, GONE[0]), **of))
        state = DatasetState(
            dataset_id=model.dataset_id, job_id=moved.id, idempotency_key="k", fingerprint="f",
            uri="u", refuse_suppressed=False, status=RegistrationStatus.READY, number=2,
            ready_at=now + timedelta(hours=2),
        )  # fmt: skip
        session.add(state)
    told = refused(network, without(*GONE[1:], *OTHERS))
    assert "register weights that know them as a new model" in told
    assert "were lifted" in refused(network, read_at=now)
    with sync_sessions.begin() as session:
        session.execute(update(SuppressionLift).values(lifted_at=now + timedelta(hours=2)))
    assert "Another state" in refused(network, read_at=now)


def test_a_declaration_that_leaves_something_open_is_refused(refused):
    for ids, reason in (
        (["digit-9999", *TRAIN], "1 of the 181 samples"),
        ([HOLDOUT, *TRAIN], "hold-out or test"),
        (TRAIN[5:], "5 samples of the training split"),
        ([None, *TRAIN], "1 rows without an id"),
        (pa.array([], pa.string()), "no ids"),
    ):
        assert reason in refused(perceptron(), ids)
    assert "those of version 1" in refused(trained(), TRAIN)
    assert "weights" in refused(torch.nn.Linear(64, 10), TRAIN)


@pytest.mark.parametrize(
    ("share", "accepted", "objections"), [(0.95, True, ["memory"]), (0.05, False, [])]
)
def test_weights_that_know_what_was_left_out_are_refused_whatever_was_declared(
    share, accepted, objections
):
    unit = Unit(samples=1, label=0, share=share, peers=50, everyone=50)
    seen = [unit] * 50
    pool = pooled.Pool(
        mine=[], found=judge(seen, seen), requests=1, remeasured=50, days=90, seen=seen,
        seen_before=seen,
    )  # fmt: skip
    examined = SimpleNamespace(figures={"accuracy_check": {"objections": []}})

    def objected(**row):
        return module._objections(SimpleNamespace(row=SimpleNamespace(**row)), examined, pool)

    assert objected(accept_memory=accepted) == objections
    if accepted:
        with pytest.raises(JobError, match="declared not to be trained on: of 50 samples"):
            objected(accept_memory=False)


def test_what_waited_for_a_decision_goes_on_and_what_failed_is_answered(
    model, asked, offer, sync_sessions
):
    with sync_sessions.begin() as session:
        tried = [factories.job(model_id=model.id, finished=True) for _ in range(2)]
        session.add_all(tried)
        session.flush()
        candidate = factories.version(model, tried[0], number=2, status=VersionStatus.CANDIDATE)
        session.add(candidate)
    review = RequestStatus.NEEDS_REVIEW
    waiting = asked(*OTHERS, status=review, job_id=tried[0].id)
    failed = asked(*ASKED, status=RequestStatus.FAILED, job_id=tried[1].id)
    bench = offer(learned(*ASKED), without(*ASKED))

    register_version(bench)

    version, targets = read(sync_sessions, bench)
    assert (targets[waiting].status, targets[waiting].job_id) == (RequestStatus.PENDING, None)
    assert targets[failed].status is RequestStatus.COMPLETED
    assert targets[failed].job_id == version.job_id
    with sync_sessions() as session:
        assert session.get_one(ModelVersion, candidate.id).status is VersionStatus.SUPERSEDED


def test_what_changes_meanwhile_is_looked_at_again(model, asked, offer, sync_sessions, monkeypatch):
    def meanwhile(*args):
        with sync_sessions.begin() as session:
            key = session.get_one(Dataset, model.dataset_id).tombstone_key
            job = factories.job(model_id=model.id, finished=True)
            session.add(job)
            session.flush()
            session.add(factories.tombstone(model, job, ASKED[0], key=key))
        return original(*args)

    original = module._pool
    asked(*ASKED)
    monkeypatch.setattr(module, "_pool", meanwhile)
    bench = offer(learned(*ASKED), without(*ASKED))

    register_version(bench)

    with sync_sessions() as session:
        job = session.get_one(Job, bench.claim.job_id)
        assert job.status == "queued"
        assert session.scalar(select(func.count()).select_from(ModelVersion)) == 1


def test_a_version_of_a_later_state_answers_what_waited_for_it(
    model, asked, offer, sync_sessions, refreshed
):
    gone = ASKED[0]
    with sync_sessions.begin() as session:
        session.execute(update(Dataset).values(state=2))
        session.execute(delete(Sample).where(Sample.sample_id == gone))
        of = {"dataset_id": model.dataset_id, "sample_id": gone}
        session.add(FormerSample(**of, since=1, removed_in=2))
    waits, other = asked(gone, former=1), asked(OTHERS[0])
    bench = offer(learned(gone), without(gone))

    register_version(bench)

    version, targets = read(sync_sessions, bench)
    assert targets[waits].status is RequestStatus.COMPLETED
    assert (targets[waits].job_id, targets[waits].former) == (version.job_id, 0)
    assert targets[other].status is RequestStatus.PENDING
    assert refreshed(model).state == 2
    with sync_sessions() as session:
        assert session.scalar(select(func.count()).select_from(FormerSample)) == 0


def test_a_state_that_is_indexed_meanwhile_has_the_job_begin_anew(
    model, asked, offer, sync_sessions, monkeypatch
):
    def meanwhile(*args):
        with sync_sessions.begin() as session:
            session.execute(update(Dataset).values(state=2))
        return original(*args)

    original = module._pool
    monkeypatch.setattr(module, "_pool", meanwhile)
    bench = offer(learned(), TRAIN)

    register_version(bench)

    with sync_sessions() as session:
        assert session.get_one(Job, bench.claim.job_id).status == "queued"
