"""A dataset of two files, models that have forgotten rows of it, and the job that erases."""

import pyarrow as pa
import pytest
from sqlalchemy import select

from domain.states import JobKind
from domain.tables import AuditEvent, Job
from tests import factories
from worker.jobs.index_dataset import index_dataset


@pytest.fixture
def files(rows, write):
    """Two files of twelve rows in row groups of four, compressed in two ways."""
    how = {"row_group_size": 4, "compression": {"id": "snappy", "pixels": "zstd"}}
    table = pa.table(rows(24)).replace_schema_metadata({"kept": "as it was"})
    return [write(table.slice(12 * n, 12), f"part-{n}.parquet", **how) for n in (0, 1)]


@pytest.fixture
def dataset(files, register, bench_for, definition, refreshed):
    asked = {**definition, "erase": {"parquet": True}}
    dataset = register(files[0].parent, definition=asked)
    index_dataset(bench_for(dataset))
    return refreshed(dataset)


@pytest.fixture
def add_model(sync_sessions, dataset):
    """A model that has forgotten these."""

    def add(name, *ids, **columns):
        model = factories.model(dataset, name=name, **columns)
        job = factories.job(model_id=model.id, finished=True)
        with sync_sessions.begin() as session:
            for row in (model, job):
                session.add(row)
                session.flush()
            key = dataset.tombstone_key
            session.add_all(factories.tombstone(model, job, each, key=key) for each in ids)
        return model

    return add


@pytest.fixture
def claimed(dataset, bench_of):
    """A workbench with a claimed job that erases: with this one, or a new one."""

    def claim(job_id=None):
        return bench_of(job_id or Job(kind=JobKind.ERASE_ROWS, dataset_id=dataset.id))

    return claim


@pytest.fixture
def erased(sync_sessions):
    """What the audit trail says."""

    def read():
        with sync_sessions.begin() as session:
            return list(session.scalars(select(AuditEvent).filter_by(event="dataset.erased")))

    return read
