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


def test_what_the_fork_server_imports_leaves_the_gpu_alone_and_nothing_to_import():
    """CUDA does not survive a fork: a job could not use the GPU. Nor does it leave to each job what
    libraries import when they are first used."""
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
        assert not {"_lazy_init", "init", "is_available", "device_count"} & {*asked}

        import io
        from pathlib import Path
        from tempfile import TemporaryDirectory
        import numpy, pyarrow as pa
        from PIL import Image
        from sqlalchemy import inspect
        from domain.tables import Job
        from worker.data import decode, reservoir
        from worker.store.artifacts import Store
        Image.new("L", (8, 8)).save(png := io.BytesIO(), "PNG")
        known = {*sys.modules}
        images = pa.array([png.getvalue()], pa.large_binary())
        decode.decode(images, {"mode": "L"}, None)
        with TemporaryDirectory() as folder:
            store = Store(Path(folder))
            reservoir.read(store, reservoir.write(store, pa.table({"n": numpy.arange(3)})))
        assert known == {*sys.modules}, {*sys.modules} - known
        assert inspect(Job).configured
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=local.REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
