"""How long a job stands still after its worker died."""

from datetime import UTC, datetime, timedelta

import pytest

from chaos.promise import Death
from chaos.recovery import recoveries
from tests.chaos.planted import Planted


def lost(stack: Planted, **ago: float) -> Death:
    return Death("kill_parent", stack.ids["job"], 1, datetime.now(UTC) - timedelta(**ago))


def shift(stack: Planted, event: str, **ago: float) -> None:
    stack.sql(
        "UPDATE audit_events SET at = %s WHERE event = %s AND data->>'attempt' = '2'",
        datetime.now(UTC) - timedelta(**ago),
        event,
    )


def test_recovery_ends_when_the_next_attempt_begins(stack: Planted):
    shift(stack, "job.started", seconds=60)
    shift(stack, "job.completed", seconds=10)
    [found] = recoveries(stack.connection, [lost(stack, seconds=70)])
    assert found.seconds == pytest.approx(10, abs=1)


def test_a_job_that_nobody_takes_up_never_recovers(stack: Planted):
    stack.sql("DELETE FROM audit_events WHERE data->>'attempt' = '2'")
    [found] = recoveries(stack.connection, [lost(stack, seconds=-60)])
    assert found.seconds is None


def test_a_worker_that_had_just_ended_its_job_lost_nothing(stack: Planted):
    shift(stack, "job.completed", seconds=10)
    assert recoveries(stack.connection, [lost(stack, seconds=5)]) == []
