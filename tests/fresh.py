"""Code in a process of its own, where no memory was freed before.

What was freed is used again, and a limit of further growth does not see it.
"""

import subprocess
import sys
from pathlib import Path

from devstack import local


def printed(code: str, *arguments: str | Path) -> str:
    """What the code prints; it finds the arguments in `sys.argv[1:]`."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=local.REPOSITORY, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
