"""What is done to the house, one function for each kind of fault.

Each leaves the house whole when it returns: what ended is started again, what stopped goes on.
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
from chaos.house import House
from chaos.promise import Death
from chaos.schedule import Fault, Kind
from domain import doorbell

PATIENCE_S = 4.0
"""How long a blow waits for its victim to have a job, or to be asked something."""

FELT_S = 20.0
"""How long it waits for a job to store its files."""


def strike(house: House, fault: Fault) -> Death | None:
    """Do it. Returns what a worker lost by it, if it held a job."""
    if fault.kind in WORKER_BLOWS:
        name = _victim(house, fault)
        with house.locks[name]:
            _wait_for_the_moment(house, fault)
            return WORKER_BLOWS[fault.kind](house, name, fault)
    struck, blow = BLOWS[fault.kind]
    with house.locks[struck]:
        blow(house, fault)
    return None


def _kill_parent(house: House, name: str, fault: Fault) -> Death | None:
    death = _death(fault, house.held_by(name))
    house.signal(name, signal.SIGKILL)
    house.home.processes[name].wait()
    time.sleep(fault.lasts)
    house.start_again(name)
    return death


def _term_parent(house: House, name: str, fault: Fault) -> Death | None:
    death = _death(fault, house.held_by(name))
    house.home.stop(name, timeout_s=30)
    time.sleep(fault.lasts)
    house.start_again(name)
    return death


def _stop_parent(house: House, name: str, fault: Fault) -> Death | None:
    """SIGSTOP and, later, SIGCONT: if that takes longer than the lease, the worker was lost."""
    death = _death(fault, house.held_by(name))
    house.signal(name, signal.SIGSTOP)
    time.sleep(fault.lasts)
    house.signal(name, signal.SIGCONT)
    return death if fault.lasts > house.lease_s else None


def _stop_child(house: House, name: str, fault: Fault) -> None:
    """The job stands still, while its parent keeps the lease."""
    held = house.held_by(name)
    if held is not None:
        _send(held[0], signal.SIGSTOP)
        time.sleep(fault.lasts)
        _send(held[0], signal.SIGCONT)


def _end_child(house: House, name: str, fault: Fault) -> Death | None:
    held = house.held_by(name)
    if held is None:
        return None
    death = _death(fault, held)
    _send(held[0], signal.SIGKILL if fault.kind is Kind.KILL_CHILD else signal.SIGTERM)
    return death


def _flush_redis(house: House, _: Fault) -> None:
    with redis.from_url(house.servers.broker_url) as broker:
        broker.flushall()


def _restart_redis(house: House, fault: Fault) -> None:
    house.stop_redis()
    time.sleep(fault.lasts)
    house.start_redis()


def _restart_postgres(house: House, fault: Fault) -> None:
    house.stop_postgres(crash=fault.kind is Kind.POSTGRES_CRASHED)
    time.sleep(fault.lasts)
    house.start_postgres()


def _kill_api(house: House, fault: Fault) -> None:
    """While a request is being answered, if one comes in time."""
    while house.posting.acquire(blocking=False):
        pass  # those are sent
    house.posting.acquire(timeout=PATIENCE_S)
    time.sleep(fault.aim / 100)
    house.signal("api", signal.SIGKILL)
    house.home.processes["api"].wait()
    time.sleep(fault.lasts)
    house.start_again("api")
    house.home.wait_until_ready()


def _ring(house: House, fault: Fault) -> None:
    """Ring for jobs that ended, wait, run and never were: often, and in any order."""
    dice = random.Random(fault.aim)
    with house.locks["postgres"], psycopg.connect(house.database_url) as connection:
        known = connection.execute("SELECT id FROM jobs ORDER BY id DESC LIMIT 20").fetchall()
    ids = [*(row[0] for row in known), uuid4(), uuid4()] * 3
    dice.shuffle(ids)
    with doorbell.queue(house.servers.broker_url) as bell:
        for job_id in ids:
            doorbell.ring_job(bell, job_id)
        doorbell.ring_sweep(bell)


def _second_beat(house: House, fault: Fault) -> None:
    house.home.start("beat-2")
    time.sleep(fault.lasts)
    house.home.stop("beat-2")


def _step_lease(house: House, fault: Fault) -> None:
    """What a jump of the clock is to the protocol: all leases end earlier, or later."""
    move = "UPDATE jobs SET lease_until = lease_until + make_interval(secs => %s)"
    with psycopg.connect(house.database_url) as connection:
        connection.execute(f"{move} WHERE status = 'running'", [fault.step])


def _fill_disk(house: House, fault: Fault) -> None:
    state = house.home.state
    disk.fill(state)
    _wait(FELT_S, lambda: disk.was_felt(state))
    time.sleep(fault.lasts)
    disk.empty(state)


BLOWS: Mapping[Kind, tuple[str, Callable[[House, Fault], None]]] = {
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
"""What each kind strikes, and how."""

WORKER_BLOWS: Mapping[Kind, Callable[[House, str, Fault], Death | None]] = {
    Kind.KILL_PARENT: _kill_parent,
    Kind.KILL_CHILD: _end_child,
    Kind.STOP_PARENT: _stop_parent,
    Kind.STOP_CHILD: _stop_child,
    Kind.TERM_PARENT: _term_parent,
    Kind.TERM_CHILD: _end_child,
}
"""The same for those that strike a worker."""


def _victim(house: House, fault: Fault) -> str:
    """The worker meant, unless only the other one gets a job."""
    meant, other = f"worker-{fault.victim}", f"worker-{3 - fault.victim}"
    _wait(PATIENCE_S, lambda: bool(house.held_by(meant) or house.held_by(other)))
    return meant if house.held_by(meant) or not house.held_by(other) else other


def _wait_for_the_moment(house: House, fault: Fault) -> None:
    if not fault.storing:
        time.sleep(fault.aim)
        return
    before = house.last_stored()
    _wait(FELT_S, lambda: house.last_stored() != before, every_s=0.002)
    time.sleep(fault.aim / 100)


def _wait(timeout_s: float, done: Callable[[], bool], *, every_s: float = 0.02) -> None:
    """Until it is done, or too late: a blow that nobody feels is no error."""
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(every_s)


def _death(fault: Fault, held: tuple[psutil.Process, UUID, int] | None) -> Death | None:
    return held and Death(fault.kind, held[1], held[2], datetime.now(UTC))


def _send(process: psutil.Process, number: signal.Signals) -> None:
    """Signal a job's process; psutil makes sure that it still is the one that was found."""
    with suppress(psutil.Error):
        process.send_signal(number)
