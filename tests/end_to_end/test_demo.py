"""`make demo` as a newcomer sees it: what it prints, how it exits, what it leaves behind."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from devstack import local
from devstack.startup import sole_user

DEMO = ["-m", "devstack.demo"]
SOONER = ["-c", "import sys; from devstack.demo import case, __main__ as demo; case.EPOCHS = 1; "
                "sys.exit(demo.main())"]  # fmt: skip
"""The same with a network that hardly learned anything: for what comes after its training."""


@pytest.fixture
def demo(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """The demo, running, with its state in `tmp_path`; stopped should the test fail before."""
    with start(tmp_path, getattr(request, "param", DEMO)) as running:
        yield running
        if running.poll() is None:
            ctrl_c(running)


def start(state: Path, program: Sequence[str] = DEMO) -> subprocess.Popen[str]:
    # Whoever was started in the background of a shell is deaf to Ctrl-C, and so is what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, *program],
            cwd=local.REPOSITORY,
            env={**os.environ, "LETHE_STATE": str(state), "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def ctrl_c(demo: subprocess.Popen[str]) -> None:
    """What the terminal does: everything in the foreground gets the signal."""
    os.killpg(demo.pid, signal.SIGINT)


def left_behind(state: Path) -> list[str]:
    """Command lines of processes that still use the state directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(state) in command:
            found.append(command)
    return found


def test_the_network_knew_the_records_and_the_audit_passes_once_it_forgot_them(demo, tmp_path):
    printed, _ = demo.communicate(timeout=600)

    assert demo.returncode == 0, printed
    rows = [line.split("│")[1:-1] for line in printed.splitlines() if line.startswith("│")]
    assert len(rows) <= 8
    cells = {name.strip(): (before.strip(), after.strip()) for name, before, after in rows}
    assert cells["the audit's verdict"] == ("fail", "pass")
    forgotten = cells["the 30 records: given the label on file"]
    assert int(forgotten[0].rstrip("%")) >= 90
    assert int(forgotten[1].rstrip("%")) <= 75
    assert "Verdict: pass." in printed
    assert "Traceback" not in printed
    assert left_behind(tmp_path) == []
    (folder,) = (tmp_path / "demo").iterdir()
    for name in ("before-and-after.png", "certificate.html", "certificate.json"):
        assert f"{folder.name}/{name}" in printed
    assert (folder / "before-and-after.png").read_bytes().startswith(b"\x89PNG")
    assert "Pass" in (folder / "certificate.html").read_text()
    envelope = json.loads((folder / "certificate.json").read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert envelope["signatures"]
    assert re.search(r'"verdict": ?"pass"', json.dumps(statement))


def imports(demo: psutil.Process, state: Path) -> bool:
    return any("libtorch" in mapped.path for mapped in demo.memory_maps())


def postgres_starts(demo: psutil.Process, state: Path) -> bool:
    return any("initdb" in command or "pg_ctl" in command for command in left_behind(state))


def the_network_is_trained(demo: psutil.Process, state: Path) -> bool:
    return any((state / "data").rglob("records.parquet"))


def a_job_runs(demo: psutil.Process, state: Path) -> bool:
    told = "".join(log.read_text() for log in state.rglob("worker.log"))
    return told.count("job.started") > told.count("job.left")


@pytest.mark.parametrize(
    ("demo", "moment"),
    [
        (DEMO, imports),
        (DEMO, postgres_starts),
        (DEMO, the_network_is_trained),
        (SOONER, a_job_runs),
    ],
    indirect=["demo"],
    ids=["imports", "postgres_starts", "the_network_is_trained", "a_job_runs"],
)
def test_ctrl_c_stops_everything(demo, tmp_path, moment):
    deadline = time.monotonic() + 300
    while not moment(psutil.Process(demo.pid), tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = psutil.Process(demo.pid).children(recursive=True)

    ctrl_c(demo)
    printed, _ = demo.communicate(timeout=120)

    assert demo.returncode == 130, printed
    assert "everything that was started is stopped" in printed
    assert "Traceback" not in printed
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
    assert left_behind(tmp_path) == []


def test_a_second_one_beside_it_says_so_and_leaves_the_first_alone(tmp_path):
    with sole_user(tmp_path):
        demo = start(tmp_path)
        printed, _ = demo.communicate(timeout=120)

    assert demo.returncode == 1
    assert "Another `make up` or `make demo` is using" in printed
    assert "Traceback" not in printed
