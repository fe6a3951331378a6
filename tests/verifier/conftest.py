"""Honest evidence, and the verifier where nothing of the service can be imported."""

import json
import shutil
import subprocess
import venv
from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attacks import story
from attacks.evidence import Evidence, Given
from attacks.judge import VERIFIER

NEEDED = ("cryptography", "cffi", "pycparser")
"""What `pip install cryptography` installs."""

Verify = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def evidence() -> Evidence:
    return story.evidence()


@pytest.fixture(scope="session")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with `cryptography` and nothing else."""
    home = tmp_path_factory.mktemp("lonely")
    venv.create(home, with_pip=False, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    for distribution in NEEDED:
        for file in files(distribution) or ():
            top = file.locate().parents[len(file.parts) - 2] if len(file.parts) > 1 else (
                Path(file.locate())
            )  # fmt: skip
            link = packages / Path(top).name
            if ".." not in file.parts and not link.exists():
                link.symlink_to(top)
    return home / "bin" / "python"


@pytest.fixture
def verify(lonely: Path, tmp_path: Path) -> Verify:
    """Runs a copy of the verifier as an auditor would, in an empty directory."""
    shutil.copy(VERIFIER, tmp_path)

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [str(lonely), "-I", "verify.py", *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def at_hand(tmp_path: Path) -> Callable[[Given], list[str]]:
    """Writes what an auditor has into files; the words of the command that name them."""

    def write(given: Given) -> list[str]:
        text = given.bundle if isinstance(given.bundle, str) else json.dumps(given.bundle)
        (tmp_path / "bundle.json").write_text(text)
        words = ["bundle.json", *(word for key in given.keys for word in ("--key", key))]
        if given.older is None:
            return words
        (tmp_path / "older.txt").write_text(given.older)
        return [*words, "--older", "older.txt"]

    return write


@pytest.fixture
def pem(evidence: Evidence) -> str:
    """The public key that signs now, in PEM."""
    public = evidence.signer.private.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
