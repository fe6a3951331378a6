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

from chaos.house import House
from chaos.promise import Death
from chaos.schedule import Fault, Kind
from service import doorbell

PATIENCE_S = 4.0
"""How long a blow waits for its victim to have a job, or to be asked something."""


def strike(house: House, fault: Fault) -> Death | None:
    """Do it. Returns what a worker lost by it, if it held a job."""
    victim, blow = BLOWS[fault.kind]
    with house.locks[victim or f"worker-{fault.victim}"]:
        return blow(house, fault)


def _kill_parent(house: House, fault: Fault) -> Death | None:
    name = f"worker-{fault.victim}"
    held = _aim(house, name, fault)
    death = _death(fault, held)
    house.signal(name, signal.SIGKILL)
    house.home.processes[name].wait()
    time.sleep(fault.lasts)
    house.start_again(name)
    return death


def _term_parent(house: House, fault: Fault) -> Death | None:
    name = f"worker-{fault.victim}"
    death = _death(fault, _aim(house, name, fault))
    house.home.stop(name, timeout_s=30)
    time.sleep(fault.lasts)
    house.start_again(name)
    return death


def _stop_parent(house: House, fault: Fault) -> Death | None:
    """SIGSTOP and, later, SIGCONT: if that takes longer than the lease, the worker was lost."""
    name = f"worker-{fault.victim}"
    death = _death(fault, _aim(house, name, fault))
    house.signal(name, signal.SIGSTOP)
    time.sleep(fault.lasts)
    house.signal(name, signal.SIGCONT)
    return death if fault.lasts > house.lease_s else None


def _stop_child(house: House, fault: Fault) -> None:
    """The job stands still, while its parent keeps the lease."""
    child = _aim(house, f"worker-{fault.victim}", fault)
    if child is not None:
        _send(child[0], signal.SIGSTOP)
        time.sleep(fault.lasts)
        _send(child[0], signal.SIGCONT)


def _end_child(number: signal.Signals) -> Callable[[House, Fault], Death | None]:
    def blow(house: House, fault: Fault) -> Death | None:
        held = _aim(house, f"worker-{fault.victim}", fault)
        if held is None:
            return None
        death = _death(fault, held)
        _send(held[0], number)
        return death

    return blow


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
    with psycopg.connect(house.database_url) as connection:
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
    house.fill_disk()
    time.sleep(fault.lasts)
    house.empty_disk()


BLOWS: Mapping[Kind, tuple[str | None, Callable[[House, Fault], Death | None]]] = {
    Kind.KILL_PARENT: (None, _kill_parent),
    Kind.KILL_CHILD: (None, _end_child(signal.SIGKILL)),
    Kind.STOP_PARENT: (None, _stop_parent),
    Kind.STOP_CHILD: (None, _stop_child),
    Kind.TERM_PARENT: (None, _term_parent),
    Kind.TERM_CHILD: (None, _end_child(signal.SIGTERM)),
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
"""What each kind strikes, where it is not a worker, and how."""


def _aim(house: House, worker: str, fault: Fault) -> tuple[psutil.Process, UUID, int] | None:
    """Wait until the worker has had a job for as long as the fault says; what it holds then."""
    deadline = time.monotonic() + PATIENCE_S
    while house.held_by(worker) is None:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
    time.sleep(fault.aim)
    return house.held_by(worker)


def _death(fault: Fault, held: tuple[psutil.Process, UUID, int] | None) -> Death | None:
    return held and Death(fault.kind, held[1], held[2], datetime.now(UTC))


def _send(process: psutil.Process, number: signal.Signals) -> None:
    """Signal a job's process; psutil makes sure that it still is the one that was found."""
    with suppress(psutil.Error):
        process.send_signal(number)
