"""What the changed model should answer on the forget set, taken from the frozen original.

Shapes: N forget samples, H hold-out samples, C classes. Our reconstruction of the
self-distillation of Seo, Kim, Han, WACV 2025 (arXiv:2407.17710), calibrated on a hold-out.
"""

import torch
from torch import Tensor

from worker.unlearning.samples import classes

ENOUGH = 10
"""Samples of a class, on both sides, from which its own quantiles are used."""


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the logit of the true class stands above the best other one.

    Args:
        logits: (N, C). labels: (N,) int64.

    Returns:
        (N,) in logits; negative where the answer is wrong.
    """
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return own.squeeze(1) - others


def masked(logits: Tensor, labels: Tensor, lost: Tensor) -> Tensor:
    """The original's answer when neither the true class nor any lost class may be given.

    Args:
        logits: (N, C) of the original. labels: (N,) int64.
        lost: (C,) bool, classes the model should no longer know; not all of them.

    Returns:
        (N, C) probabilities. Where the true class alone is left, it may be given.
    """
    allowed = logits.masked_fill(lost, -torch.inf)
    others = allowed.scatter(1, labels[:, None], -torch.inf)
    nothing_left = others.isneginf().all(1, keepdim=True)  # (N, 1)
    return torch.where(nothing_left, allowed, others).softmax(1)


def calibrated(
    logits: Tensor, labels: Tensor, holdout_logits: Tensor, holdout_labels: Tensor
) -> Tensor:
    """The original's answer, as sure of the true class as it is on samples it never saw.

    A sample keeps its rank among the forget samples' margins and takes the hold-out margin at
    the same quantile, within its class when both sides have `ENOUGH` samples of it, else among
    all the rest. Only the logit of the true class moves, and only down: nothing is taught anew.

    Args:
        logits: (N, C), holdout_logits: (H, C), both of the original.
        labels: (N,), holdout_labels: (H,), int64.

    Returns:
        (N, C) probabilities.
    """
    current, unseen = margins(logits, labels), margins(holdout_logits, holdout_labels)
    wanted = current.clone()
    rest = torch.ones_like(labels, dtype=torch.bool)
    for label in classes(labels):
        mine, theirs = labels == label, holdout_labels == label
        if min(int(mine.sum()), int(theirs.sum())) >= ENOUGH:
            wanted[mine] = _quantile_matched(current[mine], unseen[theirs])
            rest &= ~mine
    wanted[rest] = _quantile_matched(current[rest], unseen)
    wanted = torch.minimum(wanted, current)
    return logits.scatter_add(1, labels[:, None], (wanted - current)[:, None]).softmax(1)


def masked_shares(holdout_logits: Tensor, holdout_labels: Tensor) -> Tensor:
    """How much of the masked answer each class gets: the share of unseen samples it gets wrong.

    That on the hold-out of the class, or on all of it when there are not `ENOUGH`. A class that
    every unseen sample is answered right is hardly masked.

    Args:
        holdout_logits: (H, C) of the original. holdout_labels: (H,) int64.

    Returns:
        (C,) in [0, 1].
    """
    wrong = (holdout_logits.argmax(1) != holdout_labels).float()
    shares = wrong.mean().repeat(holdout_logits.shape[1])
    for label in classes(holdout_labels):
        theirs = holdout_labels == label
        if theirs.sum() >= ENOUGH:
            shares[label] = wrong[theirs].mean()
    return shares


def without_classes(probabilities: Tensor, lost: Tensor) -> Tensor:
    """Probabilities (N, C) with nothing left for the lost classes (C,); uniform if nothing is."""
    kept = probabilities.float().masked_fill(lost, 0).clamp_min(0) + 1e-7 * ~lost
    return kept / kept.sum(1, keepdim=True)


def sharpened(probabilities: Tensor, confidence: float) -> Tensor:
    """Probabilities (N, C) at the temperature, at most 1, that makes them as sure as one model is.

    A mean of several models is less sure than each of them.

    Args:
        confidence: what the mean of the largest probabilities shall be; if they are as sure
            already, or cannot become so, the nearest that can be had.
    """
    logits = probabilities.float().clamp_min(torch.finfo(torch.float32).tiny).log()
    low, high = 0.05, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        sure = (logits / middle).softmax(1).amax(1).mean() >= confidence
        low, high = (middle, high) if sure else (low, middle)
    return (logits / high).softmax(1)


def spread(probabilities: Tensor, deviation: float, seed: int) -> Tensor:
    """Probabilities (N, C) as one model might give them, from the mean of several.

    A mean varies less than the models it is of, and answers that vary too little can be told from
    those on unseen samples. So normal noise is added to each log-probability.

    Args:
        deviation: of the noise, in nats.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = deviation * torch.randn(probabilities.shape, generator=generator)
    tiny = torch.finfo(torch.float32).tiny
    return (probabilities.float().clamp_min(tiny).log() + noise).softmax(1)


def shifted(probabilities: Tensor, labels: Tensor, shift: float) -> Tensor:
    """Probabilities (N, C) with the true class's logit lowered by `shift` nats."""
    own = torch.zeros_like(probabilities).scatter_(1, labels[:, None], shift)
    return (probabilities.clamp_min(torch.finfo(torch.float32).tiny).log() - own).softmax(1)


def _quantile_matched(values: Tensor, reference: Tensor) -> Tensor:
    """Each value (N,) replaced by the reference value (H,) at the same quantile."""
    ranks = values.argsort().argsort().to(values)  # (N,) from 0
    ordered = reference.sort().values
    places = (ranks + 0.5) / max(len(values), 1) * len(ordered) - 0.5
    return ordered[places.round().long().clamp(0, len(ordered) - 1)]
