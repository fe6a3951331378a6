"""The faults, one function for each kind.

Each leaves the stack whole when it returns: ended processes are started again, stopped ones
continue.
"""

import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psutil  # type: ignore[import-untyped]
import psycopg
import redis

from chaos import disk
from chaos.promise import Death
from chaos.schedule import Fault, Kind
from chaos.stack import Stack
from chaos.waiting import wait
from domain import doorbell

GIVE_UP_S = 4.0
"""How long a fault waits for its victim to have a job or a request."""

FELT_S = 20.0
"""How long a fault waits for a job to store its files."""


def strike(stack: Stack, fault: Fault) -> Death | None:
    """Inject the fault. Returns what a worker lost, if it held a job."""
    if fault.kind in WORKER_BLOWS:
        name = _victim(stack, fault)
        with stack.locks[name]:
            _wait_for_the_moment(stack, fault)
            return WORKER_BLOWS[fault.kind](stack, name, fault)
    struck, blow = BLOWS[fault.kind]
    with stack.locks[struck]:
        blow(stack, fault)
    return None


def _kill_parent(stack: Stack, name: str, fault: Fault) -> Death | None:
    death = _death(fault, stack.held_by(name))
    stack.signal(name, signal.SIGKILL)
    stack.home.processes[name].wait()
    time.sleep(fault.lasts)
    stack.start_again(name)
    return death


def _term_parent(stack: Stack, name: str, fault: Fault) -> Death | None:
    death = _death(fault, stack.held_by(name))
    stack.home.stop(name, timeout_s=30)
    time.sleep(fault.lasts)
    stack.start_again(name)
    return death


def _stop_parent(stack: Stack, name: str, fault: Fault) -> Death | None:
    """SIGSTOP and later SIGCONT; if that takes longer than the lease, the worker counts as lost."""
    death = _death(fault, stack.held_by(name))
    stack.signal(name, signal.SIGSTOP)
    time.sleep(fault.lasts)
    stack.signal(name, signal.SIGCONT)
    return death if fault.lasts > stack.lease_s else None


def _stop_child(stack: Stack, name: str, fault: Fault) -> None:
    """Stop the job's process while its parent keeps the lease."""
    held = stack.held_by(name)
    if held is not None:
        _send(held[0], signal.SIGSTOP)
        time.sleep(fault.lasts)
        _send(held[0], signal.SIGCONT)


def _end_child(stack: Stack, name: str, fault: Fault) -> Death | None:
    held = stack.held_by(name)
    if held is None:
        return None
    death = _death(fault, held)
    _send(held[0], signal.SIGKILL if fault.kind is Kind.KILL_CHILD else signal.SIGTERM)
    return death


def _flush_redis(stack: Stack, _: Fault) -> None:
    with redis.from_url(stack.servers.broker_url) as broker:
        broker.flushall()


def _restart_redis(stack: Stack, fault: Fault) -> None:
    stack.stop_redis()
    time.sleep(fault.lasts)
    stack.start_redis()


def _restart_postgres(stack: Stack, fault: Fault) -> None:
    stack.stop_postgres(crash=fault.kind is Kind.POSTGRES_CRASHED)
    time.sleep(fault.lasts)
    stack.start_postgres()


def _kill_api(stack: Stack, fault: Fault) -> None:
    """Kill the API while it answers a request, if one comes in time."""
    while stack.posting.acquire(blocking=False):
        pass  # the doorbells are sent
    stack.posting.acquire(timeout=GIVE_UP_S)
    time.sleep(fault.aim / 100)
    stack.signal("api", signal.SIGKILL)
    stack.home.processes["api"].wait()
    time.sleep(fault.lasts)
    stack.start_again("api")
    stack.home.wait_until_ready()


def _ring(stack: Stack, fault: Fault) -> None:
    """Ring for ended, waiting, running and unknown jobs: often, and in any order."""
    dice = random.Random(fault.aim)
    with stack.locks["postgres"], psycopg.connect(stack.database_url) as connection:
        known = connection.execute("SELECT id FROM jobs ORDER BY id DESC LIMIT 20").fetchall()
    ids = [*(row[0] for row in known), uuid4(), uuid4()] * 3
    dice.shuffle(ids)
    with doorbell.queue(stack.servers.broker_url) as bell:
        for job_id in ids:
            doorbell.ring_job(bell, job_id)
        doorbell.ring_sweep(bell)


def _second_beat(stack: Stack, fault: Fault) -> None:
    stack.home.start("beat-2")
    time.sleep(fault.lasts)
    stack.home.stop("beat-2")


def _step_lease(stack: Stack, fault: Fault) -> None:
    """Simulate a clock jump: all leases end earlier or later."""
    move = "UPDATE jobs SET lease_until = lease_until + make_interval(secs => %s)"
    with psycopg.connect(stack.database_url) as connection:
        connection.execute(f"{move} WHERE status = 'running'", [fault.step])


def _fill_disk(stack: Stack, fault: Fault) -> None:
    state = stack.home.state
    disk.fill(state)
    wait(FELT_S, lambda: disk.was_felt(state))
    time.sleep(fault.lasts)
    disk.empty(state)


BLOWS: Mapping[Kind, tuple[str, Callable[[Stack, Fault], None]]] = {
    Kind.REDIS_FLUSHED: ("redis", _flush_redis),
    Kind.REDIS_RESTARTED: ("redis", _restart_redis),
    Kind.POSTGRES_RESTARTED: ("postgres", _restart_postgres),
    Kind.POSTGRES_CRASHED: ("postgres", _restart_postgres),
    Kind.API_KILLED: ("api", _kill_api),
    Kind.DOORBELLS: ("redis", _ring),
    Kind.SECOND_BEAT: ("beat-2", _second_beat),
    Kind.LEASE_STEPPED: ("postgres", _step_lease),
    Kind.DISK_FULL: ("disk", _fill_disk),
}
"""The function and the target of each kind."""

WORKER_BLOWS: Mapping[Kind, Callable[[Stack, str, Fault], Death | None]] = {
    Kind.KILL_PARENT: _kill_parent,
    Kind.KILL_CHILD: _end_child,
    Kind.STOP_PARENT: _stop_parent,
    Kind.STOP_CHILD: _stop_child,
    Kind.TERM_PARENT: _term_parent,
    Kind.TERM_CHILD: _end_child,
}
"""The same for faults that hit a worker."""


def _victim(stack: Stack, fault: Fault) -> str:
    """The intended worker, unless only the other one gets a job."""
    meant, other = f"worker-{fault.victim}", f"worker-{3 - fault.victim}"
    wait(GIVE_UP_S, lambda: bool(stack.held_by(meant) or stack.held_by(other)))
    return meant if stack.held_by(meant) or not stack.held_by(other) else other


def _wait_for_the_moment(stack: Stack, fault: Fault) -> None:
    if not fault.storing:
        time.sleep(fault.aim)
        return
    before = stack.last_stored()
    wait(FELT_S, lambda: stack.last_stored() != before, every_s=0.002)
    time.sleep(fault.aim / 100)


def _death(fault: Fault, held: tuple[psutil.Process, UUID, int] | None) -> Death | None:
    return held and Death(fault.kind, held[1], held[2], datetime.now(UTC))


def _send(process: psutil.Process, number: signal.Signals) -> None:
    """Signal a job's process; psutil checks that it is still the process that was found."""
    with suppress(psutil.Error):
        process.send_signal(number)
