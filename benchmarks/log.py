"""How fast the audit trail grows and proves: `make bench-log`.

Appends: 16 concurrent writers under the service's role, with one and with eight events per
transaction, against a table without position, key or order (the limit). Proofs: from a log of a
million events, read with the API's statements. Hashing and signing: the cost of a checkpoint over
that million.
"""

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import psycopg
from securesystemslib.signer import CryptoSigner
from sqlalchemy import Engine

from devstack import local, roles
from domain import trail
from domain.database import sync_engine, sync_sessions
from domain.events import RequestCompleted
from domain.settings import MigrationSettings, WorkerSettings
from evidence import merkle, tree
from worker.evidence import keeper

WRITERS = 16
SECONDS = 5.0
EVENTS = 1_000_000
PROOFS = 300
RESULTS = Path(__file__).parent / "results" / "log.json"

EVENT = "('api', 'request.received', gen_random_uuid(), '{\"samples\": 10}')"
APPEND = "INSERT INTO {} (actor, event, subject_id, data) VALUES {}"
BARE = """
    CREATE TABLE bare_events (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz DEFAULT clock_timestamp(),
        actor varchar, event varchar, subject_id uuid, data jsonb
    );
    CREATE INDEX ON bare_events (subject_id);
    GRANT INSERT ON bare_events TO lethe_api
"""
FILL = """
    INSERT INTO audit_events (actor, event, subject_id, data)
    SELECT 'worker', 'request.scheduled', gen_random_uuid(), '{"job": "x"}'
    FROM generate_series(1, %s)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, local.servers(Path(folder)) as servers:
        environment = {**os.environ, "LETHE_DATABASE_URL": servers.database_url}
        local.Stack(Path(folder), servers.owner_url, environment, 0).migrate()
        with psycopg.connect(servers.owner_url, autocommit=True) as owner:
            owner.execute(BARE)
        results: dict[str, Any] = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cores": os.cpu_count(),
            "writers": WRITERS,
            "appends": [_appends(servers.database_url, events) for events in (1, 8)],
        }
        url = roles.as_role(servers.database_url, roles.ROLES["worker"])
        engine = sync_engine(MigrationSettings(database_url=url).database_url)
        results["log"] = _proofs(engine, servers)
        engine.dispose()
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def _appends(url: str, events: int) -> dict[str, Any]:
    """Events per second appended to the trail and to a bare table, in turns."""
    rates: dict[str, list[float]] = {"audit_events": [], "bare_events": []}
    for _ in range(3):
        for table, rate in rates.items():
            rate.append(events * _transactions(url, APPEND.format(table, _rows(events))))
    trail, bare = (statistics.median(rate) for rate in rates.values())
    return {
        "events_per_transaction": events,
        "events_per_s": round(trail),
        "bare_events_per_s": round(bare),
        "ratio": round(trail / bare, 2),
    }


def _rows(count: int) -> str:
    return ", ".join([EVENT] * count)


def _transactions(url: str, statement: str) -> float:
    """Transactions per second, over all writers."""
    done = [0] * WRITERS
    fence = threading.Barrier(WRITERS + 1)

    def write(writer: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            fence.wait()
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                connection.execute(statement)
                done[writer] += 1

    threads = [threading.Thread(target=write, args=[writer]) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    fence.wait()
    started = time.monotonic()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - started)


def _proofs(engine: Engine, servers: local.Servers) -> dict[str, Any]:
    """The cost of hashing and signing a log of `EVENTS`, and of proofs from it, in milliseconds."""
    with psycopg.connect(servers.owner_url) as connection:
        connection.execute(FILL, [EVENTS])
    sessions = sync_sessions(engine)
    settings = WorkerSettings(
        database_url=servers.database_url, broker_url=servers.broker_url, store=Path("unused")
    )
    signer = CryptoSigner.generate_ed25519()
    started = time.monotonic()
    keeper.keep(sessions, [signer], settings)
    hashing_s = time.monotonic() - started
    with sessions.begin() as session:
        newest = session.scalars(tree.NEWEST_CHECKPOINT).one()
        trail.record(session, "worker", UUID(int=1), RequestCompleted())
    size = newest.size
    started = time.monotonic()
    keeper.keep(sessions, [signer], settings)
    next_s = time.monotonic() - started
    dice = Random(1)

    def timed(spans_of: Callable[[], list[merkle.Span]]) -> dict[str, float]:
        took = []
        for _ in range(PROOFS):
            begun = time.perf_counter()
            spans = spans_of()
            with sessions.begin() as session:
                nodes = tree.by_node(session.execute(tree.fetching(spans)))
            tree.proof(spans, nodes)
            took.append(1000 * (time.perf_counter() - begun))
        first, *others = took  # builds and plans the statement, which a process does once
        return {
            "first_ms": round(first, 2),
            "median_ms": round(statistics.median(others), 2),
            "p99_ms": round(statistics.quantiles(others, n=100)[-1], 2),
            "worst_ms": round(max(others), 2),
        }

    return {
        "events": size,
        "hash_and_sign_all_s": round(hashing_s, 1),
        "next_checkpoint_s": round(next_s, 3),
        "inclusion": timed(lambda: merkle.inclusion(dice.randrange(size), size)),
        "consistency": timed(lambda: merkle.consistency(dice.randrange(1, size), size)),
    }


if __name__ == "__main__":
    main()
