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


def test_what_the_fork_server_imports_leaves_the_gpu_alone():
    """CUDA does not survive a fork: a job could not use the GPU."""
    code = """if True:
        import importlib, sys
        import torch
        asked = []
        def watch(frame, event, argument):
            if event == "call" and frame.f_code.co_filename == torch.cuda.__file__:
                asked.append(frame.f_code.co_name)
        sys.setprofile(watch)
        from worker.engine import forks
        importlib.import_module(forks.JOB)
        sys.setprofile(None)
        sys.exit(bool({"_lazy_init", "init", "is_available", "device_count"} & {*asked}))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=local.REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
