"""How a model would answer samples it had not seen: read from a layer that did not memorise.

Late layers memorise single samples, early ones hardly do: a linear reader of an early layer, fitted
to retain samples, is right on forget samples no more often than on unseen ones. Shapes: F forget
samples, N samples, d dimensions of what enters a layer, C classes.

Source:
    Linear readers of inner layers: Alain and Bengio, 2016, arXiv:1610.01644. Depth at which a
    sample is classified as a measure of its difficulty: Baldock, Maennel, Neyshabur, 2021,
    arXiv:2106.09647. Taking the targets of unlearning from there is our reconstruction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from worker.unlearning import targets
from worker.unlearning.alignment import matching_weights
from worker.unlearning.config import Config
from worker.unlearning.evaluation import retain_weights
from worker.unlearning.network import Network
from worker.unlearning.probes import Probe
from worker.unlearning.samples import Samples, class_balanced, classes

READ, UNSEEN = 2000, 600
"""The most retain samples that readers are fitted to, and the most unseen samples they are tried
on; more of the latter if a class would have too few to rank the difficulty of its samples."""

RIDGE = 0.25
"""Penalty of the readers: they have up to 512 dimensions and a few thousand samples."""

MEMORISED = 2.0
"""Standard errors by which a reader may do better on trained samples than on unseen ones before its
layer counts as memorising."""

TEMPERATURES = [10 ** (n / 20) for n in range(31)]
"""Candidate factors for the scores of a reader, which are about 0 or 1."""

SHARES = [n / 20 for n in range(21)]
"""Candidate shares of the reader's answers in the mix."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """What the model might answer to samples, had it never seen them."""

    answers: Tensor
    """(F, C) probabilities."""

    ease: Tensor
    """(F,) the share of unseen samples of its class that are harder than a sample; in (0, 1)."""


def ease_told(
    scores: Tensor, seen: Tensor, labels: Tensor, unseen: Tensor, unseen_labels: Tensor
) -> Tensor:
    """How easy samples are to networks that have not seen them: see `Unseen.ease`; (F,).

    The mean over these networks of the share of unseen samples that each is less sure of. So
    samples that such networks find easier or harder than most, as those of a person may all be, are
    expected to be so.

    Args:
        scores: (K, F), how sure each network is; seen: (K, F) bool, whether it learned from the
            sample; at least one has not.
        labels: (F,), unseen_labels: (H,), int64.
        unseen: (K, H), as `scores`, of samples that no network has seen.
    """
    pairs = zip(scores.contiguous(), unseen.contiguous(), strict=True)
    each = [targets.among_alike(mine, labels, theirs, unseen_labels) for mine, theirs in pairs]
    return torch.stack(each).masked_fill(seen, torch.nan).nanmean(0).float()


def shrunk(ease: Tensor) -> Tensor:
    """Places (F,), moved together so that their mean is nearer to that of a random draw.

    One reader's places are half noise: over random sets, what retrained networks find deviates from
    1/2 by half as much as a reader says. So half of a deviation is taken back, up to one standard
    error of a random draw: a set that is far from one is unusual, and stays so. Our reconstruction.
    """
    away = ease.mean() - 0.5
    most = torch.tensor(1 / 12 / len(ease)).sqrt()
    back = (away / 2).clamp(-most, most)
    least = 0.5 / max(len(ease), 100)
    return (ease - back).clamp(least, 1 - least)


