"""What a job's process may take of the machine, and how its parent learns that it took too much."""

import os
import resource
from pathlib import Path

import structlog

from domain.settings import WorkerSettings

MEMORY_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container's limit is, in bytes, with the second and the first version of cgroups."""

SLACK = 2**30
"""Memory is counted when it is reserved, and libraries reserve more than they use."""

GPU = Path("/dev/nvidiactl")

TORCHLESS = frozenset({"index_dataset", "index_state", "check_dataset", "erase_rows", "purge"})

log = structlog.get_logger()


def confine(settings: WorkerSettings, kind: str) -> None:
    """Limit the memory and the processor time of this process, and leave no core files.

    Where memory ends, an allocation fails, and the job with a reason, instead of the kernel ending
    some process. Processor time is a second wall behind the time limit, for a process that nobody
    watches any more.
    """
    cores = os.cpu_count() or 1
    seconds = int(settings.job_time_limit.total_seconds() * cores) + 60
    _limit(resource.RLIMIT_CPU, seconds)
    _limit(resource.RLIMIT_CORE, 0)
    memory = settings.job_memory_bytes
    if memory is None and not (GPU.exists() and settings.device != "cpu" and kind not in TORCHLESS):
        memory = machine_bytes() + SLACK  # what CUDA reserves beside it differs from card to card
    if memory:
        _limit(resource.RLIMIT_DATA, memory)


def machine_bytes() -> int:
    """The memory of the machine, or what this container may have of it."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in MEMORY_FILES:
        try:
            found.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # no such file, or `max`
            continue
    return min(found)


def killed_for_memory() -> int:
    """How many processes the kernel has killed because memory ran out; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _limit(what: int, amount: int) -> None:
    """Lower a limit; one that is lower already stays."""
    soft, hard = resource.getrlimit(what)
    lower = [each for each in (soft, hard) if each != resource.RLIM_INFINITY]
    try:
        resource.setrlimit(what, (min([amount, *lower]), hard))
    except (OSError, ValueError) as error:  # macOS has limits of its own
        log.warning("job.not_confined", resource=what, kind=type(error).__name__)
