"""A disk that can be full for the store only.

A library preloaded into the processes makes their writes fail; see full_disk.c. It needs a C
compiler and Linux, but not root. Elsewhere Python does it, less realistically: it sees files being
opened, but not bytes being written.
"""

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("full_disk.c")


def environment(state: Path) -> dict[str, str]:
    """The environment variables with which processes see a full disk for `state / "store"`."""
    where = {
        "CHAOS_STORE": str(state / "store"),
        "CHAOS_DISK_FULL": str(_flag(state)),
        "PYTHONPATH": str(SOURCE.with_name("in_every_process")),
    }
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return where | {"CHAOS_DISK_BY_PYTHON": "1"}
    library = state / "full_disk.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return where | {"LD_PRELOAD": str(library)}


def fill(state: Path) -> None:
    """Make all writes to the store fail from now on."""
    _flag(state).touch()


def was_felt(state: Path) -> bool:
    """Whether a write was refused since the disk became full."""
    return _felt(state).exists()


def empty(state: Path) -> None:
    """Make writes succeed again."""
    for path in (_flag(state), _felt(state)):
        path.unlink(missing_ok=True)


def _flag(state: Path) -> Path:
    return state / "disk-is-full"


def _felt(state: Path) -> Path:
    return state / "disk-is-full.felt"
