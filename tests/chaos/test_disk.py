"""The full disk refuses what a full disk refuses, with and without a compiler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chaos import disk

WRITES = """
import errno, sys
try:
    with open(sys.argv[1], "wb") as file:
        file.write(b"bytes")
except OSError as error:
    sys.exit(errno.errorcode[error.errno])
"""


@pytest.fixture(params=["with a compiler", "without a compiler"])
def state(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "without a compiler":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    (tmp_path / "store").mkdir()
    return tmp_path


def write(state: Path, place: str) -> str:
    """What a process is told that writes there; empty when it succeeds."""
    done = subprocess.run(
        [sys.executable, "-c", WRITES, str(state / place)],
        env={**os.environ, **disk.environment(state)},
        capture_output=True,
        text=True,
    )
    return done.stderr.strip()


def test_nothing_can_be_written_to_the_store_while_its_disk_is_full(state: Path):
    disk.fill(state)
    assert not disk.was_felt(state)
    assert write(state, "store/file") == "ENOSPC"
    assert disk.was_felt(state)


def test_all_else_can_be_written(state: Path):
    disk.fill(state)
    assert write(state, "log") == ""
    assert not disk.was_felt(state)


def test_the_store_can_be_written_to_again_when_there_is_room(state: Path):
    disk.fill(state)
    write(state, "store/file")
    disk.empty(state)
    assert write(state, "store/file") == ""
    assert (state / "store" / "file").read_bytes() == b"bytes"
    assert not disk.was_felt(state)
