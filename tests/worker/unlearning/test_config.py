import json
from dataclasses import asdict, replace

import pytest

from worker.unlearning.config import default_config


@pytest.fixture
def config():
    return default_config(removing=False, forget_count=1000, reservoir_count=5000)


def test_is_plain_json(config):
    assert json.loads(json.dumps(asdict(config)))["removing"] is False


@pytest.mark.parametrize(
    ("field", "value"),
    [("cycles", 0), ("batch_size", 1), ("early_share", 1.1), ("frozen_share", -0.1),
     ("label_share", 1.1), ("push", -1), ("recover_most", 1), ("forget_batch", 0),
     ("forget_batch", 80), ("held", 0),
     ("k", 0), ("forget_lr", float("nan")), ("alignment_weight", -1)],
)  # fmt: skip
def test_names_the_field_that_is_out_of_range(config, field, value):
    with pytest.raises(ValueError, match=field):
        replace(config, **{field: value})


@pytest.mark.parametrize("forget_count", [1, 7, 50, 1000, 100_000])
@pytest.mark.parametrize("reservoir_count", [1, 40, 800, 1_000_000])
@pytest.mark.parametrize("removing", [False, True])
def test_defaults_exist_for_every_size(removing, forget_count, reservoir_count):
    config = default_config(
        removing=removing, forget_count=forget_count, reservoir_count=reservoir_count
    )

    assert 16 <= config.batch_size <= 128
    steps = config.forget_epochs * -(-forget_count // config.forget_batch)
    assert steps >= 8


@pytest.mark.parametrize(("skew", "share"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.25)])
def test_the_more_skewed_a_forget_set_the_more_company_it_has(skew, share):
    config = default_config(removing=False, forget_count=200, reservoir_count=5000, skew=skew)
    assert config.forget_batch == share * config.batch_size / 2
    assert config.forget_epochs * -(-200 // config.forget_batch) >= 16


def test_a_step_after_fail_works_longer_and_the_last_one_harder():
    first, more, stronger = (
        default_config(removing=False, forget_count=1000, reservoir_count=5000, level=level)
        for level in (0, 1, 2)
    )
    assert first.cycles < more.cycles == stronger.cycles
    assert stronger.forget_lr == 2 * first.forget_lr
    assert stronger.recover_most == 2 * first.recover_most


@pytest.mark.parametrize("count", [1, 33, 73])
def test_no_step_rehearses_much_more_for_a_small_set(count):
    first, stronger = (
        default_config(removing=False, forget_count=count, reservoir_count=5000, level=level)
        for level in (0, 2)
    )
    assert stronger.forget_lr == 2 * first.forget_lr
    assert stronger.recover_most < 1.4 * first.recover_most


def test_a_few_samples_take_little_work():
    """Tiny requests are the most frequent ones; they once cost as much as four hundred samples."""

    def steps(count):
        config = default_config(removing=False, forget_count=count, reservoir_count=10_000)
        return config.cycles * config.forget_epochs * -(-count // config.forget_batch)

    assert steps(1) == steps(50) == 8
    assert [steps(n) for n in (100, 200, 1000)] == [8, 32, 128]
