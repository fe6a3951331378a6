"""Samples that have stretches of values in common are grouped; those alike by chance are not."""

import pytest
import torch
from torch.nn.functional import one_hot

from worker.unlearning import shared_stretches
from worker.unlearning.shared_stretches import Stretches, united

RECORDINGS, WINDOWS, STEPS = 30, 10, 128


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def windows(generator):
    """Windows (N, 3, STEPS) of random walks, each so many steps after the last; and whose."""

    def make(step):
        size = (RECORDINGS, 3, STEPS + (WINDOWS - 1) * step)
        cut = torch.randn(size, generator=generator).cumsum(2).unfold(2, STEPS, step)
        owners = torch.arange(RECORDINGS).repeat_interleave(WINDOWS)
        return cut.transpose(1, 2).flatten(0, 1).contiguous(), owners

    return make


def found(inputs, *, tokens=False, batch=100):
    stretches = Stretches(tokens=tokens)
    for some in inputs.split(batch):
        stretches.add(some)
    return stretches.found()


def standardised(windows):
    return (windows - windows.mean(2, keepdim=True)) / windows.std(2, keepdim=True)


def as_integers(windows):
    return (windows * 1000).round().short()


FORMS = {
    "as stored": lambda x: x,
    "time first": lambda x: x.transpose(1, 2).contiguous(),
    "flat": lambda x: x.flatten(1),
    "time first, flat": lambda x: x.transpose(1, 2).flatten(1),
    "standardised one by one": standardised,
    "standardised, time first": lambda x: standardised(x).transpose(1, 2).contiguous(),
    "lowest is 0": lambda x: x - x.amin((1, 2), keepdim=True),
    "double": lambda x: x.double(),
    "half": lambda x: x.half(),
    "integers": as_integers,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("step", [64, 13])
def test_overlapping_windows_of_a_recording_are_one_group(windows, step, form):
    inputs, owners = windows(step)

    numbers = found(form(inputs))

    assert (numbers >= 0).float().mean() > 0.95
    for number in numbers[numbers >= 0].unique():
        assert len(owners[numbers == number].unique()) == 1


def test_windows_cut_at_every_step_are_found_in_any_order(generator):
    walks = torch.randn(6, 3, STEPS + 149, generator=generator).cumsum(2)
    inputs = walks.unfold(2, STEPS, 1).transpose(1, 2).flatten(0, 1)
    order = torch.randperm(len(inputs), generator=generator)

    numbers = found(inputs[order])

    owners = torch.arange(6).repeat_interleave(150)[order]
    assert torch.equal(numbers, united(owners, owners))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_windows_that_do_not_overlap_are_not_grouped(windows, form):
    inputs, _ = windows(STEPS)

    assert found(form(inputs)).max() == -1


def text(generator, count, length=60, words=5000):
    """Words as frequent as Zipf's law says."""
    frequent = 1 / torch.arange(1, words + 1)
    drawn = torch.multinomial(frequent, count * length, replacement=True, generator=generator)
    return drawn.reshape(count, length) + 2


def padded(tokens, generator):
    lengths = torch.randint(15, tokens.shape[1], (len(tokens), 1), generator=generator)
    return tokens * (torch.arange(tokens.shape[1]) < lengths)


def test_a_text_with_one_word_changed_is_found(generator):
    tokens = padded(text(generator, 500), generator)
    tokens[400:] = tokens[:100]
    tokens[400:].scatter_(1, torch.randint(0, 15, (100, 1), generator=generator), 1)

    numbers = found(tokens, tokens=True)

    assert (numbers[:100] == numbers[400:])[numbers[:100] >= 0].sum() > 95
    assert numbers[100:400].max() == -1


def test_a_passage_is_found_in_a_longer_text(generator):
    tokens = text(generator, 200, length=512)
    tokens[100:150, 60:] = 0
    tokens[100:150, :60] = tokens[:50, 300:360]

    numbers = found(tokens, tokens=True)

    assert (numbers[:50] == numbers[100:150])[numbers[:50] >= 0].sum() > 40


def columns_of_a_mask(generator):
    tokens = padded(text(generator, 2000), generator)
    places = torch.arange(tokens.shape[1]).expand_as(tokens)
    return torch.stack([tokens, (tokens > 0).long(), places], 1)


def of_few_values(generator):
    return torch.randint(0, 4, (5000, 40), generator=generator)


def encoded(generator):
    """Columns with three values each."""
    codes = torch.randint(0, 3, (5000, 20), generator=generator)
    return one_hot(codes).flatten(1).float()


def scaled(table):
    return (table - table.mean(0)) / table.std(0)


UNRELATED = {
    "few values": of_few_values,
    "few values, each column on its scale": lambda g: scaled(of_few_values(g).float()),
    "one-hot": encoded,
    "one-hot, scaled": lambda g: scaled(encoded(g)),
    "counts, mostly zeros": lambda g: torch.poisson(torch.full((2000, 150), 0.2), generator=g),
    "categories as tokens": lambda g: of_few_values(g) + 4 * torch.arange(40),
    "words": lambda g: padded(text(g, 2000), g),
    "words, mask and places": columns_of_a_mask,
    "equal constants": lambda _: torch.ones(500, 64),
    "equal ramps": lambda _: torch.arange(64.0).expand(500, 64).contiguous(),
    "too short": lambda g: torch.randn(200, 7, generator=g).repeat(2, 1),
    "one number": lambda g: torch.randn(200, 1, generator=g),
    "noise": lambda g: torch.randint(0, 256, (100, 3, 32, 32), generator=g).byte(),
}


@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize("make", UNRELATED.values(), ids=UNRELATED.keys())
def test_what_is_alike_by_chance_is_not_grouped(make, tokens, generator):
    inputs = make(generator)
    if tokens and inputs.is_floating_point():
        inputs = (inputs * 10).long()

    assert found(inputs, tokens=tokens).max() == -1


@pytest.mark.parametrize("count", [40, 2000])
def test_a_header_that_many_have_says_nothing(count, generator):
    inputs = torch.randn(count, 3, 64, generator=generator).cumsum(2)
    inputs[:, :, :40] = inputs[0, :, :40]
    tokens = text(generator, count)
    tokens[:, 20:50] = tokens[0, 20:50]

    assert found(inputs).max() == -1
    assert found(tokens, tokens=True).max() == -1


def test_a_phrase_that_many_have_says_nothing_wherever_it_stands(generator):
    tokens = text(generator, 2000)
    places = torch.randint(0, 40, (300, 1), generator=generator) + torch.arange(20)
    tokens[:300].scatter_(1, places, text(generator, 1, length=20).expand(300, 20))

    assert found(tokens, tokens=True).max() == -1


def test_a_phrase_of_some_texts_does_not_chain_them_together(generator):
    tokens = text(generator, 1000, length=128)
    for first in range(0, 990, 3):
        phrase = text(generator, 1, length=12)
        tokens[first : first + 4, (first * 7) % 100 : (first * 7) % 100 + 12] = phrase

    numbers = found(tokens, tokens=True)

    assert (numbers >= 0).sum() < 20


def test_minus_zero_is_zero(windows):
    inputs, _ = windows(STEPS)
    inputs[:, :, 1::5] = 0
    inputs[100:200] = inputs[:100]
    inputs[100:200][inputs[100:200] == 0] = -0.0

    numbers = found(inputs)

    assert torch.equal(numbers[:100], numbers[100:200])
    assert (numbers[:100] >= 0).all()


def test_pairs_are_counted_in_parts_where_there_are_many(windows, monkeypatch):
    inputs, _ = windows(13)
    whole = found(inputs)
    monkeypatch.setattr(shared_stretches, "PAIRS", 500)
    monkeypatch.setattr(shared_stretches, "ELEMENTS", 5000)

    assert torch.equal(found(inputs), whole)


def test_nothing_shares_nothing():
    assert Stretches().found().tolist() == []


def test_a_sample_takes_at_most_so_many_bytes(windows):
    inputs, _ = windows(64)

    assert Stretches().add(inputs) == 8 * shared_stretches.KEPT * len(inputs)


def test_groups_of_two_kinds_are_united():
    one = torch.tensor([0, 0, -1, 1, 1, -1, -1])
    other = torch.tensor([-1, 0, 0, -1, -1, -1, 1])

    assert united(one, other).tolist()[:6] == [0, 0, 0, 1, 1, -1]
