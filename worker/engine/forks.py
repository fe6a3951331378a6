"""Processes that are forks of one that has imported what a job needs.

The fork server of the standard library starts with the first of them, imports, which takes seconds,
and from then on only forks. It leaves the GPU alone: CUDA does not survive a fork.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Literal

JOB = "worker.child"
"""The module whose `main` does a job. Named, not imported: it needs torch."""

METHOD: Literal["forkserver", "spawn"] = "forkserver" if sys.platform == "linux" else "spawn"
"""How a process starts. On macOS, a fork of one that has loaded Apple's frameworks may crash, so
each imports everything itself."""

WAITING = ("OMP_WAIT_POLICY", "PASSIVE")
"""Threads that compute together sleep while they wait for each other. By default they spin: on a
busy machine they take the time from the very thread they wait for, and small jobs took about twice
the processor time. The results are the same. An environment variable, unless it is set already."""

SERVER_ENDED = 255
"""Exit code where there is no fork server any more to tell it."""

_told: list[frozenset[str]] = []
"""What the fork server was told to import beside JOB, the present one last."""


def is_ready(also: Collection[str] = ()) -> bool:
    """Wait until the fork server, if there is one, has imported all; whether it could.

    Only where no other process of its runs: for more modules than before it is started anew.

    Args:
        also: modules that it should have imported too. One that cannot be is left to the job.
    """
    if METHOD == "spawn":
        return True
    if not _told:
        _told.append(frozenset(also))
    elif not _told[-1].issuperset(also):
        _told.append(_told[-1].union(also))
        with suppress(EOFError, OSError):
            start(_end_server).join()
    for wait_s in (0, 0.1, 1):  # one that is being ended may still be there
        time.sleep(wait_s)
        with suppress(EOFError, OSError):
            probe = start(import_module, JOB)
            probe.join()
            if probe.exitcode != SERVER_ENDED:
                return probe.exitcode == 0
    return False


def _end_server() -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def start(work: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a process that does this work. SIGTERM is blocked in it, until it lets it through.

    Whoever ends a service may send SIGTERM to all its processes at once: the fork server must stay
    then, for it alone can tell how another process ended.

    Raises:
        EOFError, OSError: the fork server ended before it could start the process.
    """
    process = _new(work, arguments)
    resource_tracker.ensure_running()  # it would unblock the signal again
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return process


def _new(work: Callable[..., object], arguments: Sequence[object]) -> BaseProcess:
    os.environ.setdefault(*WAITING)  # read when torch is loaded, so before there is a fork server
    if METHOD == "spawn":
        return multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([JOB, *(sorted(_told[-1]) if _told else ())])
    return server.Process(target=work, args=arguments)


def end(process: BaseProcess) -> int:
    """Kill the process unless it has ended; its exit code."""
    if process.exitcode is None:
        process.kill()
        process.join()
    code = process.exitcode
    assert code is not None and process.pid is not None  # noqa: S101, PT018 (it was started)
    if code == SERVER_ENDED:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return code
