"""The stack under test: servers and processes that can be damaged and restored.

One API, one beat and two workers, as in production except for short leases, so that a schedule
takes seconds. `LETHE_MAX_LOSSES` is so high that no number of lost workers excuses a failed job.
"""

import json
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import psutil  # type: ignore[import-untyped]

from chaos import disk, samples
from devstack import keys, local

PROCESSES = ("api", "beat", "worker-1", "worker-2")
KEY = "a-key-for-chaos-only"

QUICK = {
    "LETHE_LEASE": "PT4S",
    "LETHE_HEARTBEAT": "PT1S",
    "LETHE_SWEEP_INTERVAL": "PT1S",
    "LETHE_POLL_INTERVAL": "PT2S",
}
"""Short, so that a schedule takes seconds; the production lease is 45."""

ORPHAN_AGE_S = 5


@dataclass(slots=True)
class Stack:
    """A running stack, with one lock per part that can be damaged: one fault at a time."""

    home: local.Stack
    servers: local.Servers
    lease_s: float
    locks: Mapping[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    posting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released whenever a client starts sending a request."""

    @property
    def database_url(self) -> str:
        return self.servers.superuser_url

    @property
    def store(self) -> Path:
        return self.home.state / "store"

    def held_by(self, worker: str) -> tuple[psutil.Process, UUID, int] | None:
        """The process of a worker's job, the job and its attempt; None if it has none.

        Read from the process table and the worker's log, as Postgres may be away.
        """
        with suppress(psutil.Error, KeyError):  # it may just be stopped and started
            told = self.home.log(worker).read_text().splitlines()
            events = [
                json.loads(line) for line in told if '"job.started"' in line or '"job.left"' in line
            ]
            if events and events[-1]["event"] == "job.started":
                for job in self.home.jobs(worker):
                    return job, UUID(events[-1]["job_id"]), events[-1]["attempt"]
        return None

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process of ours; an ended process is not an error."""
        with suppress(ProcessLookupError):
            self.home.processes[name].send_signal(number)

    def start_again(self, name: str) -> None:
        """Start ended processes; leave running ones alone."""
        process = self.home.processes.get(name)
        if process is None or process.poll() is not None:
            self.home.start(name)

    def stop_postgres(self, *, crash: bool) -> None:
        """Shut Postgres down; a crash happens without a checkpoint or a notice to clients."""
        pid = int((self.home.state / "postgres" / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(pid)
        postmaster.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        postmaster.wait(30)

    def start_postgres(self) -> None:
        local.start_postgres(self.servers.postgres)

    def stop_redis(self) -> None:
        self.servers.valkey.stop()

    def start_redis(self) -> None:
        local.start_valkey(self.servers.valkey)

    def last_stored(self) -> float:
        """When a job last started to write a file, or named one."""
        return self.store.stat().st_mtime


@contextmanager
def running(state: Path, **settings: str) -> Iterator[Stack]:
    """Run servers and processes with everything under `state`, and end them all on exit.

    Args:
        settings: environment variables, in addition to those that make a schedule take seconds.
    """
    state.mkdir(parents=True, exist_ok=True)
    with local.servers(state) as servers, ExitStack() as cleanup:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "LETHE_DATABASE_URL": servers.database_url,
            "LETHE_BROKER_URL": servers.broker_url,
            "LETHE_STORE": str(state / "store"),
            "LETHE_ADMIN_KEY": KEY,
            "LETHE_SIGNING_KEYS": json.dumps([{"uri": f"file:{keys.signing_key(state)}"}]),
            "LETHE_DATA_ROOTS": json.dumps([str(state / "data")]),
            "LETHE_FACTORIES": json.dumps([samples.FACTORY]),
            "LETHE_MAX_LOSSES": "100",
            "LETHE_ORPHAN_AGE": f"PT{ORPHAN_AGE_S}S",
            **disk.environment(state),
            **settings,
        }
        home = local.Stack(state, servers.owner_url, environment, local.free_port())
        home.migrate()
        cleanup.callback(_stop_all, home)
        for name in PROCESSES:
            home.start(name)
        home.wait_until_ready()
        lease = settings.get("LETHE_LEASE", "PT45S")
        yield Stack(home, servers, float(lease.removeprefix("PT").removesuffix("S")))


def _stop_all(home: local.Stack) -> None:
    for process in home.processes.values():
        process.send_signal(signal.SIGCONT)
    for name in [*home.processes]:
        home.stop(name)
