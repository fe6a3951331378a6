"""`make demo` as a newcomer sees it: what it prints, how it exits, what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from devstack import local


def start(state: Path) -> subprocess.Popen[str]:
    # Whoever was started in the background of a shell is deaf to Ctrl-C, and so is what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "demo"],
            cwd=local.REPOSITORY,
            env={**os.environ, "LETHE_STATE": str(state), "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def left_behind(state: Path) -> list[str]:
    """Command lines of processes that still use the state directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(state) in command:
            found.append(command)
    return found


def serves(process: psutil.Process) -> bool:
    """Whether it is the API."""
    try:
        return "uvicorn" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has just ended
        return False


def test_the_demo_ends_with_a_table_and_stops_everything(tmp_path):
    demo = start(tmp_path)
    printed, _ = demo.communicate(timeout=300)

    waits_for_a_person = "Verdict: fail" in printed  # by chance: the job's seed follows its id
    assert demo.returncode == waits_for_a_person, printed
    for expected in (
        "forget accuracy",
        "gap between them",
        "Verdict: ",
        "membership loss",
        "SHA-256",
    ):
        assert expected in printed
    assert left_behind(tmp_path) == []


def test_ctrl_c_stops_everything(tmp_path):
    demo = start(tmp_path)
    deadline = time.monotonic() + 120
    while not any(serves(child) for child in psutil.Process(demo.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    started = psutil.Process(demo.pid).children(recursive=True)

    demo.send_signal(signal.SIGINT)
    printed, _ = demo.communicate(timeout=120)

    # What Python exits with depends on where it was interrupted; a shell shows 130 for both.
    assert demo.returncode in (130, -signal.SIGINT), printed
    assert "everything that was started is stopped" in printed
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
    assert left_behind(tmp_path) == []
