"""What goes with a deleted model or dataset, and what says that it went."""

import pytest
from sqlalchemy import func, select, update

from domain import forgetting
from domain.states import JobKind, JobStatus, RegistrationStatus, RequestStatus, RowsStatus
from domain.tables import (
    AuditEvent,
    Dataset,
    Job,
    MembershipStatistics,
    Model,
    ModelVersion,
    OutOfSamplePrediction,
    PooledStatistic,
    ReferenceTables,
    Sample,
    Tombstone,
    derived_data,
)
from tests import factories
from tests.worker.old_versions import made, putting, sweep, taken
from worker.engine.workbench import Workbench
from worker.jobs.erase_rows import erasable
from worker.jobs.purge import purge
from worker.store import version_files
from worker.store.artifacts import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def deleted(sync_sessions, store):
    """A model with two versions and what reference models left, deleted just now."""
    old, new = made(sync_sessions, putting(store))
    with sync_sessions.begin() as session:
        model = session.get_one(Model, new.model_id)
        job = factories.job(model_id=model.id, finished=True)
        session.add(job)
        session.flush()
        session.add(ReferenceTables(model_id=model.id, job_id=job.id, models=2, recipe="r"))
        known = {"model_id": model.id, "sample_id": "t1"}
        session.add(OutOfSamplePrediction(**known, probabilities=b"00"))
        session.add(MembershipStatistics(**known, out_mean=0.0, out_std=1.0))
        session.add(
            PooledStatistic(
                job_id=job.id, unit=0, model_id=model.id, samples=1, before=0.5, after=0.5,
                peers=1, everyone=1,
            )
        )  # fmt: skip
        champion = session.get_one(ModelVersion, new.id)
        forgetting.supersede(session, champion, actor="api", at_once=True)
        model.status, model.deleted_at = RegistrationStatus.DELETED, func.now()
    return model, [old, new]


def do(sessions, store, job_id):
    purge(Workbench(taken(sessions, job_id), sessions, store, None))


def told(sessions, event):
    with sessions() as session:
        return list(session.scalars(select(AuditEvent.data).filter_by(event=event)))


def test_nothing_of_a_deleted_model_is_left_but_the_evidence(
    sync_sessions, store, deleted, refreshed
):
    model, versions = deleted
    with sync_sessions.begin() as session:
        job = session.scalars(select(Job).filter_by(model_id=model.id)).first()
        session.add(factories.tombstone(model, job, "t2"))
    [job_id] = sweep(sync_sessions)

    do(sync_sessions, store, job_id)

    stored = [getattr(each, name) for each in versions for name in version_files.FILES]
    files = [digest for digest in stored if digest]  # only a head on a backbone has features
    assert store.listed(files) == set()
    assert refreshed(model).purged_at is not None
    with sync_sessions() as session:
        for table in (ReferenceTables, OutOfSamplePrediction, MembershipStatistics):
            assert session.scalar(select(func.count()).select_from(table)) == 0
        kinds = session.scalars(
            select(derived_data.c.kind).where(derived_data.c.purged_at.is_(None))
        ).all()
        assert session.scalar(select(func.count()).select_from(Tombstone)) == 1
    assert kinds == ["source_weights"]
    [purged] = told(sync_sessions, "model.purged")
    assert (purged["job"], purged["versions"]) == (str(job_id), 2)
    assert purged["rows"] == {
        "out_of_sample_predictions": 1, "membership_statistics": 1, "near_duplicates": 0,
        "pooled_statistics": 1, "reference_tables": 1,
    }  # fmt: skip
    assert sweep(sync_sessions) == []


def test_rows_that_stayed_because_of_it_are_erased_now(sync_sessions, store, deleted):
    model, _ = deleted
    with sync_sessions.begin() as session:
        dataset = session.get_one(Dataset, model.dataset_id)
        erase = {"definition": {**dataset.definition, "erase": {"parquet": True}}}
        session.execute(update(Dataset).filter_by(id=dataset.id).values(**erase))
        session.add(
            factories.request(
                dataset, status=RequestStatus.COMPLETED, finished_at=factories.NOW,
                rows_status=RowsStatus.HELD,
            )
        )  # fmt: skip
        job = session.scalars(select(Job).filter_by(model_id=model.id)).first()
        session.add_all(factories.samples(dataset))
        session.add(factories.tombstone(model, job, "t2"))
    with sync_sessions.begin() as session:
        purge_job = factories.job(kind=JobKind.PURGE, model_id=model.id)
        session.add(purge_job)

    do(sync_sessions, store, purge_job.id)

    with sync_sessions() as session:
        erasing = select(Job).filter_by(kind=JobKind.ERASE_ROWS, status=JobStatus.QUEUED)
        assert session.scalars(erasing).one().dataset_id == model.dataset_id
        dataset = session.get_one(Dataset, model.dataset_id)
        assert erasable(session, dataset) == {"t2"}
        other = factories.model(dataset, name="other")
        session.add(other)
        session.flush()
        assert erasable(session, dataset) == set()


def test_the_index_of_a_deleted_dataset_goes(sync_sessions, store, refreshed):
    with sync_sessions.begin() as session:
        dataset = factories.dataset(status=RegistrationStatus.DELETED, deleted_at=factories.NOW)
        other = factories.dataset(name="other")
        session.add_all([dataset, other])
        session.flush()
        session.add_all([*factories.samples(dataset), *factories.samples(other, train=3)])
    [job_id] = sweep(sync_sessions)

    do(sync_sessions, store, job_id)

    assert refreshed(dataset).purged_at is not None
    with sync_sessions() as session:
        left = session.scalars(select(Sample.dataset_id).distinct()).all()
    assert left == [other.id]
    assert told(sync_sessions, "dataset.purged") == [{"job": str(job_id), "samples": 12, "left": 0}]
    assert sweep(sync_sessions) == []
