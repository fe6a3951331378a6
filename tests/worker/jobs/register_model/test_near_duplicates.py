"""Near-duplicates are counted when a model is registered, and kept where they count as groups."""

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select

from domain.tables import NearDuplicate
from tests import factories
from tests.worker.jobs.register_model.digit_networks import DIGITS, PARTS, POLICY, digits_table
from worker import budgets
from worker.data import groups

BURSTS, SIZE = 20, 5


@pytest.fixture
def bursts(indexed):
    """Digits whose first hundred are twenty, each five times with a little noise."""
    pixels, digit = DIGITS.data.copy(), DIGITS.target.copy()
    noise = np.random.default_rng(0).integers(0, 2, (BURSTS * SIZE, 64))
    first = np.arange(BURSTS * SIZE) // SIZE * SIZE
    pixels[: BURSTS * SIZE] = np.clip(pixels[first] + noise, 0, 16)
    digit[: BURSTS * SIZE] = digit[first]
    table = digits_table()
    values = pa.array(pixels.astype(np.uint8).tolist(), pa.list_(pa.uint8()))
    table = table.set_column(1, "pixels", values).set_column(2, "digit", pa.array(digit))
    return indexed(table)


@pytest.fixture
def overlapping(indexed):
    """Digits in place of whose pixels are windows of recordings, SIZE of each, overlapping by half,
    with any labels."""
    count = len(DIGITS.data)
    recordings = np.random.default_rng(0).integers(0, 256, (count // SIZE + 1, 32 * (SIZE + 1)))
    windows = np.lib.stride_tricks.sliding_window_view(recordings, 64, axis=1)[:, ::32]
    pixels = windows.reshape(-1, 64)[:count].astype(np.uint8)
    values = pa.array(pixels.tolist(), pa.list_(pa.uint8()))
    return indexed(digits_table().set_column(1, "pixels", values))


def kept(bench, model):
    for attempt in bench.transaction():
        with attempt as session:
            rows = session.execute(
                select(NearDuplicate.sample_id, NearDuplicate.group_number).where(
                    NearDuplicate.model_id == model.id
                )
            ).all()
    return {int(name.removeprefix("digit-")): number for name, number in rows}


def test_bursts_are_counted_and_become_groups_where_the_policy_says_so(
    bursts, named, run, refreshed
):
    model = named(bursts, policy={**POLICY, "group": "near_duplicates"})

    bench = run(model)

    found, rows = refreshed(model).near_duplicates, kept(bench, model)
    in_bursts = [row for row in rows if row < BURSTS * SIZE]
    searched = int((PARTS[: BURSTS * SIZE] != "test").sum())
    assert len(in_bursts) > 0.8 * searched
    assert len(rows) - len(in_bursts) < 20
    assert found["samples"] == sum(PARTS[row] == "train" for row in rows)
    assert found["holdout_samples"] == sum(PARTS[row] == "valid" for row in rows)
    assert found["training_samples"] == (PARTS == "train").sum()
    assert found["groups"] == len({rows[row] for row in rows if PARTS[row] == "train"})
    assert found["groups_in_holdout"] >= 10
    assert found["largest"] >= 4
    assert (found["left_out"], found["not_searched"]) == (None, 0)
    assert all(len({rows[row] for row in example}) == 1 for example in found["examples"])
    for attempt in bench.transaction():
        with attempt as session:
            codes = groups.codes(session, model, [f"digit-{row}" for row in rows])
    assert len(codes.unique()) == len({*rows.values()})


def test_overlapping_windows_become_groups_whatever_their_labels(
    overlapping, named, run, refreshed
):
    policy = {**POLICY, "group": "near_duplicates"}
    model = named(overlapping, policy=policy, accept_accuracy=True)

    rows = kept(run(model), model)

    searched = [row for row in range(len(PARTS)) if PARTS[row] != "test"]
    assert len(rows) > 0.95 * len(searched)
    assert len({(row // SIZE, number) for row, number in rows.items()}) == len({*rows.values()})
    found = refreshed(model).near_duplicates
    assert found["sharing_stretches"] > 0.95 * found["training_samples"]


def test_near_duplicates_are_only_counted_by_default(bursts, named, run, refreshed):
    model = named(bursts)

    bench = run(model)

    assert refreshed(model).near_duplicates["samples"] > 30
    assert kept(bench, model) == {}


def test_forgotten_samples_are_not_among_them(bursts, named, run, session):
    model = named(bursts, policy={**POLICY, "group": "near_duplicates"})
    job = factories.job(model_id=model.id, finished=True)
    session.add(job)
    session.flush()
    session.add(factories.tombstone(model, job, "digit-0", key=bursts.tombstone_key))
    session.commit()

    rows = kept(run(model), model)

    assert 0 not in rows
    assert 1 in rows


def test_what_is_too_large_is_left_out_and_says_so(digits, named, run, refreshed, monkeypatch):
    monkeypatch.setattr(budgets, "LIKENESS_BYTES", 10_000)
    model = named(digits, policy={**POLICY, "group": "near_duplicates"})

    bench = run(model)

    found = refreshed(model).near_duplicates
    assert "too many samples to compare" in found["left_out"]
    assert (found["samples"], found["examples"]) == (0, [])
    assert kept(bench, model) == {}


def test_stretches_are_left_out_on_their_own(digits, named, run, refreshed, monkeypatch):
    monkeypatch.setattr(budgets, "STRETCHES_BYTES", 10_000)
    model = named(digits)

    run(model)

    found = refreshed(model).near_duplicates
    assert (found["sharing_stretches"], found["left_out"]) == (None, None)
    assert found["training_samples"] == (PARTS == "train").sum()


def test_stretches_are_looked_for_where_layers_are_not_compared(
    overlapping, named, run, refreshed, monkeypatch
):
    monkeypatch.setattr(budgets, "LIKENESS_BYTES", 10_000)
    model = named(overlapping, accept_accuracy=True)

    run(model)

    found = refreshed(model).near_duplicates
    assert "too many samples to compare" in found["left_out"]
    assert found["samples"] == found["sharing_stretches"] > 1000


def test_independent_digits_have_hardly_any(digits, named, run, refreshed):
    model = named(digits)

    run(model)

    assert refreshed(model).near_duplicates["samples"] < 20
