"""The containers, the lock and the Makefile agree with the programs they run."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from devstack import local
from domain import doorbell
from domain.settings import ApiSettings, MigrationSettings, WorkerSettings
from worker.delivery import webhooks

REPOSITORY = Path(__file__).resolve().parent.parent
FILES = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
COMPOSE = FILES["services"]
DOCKERFILES = {
    "lethe-api": REPOSITORY / "docker/api.Dockerfile",
    "lethe-worker": REPOSITORY / "docker/worker.Dockerfile",
}
SETTINGS = {
    "migrate": MigrationSettings,
    "api": ApiSettings,
    "worker": WorkerSettings,
    "beat": WorkerSettings,
}
GROUPS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]


# Containers


@pytest.mark.parametrize("dockerfile", DOCKERFILES.values(), ids=lambda path: path.stem)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    _run("hadolint", str(dockerfile))


def test_compose_follows_the_specification() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    _run("check-jsonschema", *schema, str(REPOSITORY / "docker-compose.yml"))


def test_our_own_services_are_the_ones_checked_here() -> None:
    ours = {name for name, service in COMPOSE.items() if service["image"] in DOCKERFILES}
    assert ours == SETTINGS.keys()
    assert all(COMPOSE[name]["pull_policy"] in ("build", "never") for name in ours)
    built = {
        service["image"]: REPOSITORY / service["build"]["dockerfile"]
        for service in COMPOSE.values()
        if "build" in service
    }
    assert built == DOCKERFILES


@pytest.mark.parametrize("name", SETTINGS)
def test_a_process_is_given_exactly_the_settings_it_reads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("LETHE_")]:
        monkeypatch.delenv(variable)
    given = {k: v for k, v in _environment(name).items() if k.startswith("LETHE_")}
    fields = {f"LETHE_{field.upper()}" for field in SETTINGS[name].model_fields}
    assert given.keys() <= fields  # pydantic would ignore a misspelt one
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    settings = SETTINGS[name]()  # fails when a required one is missing or one has the wrong form
    if name != "migrate":
        assert [str(root) for root in settings.data_roots] == ["/data"]  # type: ignore[attr-defined]


def test_api_and_worker_see_data_under_the_same_read_only_path() -> None:
    for name in ("api", "worker"):
        assert any(mount.endswith("}:/data:ro") for mount in COMPOSE[name]["volumes"])


def test_the_worker_writes_to_the_volume_named_in_its_settings_and_the_api_reads_it() -> None:
    for name, mode in (("worker", ""), ("beat", ""), ("api", ":ro")):
        assert f"store:{_environment(name)['LETHE_STORE']}{mode}" in COMPOSE[name]["volumes"]
    users, owners = set(), set()
    for dockerfile in DOCKERFILES.values():
        commands = [words for word, words in _instructions(dockerfile) if word == "RUN"]
        (making,) = [words for words in commands if "useradd" in words]
        users.update(re.findall(r"--uid (\d+)", making))
        owners.update(re.findall(r"install -d -o (\w+) /var/lib/lethe\b", making))
    assert (users, owners) == ({"10001"}, {"lethe"})  # files of the store are private to their user


@pytest.mark.parametrize("name", local.COMMANDS)
def test_a_worker_runs_the_command_it_runs_without_docker(name: str) -> None:
    assert _command(name) == ["python", *local.COMMANDS[name][1:]]


def test_the_api_is_started_as_it_is_without_docker() -> None:
    assert {*local.API[1:]} <= {*_command("api")}


def test_a_sweep_does_not_wait_for_webhooks() -> None:
    (threads,) = [word for word in local.COMMANDS["beat"] if word.startswith("--concurrency=")]
    assert int(threads.removeprefix("--concurrency=")) > webhooks.SENDERS


def test_every_queue_is_heard_by_one_process() -> None:
    heard = [
        queue
        for command in local.COMMANDS.values()
        for word in command
        if word.startswith("--queues=")
        for queue in word.removeprefix("--queues=").split(",")
    ]
    routes = doorbell.queue("redis://unused").conf.task_routes.values()
    assert sorted(heard) == sorted({route["queue"] for route in routes})


@pytest.mark.parametrize("name", SETTINGS)
def test_a_command_names_modules_that_exist(name: str) -> None:
    python, flag, program, *arguments = _command(name)
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(program)
    if "--app" in arguments:
        assert importlib.util.find_spec(arguments[arguments.index("--app") + 1])


def test_the_api_image_serves_an_application_that_exists() -> None:
    module, factory = _command("api")[_command("api").index("--factory") + 1].split(":")
    assert callable(getattr(importlib.import_module(module), factory))


def test_images_are_pinned_and_none_runs_as_root() -> None:
    images = [service["image"] for service in COMPOSE.values()]
    for dockerfile in DOCKERFILES.values():
        instructions = _instructions(dockerfile)
        images += [words.split()[0] for word, words in instructions if word == "FROM"]
        assert int([words for word, words in instructions if word == "USER"][-1]) > 0
    for image in set(images) - DOCKERFILES.keys():
        # A patch release, whose tag moves with rebuilds only; `make pins` adds the digest.
        exact = r"[a-z/]+:(\d+\.){1,2}\d+-[a-z0-9.-]+(@sha256:[0-9a-f]{64})?"
        assert re.fullmatch(exact, image), image
    others = [service for service in COMPOSE.values() if service["image"] not in DOCKERFILES]
    assert [service["user"] for service in others] == ["postgres", "valkey", "postgres"]


def test_images_run_the_python_that_is_tested() -> None:
    oldest = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
        "requires-python"
    ]
    for dockerfile in DOCKERFILES.values():
        for word, words in _instructions(dockerfile):
            if word == "FROM":
                assert words.startswith(f"python:{oldest.removeprefix('>=')}.")


def test_every_file_an_image_copies_is_let_into_the_build() -> None:
    let_in = {
        line.removeprefix("!").strip("/")
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source.strip("/")
        for dockerfile in DOCKERFILES.values()
        for word, words in _instructions(dockerfile)
        if word == "COPY" and not words.startswith("--from")
        for source in words.split()[:-1]
    }
    assert copied == let_in
    assert all((REPOSITORY / source).exists() for source in copied)


def test_secrets_have_no_default_and_stay_out_of_git() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    secrets = {name for name in re.findall(r"\$\{(\w+)", text) if name.endswith("_PASSWORD")}
    assert len(secrets) == 5
    for secret in (*secrets, "LETHE_ADMIN_KEY"):
        assert set(re.findall(rf"\$\{{{secret}(.)", text)) == {":"}
        assert set(re.findall(rf"\$\{{{secret}:(.)", text)) == {"?"}
    assert ".env" in (REPOSITORY / ".gitignore").read_text().split()


def test_the_example_environment_names_every_variable_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (REPOSITORY / "docker-compose.yml").read_text()))
    named = set(re.findall(r"^(\w+)=", (REPOSITORY / ".env.example").read_text(), re.MULTILINE))
    assert asked == named


# Lock


def test_what_is_installed_is_what_the_lock_says() -> None:
    locked = _locked()
    installed = {name: Version(importlib.metadata.version(name)).public for name in _closure("dev")}
    assert installed.items() <= locked.items()


def test_the_lock_holds_names_and_versions_only() -> None:
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#[^/]*|[a-z0-9-]+==[\w.]+( ; [\w\s.'<>=!()]+)?", line), line


def test_the_api_installs_nothing_of_the_worker() -> None:
    api = _closure("api")
    assert "fastapi" in api
    heavy = {canonicalize_name(Requirement(r).name) for r in GROUPS["worker"] if isinstance(r, str)}
    assert {"torch", "numpy"} <= heavy
    assert not api & heavy


def test_pip_is_the_same_everywhere() -> None:
    makefile = re.findall(r"^PIP := (\S+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    images = [re.findall(r"pip==(\S+)", file.read_text()) for file in DOCKERFILES.values()]
    assert [makefile] * 2 == images


# Commands


def test_check_does_every_step() -> None:
    planned = subprocess.run(
        ["make", "--always-make", "--dry-run", "check"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for step in ("ruff format --check", "ruff check", "mypy", "lint-imports", "hadolint",
                 "--builtin-schema vendor.compose-spec docker-compose.yml", "pytest"):  # fmt: skip
        assert step in planned


def test_ci_checks_what_anyone_would() -> None:
    script = REPOSITORY / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().splitlines()[-1] == "make check"


# How the files are read


def _run(tool: str, *arguments: str) -> None:
    """Run a tool of this environment; its words are the failure."""
    command = [str(Path(sys.executable).parent / tool), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in order, such as `("USER", "10001")`."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, words.strip()) for word, _, words in (line.partition(" ") for line in lines)]


def _command(name: str) -> list[str]:
    """What the service runs: its own command, else its image's."""
    service = COMPOSE[name]
    if "command" in service:
        return list(service["command"])
    commands = [w for word, w in _instructions(DOCKERFILES[service["image"]]) if word == "CMD"]
    return list(json.loads(commands[-1]))


