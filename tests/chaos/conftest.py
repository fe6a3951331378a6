"""A stack without defects: a model that forgot three samples."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from devstack import roles
from domain.states import JobKind, RequestStatus, Verdict, VersionStatus
from domain.tables import IdempotencyKey
from tests import factories
from tests.chaos.planted import UNGUARDED, Planted, connect, files_of, promise, tell


@pytest.fixture(scope="session")
def built(
    new_database: Callable[..., str],
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path, dict[str, UUID]]:
    """A model that forgot three samples, on request and in two attempts; URL, store, ids."""
    url, store = new_database(migrated_template), tmp_path_factory.mktemp("store")
    dataset = factories.dataset()
    model = factories.model(dataset)
    indexing = factories.job(finished=True, kind=JobKind.INDEX_DATASET, dataset_id=dataset.id)
    indexing.attempt = 1
    registering = factories.job(finished=True, kind=JobKind.REGISTER_MODEL, model_id=model.id)
    registering.attempt = 1
    job = factories.job(finished=True, model_id=model.id, attempt=2, verdict=Verdict.PASS)
    first = factories.version(
        model, registering, status=VersionStatus.SUPERSEDED, superseded_at=factories.NOW,
        **files_of(store, b"first", ["t0", "t2", "h0"]),
    )  # fmt: skip
    second = factories.version(
        model, job, number=2, parent_id=first.id, **files_of(store, b"second", ["t2", "h1"])
    )
    request = factories.request(
        dataset, status=RequestStatus.COMPLETED, finished_at=factories.NOW, samples=3
    )
    named = ("t0", "t1", "h0")
    answer = IdempotencyKey(key="key", fingerprint="", request_id=request.id, asked=[])
    kept = factories.tried(job)
    rows = [
        [dataset, *factories.samples(dataset)],
        [model, indexing, registering, job, first],
        [second, request, answer],
        [factories.target(request, model, status=RequestStatus.COMPLETED, job_id=job.id)],
        [*factories.tombstones(model, job, *named), kept],
        [factories.evaluation(job, moment) for moment in ("before", "after")],
        [factories.cycle(job, 1), factories.cycle(job, 2, attempt=2)],
    ]
    engine = create_engine(roles.as_role(url, roles.SUPERUSER), connect_args={"options": UNGUARDED})
    with Session(engine, expire_on_commit=False) as session, session.begin():
        for together in rows:
            session.add_all(together)
            session.flush()
    engine.dispose()
    ids = {
        "dataset": dataset.id, "model": model.id, "indexing": indexing.id,
        "registering": registering.id, "job": job.id, "first": first.id, "second": second.id,
        "request": request.id,
    }  # fmt: skip
    with connect(url) as connection:
        tell(Planted(connection, store, promise(request.id), ids), first, second)
    return url, store, ids


@pytest.fixture
def stack(built: tuple[str, Path, dict[str, UUID]], tmp_path: Path) -> Iterator[Planted]:
    """The same, whatever other tests did to it."""
    url, store, ids = built
    own = tmp_path / "store"
    for path in store.rglob("*"):
        if path.is_file():
            copy = own / path.relative_to(store)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    with connect(url) as connection:
        yield Planted(connection, own, promise(ids["request"]), {**ids})
        connection.rollback()