def as_if_unseen(
    network: Network,
    *,
    forget: Samples,
    retain: Samples,
    holdout: Samples,
    class_counts: Tensor,
    config: Config,
    generator: torch.Generator,
    ease: Tensor | None = None,
) -> Unseen:
    """What the model might answer to forget samples, had it never seen them.

    A reader of each layer is fitted to half of a class-balanced draw of retain samples. If the
    layer memorised, the reader is right on the other half more often than on unseen samples. Of the
    layers that show no such gap, the one whose reader does best on unseen samples gets a new
    reader, fitted to the whole draw, at the temperature that predicts unseen samples best. Its
    answers are mixed with the model's own, calibrated, in the proportion in which reader and model
    together predict unseen samples best (`Config.early_share`). If every layer memorised, only the
    model's own answers are used.

    A sample's difficulty, unless it is known, is its place, by the reader's confidence, among
    unseen samples of its class, less what the layer remembers: the mean by which retain samples
    that a reader was not fitted to are above 1/2.

    Args:
        class_counts: (C,) number of retain samples per class.
        ease: (F,) by networks that have not seen the samples, where there are any: `ease_told`.
    """
    staying = class_counts[holdout.labels] > 0
    unseen = holdout.select(staying) if staying.any() else holdout
    count = max(UNSEEN, targets.ENOUGH * len(classes(unseen.labels)))
    unseen = unseen.select(class_balanced(unseen.labels, count, generator))
    seen = retain.select(class_balanced(retain.labels, READ, generator))
    weights = retain_weights(seen.labels, class_counts)
    kept, _ = network.entering(seen, network.layers, config.batch_size)
    theirs, logits = network.entering(unseen, network.layers, config.batch_size)
    fitted = torch.arange(len(seen)) % 2 == 0
    layer = _best(kept, theirs, seen.labels, unseen.labels, weights, fitted)
    mine, own = network.entering(forget, [layer] if layer else [], config.batch_size)
    calibrate = partial(targets.calibrated, own, forget.labels, logits, unseen.labels)
    if layer is None:
        if ease is None:
            ease = targets.places(own, forget.labels, own, forget.labels)
        return Unseen(calibrate(ease), ease)
    reader = Probe.fit(kept[layer], seen.labels, weights, len(class_counts), RIDGE)
    told, tried = (reader.scores(each[layer]).float() for each in (mine, theirs))
    temperature = _likeliest([(t, (t * tried).softmax(1)) for t in TEMPERATURES], unseen.labels)
    share = config.early_share
    if share is None:
        read, models = (temperature * tried).softmax(1), logits.softmax(1)
        share = _likeliest([(s, s * read + (1 - s) * models) for s in SHARES], unseen.labels)
    if ease is None:
        half = Probe.fit(
            kept[layer][fitted], seen.labels[fitted], weights[fitted], len(class_counts), RIDGE
        )
        others, beside = (
            half.scores(each).float() for each in (kept[layer][~fitted], theirs[layer])
        )
        known = targets.places(others, seen.labels[~fitted], beside, unseen.labels).mean() - 0.5
        ease = targets.places(told, forget.labels, tried, unseen.labels) - known.clamp_min(0)
        ease = shrunk(ease)
    answers = share * (temperature * told).softmax(1) + (1 - share) * calibrate(ease)
    return Unseen(answers, ease)


def _likeliest(offered: Sequence[tuple[float, Tensor]], labels: Tensor) -> float:
    """The number paired with the probabilities (N, C) that predict the labels best."""

    def log_likelihood(offer: tuple[float, Tensor]) -> float:
        own = offer[1].gather(1, labels[:, None])
        return own.clamp_min(torch.finfo(own.dtype).tiny).log().mean().item()

    return max(offered, key=log_likelihood)[0]


def _best(
    seen: dict[str, Tensor],
    unseen: dict[str, Tensor],
    seen_labels: Tensor,
    unseen_labels: Tensor,
    weights: Tensor,
    fitted: Tensor,
) -> str | None:
    """The layer with the best reader among those that do not reveal the training samples."""
    if len(seen_labels) < 2:
        return None
    alike = matching_weights(unseen_labels, seen_labels[~fitted]).float()
    found: dict[str, float] = {}
    for name, features in seen.items():
        reader = Probe.fit(
            features[fitted],
            seen_labels[fitted],
            weights[fitted],
            int(seen_labels.max()) + 1,
            RIDGE,
        )
        known = (reader.predict(features[~fitted]) == seen_labels[~fitted]).float().mean().item()
        told = (alike @ (reader.predict(unseen[name]) == unseen_labels).float()).item()
        error = (told * (1 - told) * (1 / len(unseen_labels) + 1 / (~fitted).sum().item())) ** 0.5
        if known - told <= MEMORISED * error:
            found[name] = told
    return max(found, key=lambda name: found[name], default=None)
