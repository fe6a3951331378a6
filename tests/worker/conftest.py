"""A job's workbench on a real database, and small real datasets in Parquet."""

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy.orm import Session, sessionmaker

from domain.settings import WorkerSettings
from domain.states import JobKind
from domain.tables import Dataset, Job, Model
from tests import factories
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.store.artifacts import Store

COLUMNS = {"sample_id": "id", "input": "pixels", "label": "digit", "split": "part"}
SPLITS = {"train": "train", "holdout": "valid", "test": "test"}


@pytest.fixture
def definition() -> dict[str, Any]:
    return {
        "kind": "pixels", "columns": COLUMNS, "splits": SPLITS, "input_shape": [4],
        "bad_rows": "refuse",
    }  # fmt: skip


@pytest.fixture
def rows() -> Callable[..., dict[str, Any]]:
    """Columns of a sound dataset of `count` arrays; columns given by keyword replace them."""

    def make(count: int = 12, **columns: Any) -> dict[str, Any]:
        return {
            "id": [f"person-{n}" for n in range(count)],
            "pixels": pa.array([[n % 256] * 4 for n in range(count)], pa.list_(pa.uint8())),
            "digit": [n % 3 for n in range(count)],
            "part": [["train", "train", "valid", "test"][n % 4] for n in range(count)],
            **columns,
        }

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write columns to a Parquet file below the data root; its path."""

    def to_file(columns: dict[str, Any] | pa.Table, name: str = "data.parquet", **how: Any) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, path, **how)
        return path

    return to_file


@pytest.fixture
def register(
    sync_sessions: sessionmaker[Session], definition: dict[str, Any]
) -> Callable[..., Dataset]:
    """A dataset's row; by keyword, whatever is different."""

    def add(path: Path, **columns: Any) -> Dataset:
        with sync_sessions.begin() as session:
            dataset = Dataset(
                **{"name": f"data {path}", "uri": str(path), "definition": definition, **columns}
            )
            session.add(dataset)
        return dataset

    return add


@pytest.fixture
def session(sync_sessions: sessionmaker[Session]) -> Iterator[Session]:
    """One session for tests that look at rows while they change."""
    with sync_sessions() as session:
        yield session


@pytest.fixture
def dataset(session: Session) -> Dataset:
    """A ready dataset, without files."""
    dataset = factories.dataset()
    session.add(dataset)
    session.flush()
    return dataset


@pytest.fixture
def model(session: Session, dataset: Dataset) -> Model:
    """A ready model of that dataset, without files."""
    model = factories.model(dataset)
    session.add(model)
    session.flush()
    return model


@pytest.fixture
def bury() -> Callable[..., None]:
    """Have a model of a new dataset forget samples with these ids."""

    def put(session: Session, *ids: str, **of: Any) -> None:
        dataset = factories.dataset(**of)
        model = factories.model(dataset, name=f"model of {dataset.name}")
        job = factories.job(model_id=model.id, finished=True)
        key = dataset.tombstone_key
        graves = [factories.tombstone(model, job, name, key=key) for name in ids]
        for rows in ([dataset], [model], [job], graves):
            session.add_all(rows)
            session.flush()

    return put


@pytest.fixture
def workbench(sync_sessions: sessionmaker[Session], tmp_path: Path) -> Callable[..., Workbench]:
    """A workbench for a claimed job; one store for all of a test."""

    def make(claimed: lease.Claim, **settings: Any) -> Workbench:
        known = WorkerSettings(
            database_url="postgresql://unused",
            broker_url="redis://unused",
            store=tmp_path / "store",
            data_roots=[tmp_path],
            **{"device": "cpu", **settings},
        )
        store = Store(tmp_path / "store")
        return Workbench(claimed, sync_sessions, store, known)

    return make


@pytest.fixture
def bench_of(
    sync_sessions: sessionmaker[Session], workbench: Callable[..., Workbench]
) -> Callable[..., Workbench]:
    """A workbench with this job, claimed; a job that is not stored yet is stored first."""

    def claim(job: Job | UUID, **settings: Any) -> Workbench:
        with sync_sessions.begin() as session:
            if isinstance(job, Job):
                stored = session.merge(job)
                session.flush()
                job = stored.id
            claimed = lease.claim(session, job, worker="test", lease=timedelta(minutes=5))
        assert claimed is not None
        return workbench(claimed, **settings)

    return claim


@pytest.fixture
def bench_for(bench_of: Callable[..., Workbench]) -> Callable[..., Workbench]:
    """A workbench with a claimed job that registers a dataset or a model."""

    def claim(target: Dataset | Model, **settings: Any) -> Workbench:
        if isinstance(target, Model):
            return bench_of(Job(kind=JobKind.REGISTER_MODEL, model_id=target.id), **settings)
        return bench_of(Job(kind=JobKind.INDEX_DATASET, dataset_id=target.id), **settings)

    return claim


@pytest.fixture
def module_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Put functions and classes into a module of this name, as if a user had written it."""

    def make(name: str, *members: Any) -> ModuleType:
        module = ModuleType(name)
        for member in members:
            setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make


@pytest.fixture
def refreshed(sync_sessions: sessionmaker[Session]) -> Callable[[Any], Any]:
    """A row as it is in the database now."""

    def read(row: Any) -> Any:
        with sync_sessions.begin() as session:
            return session.get_one(type(row), row.id, populate_existing=True)

    return read


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
