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


def test_jobs_without_a_network_start_without_torch():
    modules = [
        f"worker.jobs.{kind}" for kind in ("check_dataset", "erase_rows", "index_dataset", "purge")
    ]
    code = f"import sys, worker.child, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=local.REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
