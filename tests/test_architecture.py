"""Who may import whom."""

import subprocess
import sys

from devstack import local


def test_import_contracts_hold():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()",
         "--no-cache"],
        cwd=local.REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_api_starts_without_torch_and_without_an_environment():
    code = "import sys, service.app; sys.exit(any(m in sys.modules for m in ('torch', 'worker')))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=local.REPOSITORY, env={"PATH": "/usr/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
