"""How long a job stood still after its worker was lost."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from chaos.promise import Death

LIMIT_S = 60.0
"""Promised for the production lease; with a shorter one it is faster."""

ENDS = ("job.completed", "job.failed", "job.cancelled")


@dataclass(frozen=True, slots=True)
class Recovery:
    """A loss, and the seconds until a live attempt held the job, or it had ended."""

    death: Death
    seconds: float | None
    """None if that never happened."""


def recoveries(
    connection: psycopg.Connection[dict[str, Any]], deaths: Iterable[Death]
) -> list[Recovery]:
    """One for each death that hit an unfinished job."""
    found = []
    for death in deaths:
        events = connection.execute(
            "SELECT event, extract(epoch FROM at - %s)::float AS seconds FROM audit_events "
            "WHERE subject_id = %s AND (event = ANY(%s) "
            "OR event = 'job.started' AND (data->>'attempt')::int > %s) ORDER BY id",
            [death.at, death.job_id, list(ENDS), death.attempt],
        ).fetchall()
        if any(event["event"] in ENDS and event["seconds"] < 0 for event in events):
            continue  # its process was about to exit
        later = [event["seconds"] for event in events if event["seconds"] >= 0]
        found.append(Recovery(death, later[0] if later else None))
    return found
