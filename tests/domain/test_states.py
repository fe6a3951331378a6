"""The words for results."""

import pytest

from domain.states import Verdict


@pytest.mark.parametrize(
    ("fails", "has_power", "verdict"),
    [
        (False, True, Verdict.PASS),
        (True, True, Verdict.FAIL),
        (True, False, Verdict.FAIL),
        (False, False, Verdict.NO_POWER),
    ],
)
def test_a_failure_counts_most_and_without_power_nothing_passes(fails, has_power, verdict):
    assert Verdict.of(fails=fails, has_power=has_power) is verdict
