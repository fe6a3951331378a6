"""Samples that have stretches in common, value by value: overlapping windows of a recording, crops
of a photo, passages of a text.

Shifted by half a window, a recording looks different to a network, but half of its values are the
same ones in the same order. So every run of consecutive values gets a fingerprint, each sample
keeps a few of its own, always the smallest, and samples that keep the same rare ones belong
together, whatever their labels: a recording goes on into the next activity. Where samples seem to
have been standardised one by one, their steps are compared instead, up to scale.

Shapes: N samples, L values of a sample, R = L - length + 1 runs, S fingerprints kept, E pairs.

Source:
    Fingerprints of runs: Schleimer, Wilkerson, Aiken, "Winnowing: Local Algorithms for Document
    Fingerprinting", 2003. The smallest as a sample of them: Broder, "On the Resemblance and
    Containment of Documents", 1997. Which runs and which fingerprints count is our reconstruction.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from worker.unlearning.near_duplicates import components

NUMBERS, TOKENS = 16, 8
"""Values of a run, powers of two. Eight tokens are half a sentence."""

DISTINCT = 1 / 2
"""Of a run's values that must differ: padding, black borders and one-hot columns say nothing."""

BITS = 4
"""What equality in one value of a run must say on average: as in sixteen equally frequent values.
In a table of small numbers, rows agree in many columns by chance."""

MOST_BITS = 8
"""What equality in one value says at most, so that a few rare values do not speak for a run."""

KNOWN = 20_000
"""Pairs of samples from which that is estimated for every place; ROWS of a batch at a time."""

ROWS = 256

LEVEL = 1e-3
"""Of their spread: samples whose means, lowest, highest or first values are that close to each
other were levelled one by one."""

STEPS = 2**12
"""Of a float that was, relative to the largest step in its run. Rounding after a window was
standardised moves one in a hundred or so over a border."""

KEPT = 32
"""Fingerprints of a sample."""

AT_LEAST, OF_NUMBERS, OF_TOKENS = 2, 0.1, 0.2
"""Rare fingerprints that two samples must share: so many, and so much of what each kept; more of a
text, as authors copy sentences."""

RARE = 10
"""The most samples that have a rare fingerprint: those of windows that overlap by nine tenths. More
have a common header or a set phrase."""

LARGE = 0.5
"""Windows cut at every step share each run with as many others as they have runs. Up to so many,
samples belong together if they share this much."""

OF_ALL = 4
"""What one sample in so many has, is no evidence in any case."""

NEXT = 4
"""Others that a sample is paired with for each of its fingerprints: the next in order. Larger
groups hang together by their members."""

ELEMENTS = 2**21
"""Runs hashed at a time."""

PAIRS = 2**24
"""Pairs counted at a time."""

FACTORS = (
    2 * torch.randint(-(2**62), 2**62, (NUMBERS,), generator=torch.Generator().manual_seed(0)) + 1
).tolist()
"""Odd numbers that hashes are multiplied by, modulo 2**64."""

NONE = torch.iinfo(torch.int64).max
"""In place of a fingerprint that a sample does not have."""


