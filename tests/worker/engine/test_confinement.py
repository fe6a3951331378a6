"""What a job's process may take, and what becomes of one that takes more."""

import json
import subprocess
import sys
from datetime import timedelta

import pytest

from domain.settings import WorkerSettings
from worker import budgets
from worker.engine import confinement

PROBE = """
import json, resource
from datetime import timedelta
from pathlib import Path
from domain.settings import WorkerSettings
from worker.engine import confinement
confinement.GPU = Path({gpu!r})
known = dict(database_url="postgresql://u@h/d", broker_url="redis://h", store=Path("s"))
confinement.confine(WorkerSettings(**known, **{settings!r}), {kind!r})
limits = [resource.getrlimit(name)[0] for name in
          (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_CORE)]
try:
    bytearray(10**13)
except MemoryError:
    limits.append("MemoryError")
print(json.dumps(limits))
"""


@pytest.mark.parametrize(
    ("settings", "kind", "gpu", "memory"),
    [
        ({}, "unlearn", "/none", confinement.machine_bytes() + confinement.SLACK),
        ({}, "unlearn", "/", -1),  # nobody has measured what CUDA reserves
        ({}, "index_dataset", "/", confinement.machine_bytes() + confinement.SLACK),
        ({"job_memory_bytes": 2**30}, "unlearn", "/", 2**30),
        ({"job_memory_bytes": 0}, "index_dataset", "/none", -1),
    ],
)
def test_a_job_may_take_what_the_machine_has(settings, kind, gpu, memory):
    code = PROBE.format(settings=settings, kind=kind, gpu=gpu)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    data, cpu, core, failed = json.loads(done.stdout)

    assert (data, core, failed) == (memory, 0, "MemoryError")
    assert cpu > timedelta(hours=6).total_seconds()


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (type("OutOfMemoryError", (RuntimeError,), {})(), True),  # torch's
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"), True),
        (RuntimeError("shapes differ"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_short_memory_is_recognised_whoever_says_so(error, short):
    assert budgets.is_out_of_memory(error) is short


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    limit.write_text("1048576\n")
    monkeypatch.setattr(confinement, "MEMORY_FILES", (str(limit), str(tmp_path / "none")))
    assert confinement.machine_bytes() == 2**20
    limit.write_text("max\n")
    assert confinement.machine_bytes() > 2**20


def test_the_setting_is_a_number_of_bytes(tmp_path):
    known = {"database_url": "postgresql://u@h/d", "broker_url": "redis://h", "store": tmp_path}
    assert WorkerSettings(**known).job_memory_bytes is None
    with pytest.raises(ValueError, match="job_memory_bytes"):
        WorkerSettings(**known, job_memory_bytes=-1)
