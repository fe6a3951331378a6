"""The short run: ten schedules of faults, with every kind among them."""

from pathlib import Path

import pytest

from chaos.__main__ import last_line, summary
from chaos.run import run
from chaos.schedule import Kind
from chaos.stack import QUICK

SEEDS = range(11472, 11482)
"""Ten that have every kind of fault among them, and few clients: so it is sooner over."""


def test_ten_schedules_of_faults_lose_nothing_and_do_nothing_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    outcomes = run(SEEDS, tmp_path / "stack", QUICK, stacks=2)

    report = summary(outcomes, lease_default=False)
    assert not report["violations"], capfd.readouterr().out
    assert report["faults_by_kind"].keys() == set(Kind)
    assert report["requests_accepted"] == sum(each.clients for each in outcomes)
    planned = [renewal for each in outcomes for renewal in each.schedule.renewals]
    states = sum(renewal.moves_on for renewal in planned)
    assert states
    # What is forgotten meanwhile speaks against a version, but nothing speaks against a state.
    assert report["versions_and_states_registered"] >= len(planned) + states
    assert report["of_these_taken"] > states
    assert last_line(report).startswith("chaos: schedules=10 faults=")
    assert " lost=0 doubled=0 worst_recovery_s=" in last_line(report)