@dataclass(slots=True)
class Stretches:
    """Fingerprints of samples, added batch by batch."""

    tokens: bool = False
    """Whether values are token ids rather than measured numbers."""

    _kept: list[Tensor] = field(default_factory=list)
    _levelled: bool | None = None
    _equal: Tensor | None = None
    _pairs: Tensor | None = None

    def add(self, inputs: Tensor) -> int:
        """Add samples as they are stored, (N, ...) of any type, at least one; the bytes that they
        take."""
        values = _in_a_row(inputs)
        if values.shape[1] < self._length:
            self._kept.append(torch.empty(len(values), 0, dtype=torch.int64))
            return 0
        if self._levelled is None:
            self._levelled = values.is_floating_point() and _levelled(values)
        if values.is_floating_point() and not self._levelled:
            values = _bits(values)
        says = self._says(values)
        size = max(ELEMENTS // max(values.shape[1], 1), 1)
        parts = [_smallest(part, says, self._length) for part in values.split(size)]  # type: ignore[no-untyped-call]  # torch
        self._kept.append(torch.cat(parts))
        return self._kept[-1].nbytes

    def found(self) -> Tensor:
        """(N,) int64: the group of each sample, from 0; -1 for one that shares nothing."""
        if not self._kept:
            return torch.empty(0, dtype=torch.int64)
        width = max(part.shape[1] for part in self._kept)
        padded = [
            torch.nn.functional.pad(part, (0, width - part.shape[1]), value=NONE)
            for part in self._kept
        ]
        share = OF_TOKENS if self.tokens else OF_NUMBERS
        return search(torch.cat(padded), runs=self._runs, share=share)

    @property
    def _length(self) -> int:
        return TOKENS if self.tokens else NUMBERS

    @property
    def _runs(self) -> int:
        return 0 if self._equal is None else len(self._equal) - self._length + 1

    def _says(self, values: Tensor) -> Tensor:
        """(L,) bits that equality says in every place, as far as is known.

        Values that repeat their neighbour are left out: padding is not the text.
        """
        if self._equal is None or self._pairs is None:
            self._equal = torch.zeros(values.shape[1], dtype=torch.float64)
            self._pairs = torch.zeros_like(self._equal)
        if self._pairs.max() < KNOWN:
            some = values[:: -(-len(values) // ROWS)]
            repeated = torch.zeros_like(some, dtype=torch.bool)
            same = some[:, 1:] == some[:, :-1]
            repeated[:, 1:] |= same
            repeated[:, :-1] |= same
            order = some.T.contiguous().sort(1)
            alone = ~repeated.T.gather(1, order.indices)
            many = alone.sum(1).double()
            self._pairs += many * (many - 1) / 2
            self._equal += _equal_pairs(order.values, alone)
        chance = (self._equal + 1) / (self._pairs + 1)
        return -chance.log2().clamp_min(-MOST_BITS)


def _equal_pairs(ordered: Tensor, alone: Tensor) -> Tensor:
    """(L,) how many pairs are equal, of values (L, N) in order of which only some count."""
    new = torch.ones_like(alone)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    new[:, 0] = True
    own = new.flatten().cumsum(0) - 1  # a number for each value of each place
    counts = torch.zeros(int(own[-1]) + 1, dtype=torch.float64)
    counts.index_add_(0, own, alone.flatten().double())
    place = torch.arange(len(alone))[:, None].expand_as(new)[new]
    pairs = counts * (counts - 1).clamp_min(0) / 2
    return torch.zeros(len(alone), dtype=torch.float64).index_add_(0, place, pairs)


def _in_a_row(inputs: Tensor) -> Tensor:
    """(N, L) int64 or float: of two dimensions the longer one, most often time, runs fastest."""
    if inputs.ndim == 3 and inputs.shape[1] > inputs.shape[2]:
        inputs = inputs.transpose(1, 2)
    values = inputs.flatten(1)
    if values.is_floating_point():
        return values.float() if values.itemsize < 4 else values
    return values.long()


def _levelled(values: Tensor) -> bool:
    """Whether something in float samples (N, L) is the same for all of them, as their mean is after
    it was taken out."""
    spread = values.std(1).median().nan_to_num()
    levels = torch.stack([values.mean(1), values.amin(1), values.amax(1), values[:, 0]])
    apart = (levels - levels.median(1, keepdim=True).values).abs().median(1).values
    return bool((apart <= LEVEL * spread).any())


def _bits(values: Tensor) -> Tensor:
    """(N, L) int64, equal where floats are."""
    as_whole = torch.int64 if values.dtype is torch.float64 else torch.int32
    return (values + 0.0).view(as_whole).long()  # -0.0 + 0.0 is 0.0


def _smallest(values: Tensor, says: Tensor, length: int) -> Tensor:
    """(N, at most KEPT) the smallest different fingerprints of each sample, in order."""
    telling = says.unfold(0, length, 1).sum(1) >= BITS * length  # (R,)
    hashes, differing = _hashed(values, length)
    hashes[(differing < DISTINCT * length) | ~telling] = NONE
    first = hashes.topk(min(2 * KEPT, hashes.shape[1]), largest=False, sorted=True).values
    first[:, 1:][first[:, 1:] == first[:, :-1]] = NONE
    return first.sort(1).values[:, :KEPT].contiguous()


def _hashed(values: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Of every run (N, R): its hash, and about how many different values it has."""
    if values.is_floating_point():
        return _steps_hashed(values, length - 1)
    hashes = _mixed(values)
    seen = torch.ones_like(hashes) << (hashes & 63)
    ahead = 1
    for factor in FACTORS[: length.bit_length() - 1]:
        hashes = hashes[:, :-ahead] * factor + hashes[:, ahead:]
        seen = seen[:, :-ahead] | seen[:, ahead:]
        ahead *= 2
    return _mixed(hashes), _ones(seen)


def _steps_hashed(values: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The same of runs of so many steps between values, as parts of the largest step."""
    steps = values.diff(dim=1)
    largest = steps.abs().unfold(1, length, 1).amax(2)  # (N, R)
    largest = largest.clamp_min(torch.finfo(steps.dtype).tiny)
    runs = largest.shape[1]
    hashes = torch.zeros_like(largest, dtype=torch.int64)
    seen = torch.zeros_like(hashes)
    for place, factor in enumerate(FACTORS[:length]):
        part = (steps[:, place : place + runs] / largest * STEPS).nan_to_num().round().long()
        hashes += part * factor
        seen |= torch.ones_like(part) << (part * FACTORS[-1] >> 58 & 63)
    return _mixed(hashes), _ones(seen)


def _mixed(hashes: Tensor) -> Tensor:
    """The finaliser of splitmix64, whose shifts fill with zeros; never NONE."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        hashes = (hashes ^ (hashes >> shift & (1 << 64 - shift) - 1)) * factor
    return hashes.clamp_max(NONE - 1)


def _ones(words: Tensor) -> Tensor:
    """How many bits of each are set."""
    words = words - (words >> 1 & 0x5555555555555555)
    words = (words & 0x3333333333333333) + (words >> 2 & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return words * 0x0101010101010101 >> 56


def search(kept: Tensor, *, runs: int, share: float) -> Tensor:
    """Group the samples that share enough rare fingerprints.

    Args:
        kept: (N, S) int64 fingerprints in ascending order, NONE for those that are missing.
        runs: of a sample; as many windows may have a stretch of a recording in common.
        share: of what two samples kept that must be the same and rare.

    Returns:
        (N,) int64 the number of the connected part each sample is in, from 0; -1 for none.
    """
    count = len(kept)
    hashes, samples = kept.flatten().sort(stable=True)
    samples = samples.div_(max(kept.shape[1], 1), rounding_mode="floor").int()
    equal = hashes[1:] == hashes[:-1]
    shared = torch.zeros(len(hashes), dtype=torch.bool)
    shared[1:] |= equal
    shared[:-1] |= equal
    shared &= hashes != NONE
    hashes, samples = hashes[shared], samples[shared]
    _, numbers, sizes = hashes.unique_consecutive(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    del hashes, shared, equal  # the largest
    numbers = numbers.int()
    often = sizes.int()[numbers]
    edges = []
    for limit, needed in ((RARE, share), (runs, LARGE)):
        chosen = often <= min(limit, max(count // OF_ALL, 2))
        edges.append(_edges(numbers[chosen], samples[chosen], kept, needed))
    return components(count, torch.cat(edges, 1))


def _edges(numbers: Tensor, samples: Tensor, kept: Tensor, share: float) -> Tensor:
    """(2, E) pairs of samples that share enough of these fingerprints, numbered in order."""
    count, found = len(kept), [torch.empty(2, 0, dtype=torch.int64)]
    steps = -(-len(numbers) * NEXT // PAIRS)
    for part in range(steps):
        first, last = count * part // steps, count * (part + 1) // steps
        codes = []
        for ahead in range(1, NEXT + 1):
            left, right = samples[:-ahead], samples[ahead:]
            chosen = (numbers[:-ahead] == numbers[ahead:]) & (left >= first) & (left < last)
            codes.append(left[chosen].long() * count + right[chosen])
        pairs, times = torch.cat(codes).unique(return_counts=True)  # type: ignore[no-untyped-call]
        often = times >= AT_LEAST
        pairs, times = pairs[often], times[often]
        for rows in torch.arange(len(pairs)).split(PAIRS // KEPT):  # type: ignore[no-untyped-call]  # torch
            ends = torch.stack([pairs[rows] // count, pairs[rows] % count])
            found.append(ends[:, times[rows] >= share * _comparable(kept, ends)])
    return torch.cat(found, 1)


def _comparable(kept: Tensor, ends: Tensor) -> Tensor:
    """(E,) how many fingerprints two samples could share: those of the one that has fewer up to
    the largest that the other would have kept, as a long text keeps fewer of a passage."""
    reach = kept[:, -1]
    both = torch.minimum(reach[ends[0]], reach[ends[1]]).clamp_max(NONE - 1)
    of_each = torch.stack([(kept[end] <= both[:, None]).sum(1) for end in ends])
    return of_each.amin(0)


def united(one: Tensor, other: Tensor) -> Tensor:
    """Groups (N,) of samples that are together in either, as `found` gives them."""
    edges = []
    for numbers in (one, other):
        rows = (numbers >= 0).nonzero().squeeze(1)
        rows = rows[numbers[rows].argsort(stable=True)]
        same = numbers[rows[1:]] == numbers[rows[:-1]]
        edges.append(torch.stack([rows[:-1][same], rows[1:][same]]))
    return components(len(one), torch.cat(edges, 1))
