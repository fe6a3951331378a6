"""What was derived from a forgotten sample: which files are deleted, and which still hold it."""

from uuid import UUID

import numpy as np
from sqlalchemy import any_, literal, select, text

from domain import sample_digests
from domain.states import JobKind, Split, VersionStatus
from domain.tables import (
    Dataset,
    Job,
    MembershipStatistics,
    Model,
    ModelVersion,
    OutOfSamplePrediction,
    ReferenceTables,
    Sample,
    Tombstone,
    VerdictTest,
    derived_data,
)
from tests.worker.jobs.unlearn.digit_models import ALLOWED, COUNT, NAMED, PARTS, TRAIN, flat_floats
from worker.data import reservoir
from worker.jobs.register_model import register_model
from worker.jobs.unlearn.job import unlearn_model
from worker.store import job_checkpoints


def test_a_holdout_sample_leaves_the_reservoir_and_the_old_file_goes(
    registered, ask, sync_sessions
):
    model = registered(flat_floats)
    with sync_sessions() as session:
        before = session.scalars(select(ModelVersion.reservoir_sha256)).one()
    held_out = next(f"digit-{n}" for n in range(COUNT) if PARTS[n] == "valid")
    bench = ask(model, held_out)

    unlearn_model(bench)

    with sync_sessions() as session:
        version = session.scalars(select(ModelVersion)).one()
    assert version.number == 1
    assert (
        held_out
        not in reservoir.read(bench.store, version.reservoir_sha256)["sample_id"].to_pylist()
    )
    assert list(bench.store.root.rglob(before)) == []


def test_what_holds_a_forgotten_sample_is_one_query(registered, ask, sync_sessions):
    def where(sample_id):
        """Everything derived from data that holds this forgotten sample."""
        with sync_sessions() as session:
            key = session.scalars(select(Dataset.tombstone_key)).one()
            digest = sample_digests.digest(key, sample_id)
            job_id = session.scalars(select(Tombstone.job_id).filter_by(digest=digest)).one()
            holding = literal(job_id) == any_(derived_data.c.tainted_by)
            rows = session.execute(
                select(derived_data.c.kind, derived_data.c.version).where(
                    holding, derived_data.c.purged_at.is_(None)
                )
            )
            return {(row.kind.value, row.version) for row in rows}

    def an_hour_passes():
        """The test is one transaction, in which Postgres' clock stands still."""
        with sync_sessions.begin() as session:
            for statement in (
                "ALTER TABLE model_versions DISABLE TRIGGER USER",
                "UPDATE model_versions SET created_at = created_at - interval '1 hour', "
                "superseded_at = superseded_at - interval '1 hour'",
                "UPDATE jobs SET forgotten_at = forgotten_at - interval '1 hour'",
                "ALTER TABLE model_versions ENABLE TRIGGER USER",
            ):
                session.execute(text(statement))

    model = registered(flat_floats, escalation=[], max_test_accuracy_drop=1.0)
    an_hour_passes()
    held_out = next(f"digit-{n}" for n in range(COUNT) if PARTS[n] == "valid")
    unlearn_model(ask(model, held_out))  # makes no version: the champion's reservoir is replaced
    first = {("source_weights", None)}
    assert where(held_out) == first

    for name in NAMED[:2]:
        an_hour_passes()
        bench = ask(model, name)
        unlearn_model(bench)
        assert ("checkpoint", None) in where(name)
        job_checkpoints.delete_if_ended(sync_sessions, bench.store, bench.claim.job_id)

    with sync_sessions() as session:
        statuses = session.scalars(select(ModelVersion.status).order_by(ModelVersion.number)).all()
    assert statuses == ["superseded", "superseded", "champion"]
    assert where(held_out) == first
    files = ("weights", "statistics", "reservoir")
    first |= {(kind, 1) for kind in files}
    assert where(NAMED[0]) == first
    assert where(NAMED[1]) == first | {(kind, 2) for kind in files}


def test_another_model_keeps_what_only_this_one_was_asked_to_forget(
    registered, ask, bench_for, sync_sessions, refreshed
):
    model = registered(flat_floats, escalation=[])
    with sync_sessions.begin() as session:
        same = ("dataset_id", "weights_uri", "architecture", "head", "preprocessing", "policy")
        other = Model(id=UUID(int=2), name="other", **{name: getattr(model, name) for name in same})
        session.add(other)
    register_model(bench_for(other, **ALLOWED))
    bench = ask(model, *NAMED[:5])

    unlearn_model(bench)

    with sync_sessions() as session:
        kept = session.scalars(
            select(ModelVersion.reservoir_sha256).filter_by(model_id=other.id)
        ).one()
        tainted = session.scalars(
            select(derived_data.c.tainted_by).where(derived_data.c.model_id == other.id)
        ).all()
    ids = reservoir.read(bench.store, kept)["sample_id"].to_pylist()
    assert {*NAMED[:5]} & {*ids}
    assert tainted == [[]] * 4


def test_what_reference_models_said_is_used_and_goes_with_the_samples(
    registered, ask, outcome, sync_sessions
):
    model = registered(flat_floats, escalation=[])
    with sync_sessions.begin() as session:
        job_id = session.scalars(select(Job.id).filter_by(kind=JobKind.REGISTER_MODEL)).one()
        session.add(
            ReferenceTables(model_id=model.id, job_id=job_id, models=4, recipe="toy_models:learn")
        )
        samples = session.scalars(select(Sample).filter_by(dataset_id=model.dataset_id)).all()
        for sample in samples:
            mean, std = 2.0 + sample.position % 3, 1.0
            session.add(
                MembershipStatistics(
                    model_id=model.id, sample_id=sample.sample_id, out_mean=mean, out_std=std
                )
            )
            if sample.split is Split.TRAIN:
                answer = np.full(10, 0.1, dtype="<f2").tobytes()
                session.add(
                    OutOfSamplePrediction(
                        model_id=model.id, sample_id=sample.sample_id, probabilities=answer
                    )
                )
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    with sync_sessions() as session:
        names = session.scalars(select(VerdictTest.name).filter_by(job_id=job.id, moment="after"))
        assert "membership_per_sample" in set(names)
        left = [
            set(session.scalars(select(table.sample_id)))
            for table in (OutOfSamplePrediction, MembershipStatistics)
        ]
    gone = set() if version.status is VersionStatus.CANDIDATE else set(NAMED)
    assert all(set(TRAIN) - names == gone for names in left)