def _environment(name: str) -> dict[str, str]:
    """What the service's process finds: its image's variables, then its own."""
    service = COMPOSE[name]
    variables: dict[str, str] = {}
    for word, words in _instructions(DOCKERFILES[service["image"]]):
        if word == "ENV":
            variables |= dict(pair.split("=", 1) for pair in words.split())
    own: dict[str, Any] = service["environment"]
    return variables | {key: _interpolated(str(value)) for key, value in own.items()}


def _interpolated(value: str) -> str:
    """The value as compose fills it in: the default, or a secret where one is required."""

    def fill(match: re.Match[str]) -> str:
        return "a-secret-of-32-characters-or-so!" if match[1] == "?" else match[2]

    return re.sub(r"\$\{\w+:([-?])([^}]*)\}", fill, value)


def _locked() -> dict[str, str]:
    """The version of each distribution that the lock allows on this machine."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }


def _listed(group: str) -> Iterator[Requirement]:
    for entry in GROUPS[group]:
        if isinstance(entry, str):
            yield Requirement(entry)
        else:
            yield from _listed(entry["include-group"])


def _closure(group: str) -> set[str]:
    """Every distribution a group brings with it here, by its canonical name."""
    found: set[tuple[str, str]] = set()
    waiting = list(_listed(group))
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in found:
                continue
            found.add((name, extra))
            for text in importlib.metadata.requires(name) or []:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {name for name, _ in found}
