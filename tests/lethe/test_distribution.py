"""The distribution: built, installed in an empty environment, and used."""

import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from devstack.local import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]


def done(*words: object, cwd: Path) -> str:
    """What a program prints; it ends with 0."""
    ran = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    built = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, "."]
    done(*built, cwd=REPOSITORY)
    (file,) = place.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel and what it says it needs.

    What it needs is linked from here, so that no network is asked. Pip finds it there, or refuses.
    """
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (metadata,) = (name for name in ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    lines = ZipFile(wheel).read(metadata).decode().splitlines()
    named = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]
    for name in needed(named, set()):
        for file in distribution(name).files or ():
            top = Path(str(distribution(name).locate_file(file.parts[0])))
            if ".." not in file.parts and not (packages / top.name).exists():
                (packages / top.name).symlink_to(top)
    python = home / "bin/python"
    done(*PIP, "--python", python, "install", "--no-index", wheel, cwd=home)
    return home / "bin"


def needed(requirements: list[str], found: set[str]) -> Iterator[str]:
    """The distributions that these requirements lead to, without extras."""
    for requirement in map(Requirement, requirements):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name not in found:
            found.add(requirement.name)
            yield requirement.name
            yield from needed(distribution(requirement.name).requires or [], found)


def test_it_holds_the_client_and_the_verifier_and_nothing_else(wheel: Path):
    archive = ZipFile(wheel)
    names = archive.namelist()

    assert {name.partition("/")[0] for name in names} == {"lethe", f"lethe-{VERSION}.dist-info"}
    assert {"lethe/py.typed", "lethe/command_line/main.py"} <= set(names)
    assert not [name for name in names if "pycache" in name]
    verifier = (REPOSITORY / "verifier/verify.py").read_bytes()
    assert archive.read("lethe/verifier.py") == verifier


def test_it_works_where_nothing_else_is(installed: Path, tmp_path: Path):
    code = (
        "import sys, lethe, lethe.command_line.main\n"
        "others = 'domain evidence service worker devstack torch numpy pyarrow cryptography'\n"
        "sys.exit(bool(set(others.split()) & {name.partition('.')[0] for name in sys.modules}))"
    )

    assert done(installed / "lethe", "--version", cwd=tmp_path) == f"lethe {VERSION}\n"
    assert "Exit status" in done(installed / "lethe", "--help", cwd=tmp_path)
    done(installed / "python", "-c", code, cwd=tmp_path)


def test_it_says_what_to_install_for_more(installed: Path, tmp_path: Path):
    said = subprocess.run(
        [installed / "lethe", "verify", "bundle.json", "--key", "key.pem"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert said.returncode == 2
    assert "lethe[verify]" in said.stderr
