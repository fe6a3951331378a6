"""The two halves of the hold-out: one for the method, one for the audit."""

import pyarrow as pa
import pytest

from worker.data import reservoir


def table(holdout, *, others=3):
    names = [f"h{n}" for n in range(holdout)] + [f"t{n}" for n in range(others)]
    splits = ["holdout"] * holdout + ["train"] * others
    return pa.table({"sample_id": names, "split": splits})


def names(rows):
    return set(rows["sample_id"].to_pylist())


def test_every_holdout_sample_is_in_one_half():
    calibration, audit = (names(half) for half in reservoir.holdout_halves(table(400)))

    assert calibration | audit == {f"h{n}" for n in range(400)}
    assert not calibration & audit
    assert 150 < len(audit) < 250


def test_a_sample_stays_in_its_half_whatever_leaves():
    everything = table(400)
    fewer = reservoir.without(everything, [f"h{n}" for n in range(0, 400, 3)])

    whole = [names(half) for half in reservoir.holdout_halves(everything)]
    left = [names(half) for half in reservoir.holdout_halves(fewer)]

    assert left[0] < whole[0]
    assert left[1] < whole[1]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_no_half_is_empty_as_long_as_there_are_two_samples(count):
    for first in range(40):
        ids = [f"h{n}" for n in range(first, first + count)]
        rows = pa.table({"sample_id": ids, "split": ["holdout"] * count})

        assert all(half.num_rows for half in reservoir.holdout_halves(rows))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_samples_are_no_error(count):
    calibration, audit = reservoir.holdout_halves(table(count))

    assert calibration.num_rows + audit.num_rows == count
