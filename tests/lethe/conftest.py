"""The real API as a process, with a real database; and a fake server for network faults."""

import hashlib
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from devstack import local, roles
from domain import objects
from lethe import Lethe
from lethe.command_line.main import run
from lethe.retrying import Retries
from tests import factories
from tests.conftest import KEY
from tests.lethe.fakes import Fake, faking

QUICKLY = Retries(attempts=4, first=0.01, longest=0.02)


@dataclass(frozen=True, slots=True)
class Service:
    """Where the API listens, and the database below it."""

    url: str
    database_url: str
    data: Path
    """A directory it may read; `store` in it has the weights."""

    def put(self, *rows: Any) -> None:
        """Store rows, in this order."""
        engine = create_engine(roles.as_role(self.database_url, roles.OWNER))
        with Session(engine, expire_on_commit=False) as session, session.begin():
            for _, same in groupby(rows, type):
                session.add_all(same)
                session.flush()
        engine.dispose()


@pytest.fixture(scope="session")
def service(
    new_database: Callable[..., str],
    migrated_template: str,
    servers: local.Servers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """The API as a process of its own; what tests commit stays until the last one."""
    url = roles.as_role(new_database(migrated_template), roles.ROLES["api"])
    data = tmp_path_factory.mktemp("data")
    settings = {
        "LETHE_DATABASE_URL": url,
        "LETHE_BROKER_URL": servers.broker_url,
        "LETHE_ADMIN_KEY": KEY,
        "LETHE_STORE": str(data / "store"),
        "LETHE_DATA_ROOTS": json.dumps([str(data)]),
        "LETHE_FACTORIES": json.dumps(["nets.cnn:build"]),
    }
    port = local.free_port()
    with (data / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [*local.API, f"--port={port}", "--no-access-log"],
            cwd=local.REPOSITORY,
            env=os.environ | settings,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        service = Service(f"http://127.0.0.1:{port}", url, data)
        with Lethe(
            service.url, KEY, retries=Retries(attempts=100, first=0.1, longest=0.3)
        ) as lethe:
            lethe.live()
        yield service
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def lethe(service: Service) -> Iterator[Lethe]:
    """A client of the real API."""
    with Lethe(service.url, KEY, retries=QUICKLY) as client:
        yield client


@dataclass(frozen=True, slots=True)
class Ready:
    """A ready model under a name of its own: `t0`…`t9` are its training samples."""

    dataset: factories.Dataset
    model: factories.Model
    version: factories.ModelVersion
    weights: Path
    """The file of its champion, in the service's store."""

    names: tuple[str, str]
    """Of the dataset and the model."""


@pytest.fixture
def ready(service: Service) -> Ready:
    """Its weights lie in the store."""
    dataset = factories.dataset(name=f"digits-{uuid4().hex[:8]}")
    model = factories.model(dataset, name=f"cnn-{uuid4().hex[:8]}")
    job = factories.job(model_id=model.id, kind=factories.JobKind.REGISTER_MODEL, finished=True)
    weights = os.urandom(3 * 2**20)
    version = factories.version(model, job, weights_sha256=hashlib.sha256(weights).hexdigest())
    file = objects.path_of(service.data / "store", version.weights_sha256)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(weights)
    names = (dataset.name, model.name)
    index = factories.job(dataset_id=dataset.id, kind=factories.JobKind.INDEX_DATASET)
    service.put(dataset, model, index, job, version, *factories.samples(dataset))
    return Ready(dataset, model, version, file, names)


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A server that answers as a test says, in order."""
    with faking() as fake:
        yield fake


class Ran:
    """A command that was carried out."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty configuration directory, and no variables."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("LETHE_URL", raising=False)
    monkeypatch.delenv("LETHE_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(home, capsys):
    """Carry a command out as the shell would."""

    def call(*words: object) -> Ran:
        status = run([str(word) for word in words])
        said = capsys.readouterr()
        assert KEY not in said.out + said.err
        return Ran(status, said.out, said.err)

    return call


@pytest.fixture
def typed(monkeypatch):
    """What comes on standard input."""

    def type_in(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return type_in
