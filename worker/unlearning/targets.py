"""What the changed model should answer on the forget set, taken from the frozen original.

Shapes: N forget samples, H hold-out samples, C classes. Our reconstruction of the
self-distillation of Seo, Kim, Han, WACV 2025 (arXiv:2407.17710), calibrated on a hold-out.
"""

import torch
from torch import Tensor

from worker.unlearning.samples import classes

ENOUGH = 10
"""With this many samples of a class on both sides, its own quantiles are used."""


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the logit of the true class is above the best other one.

    Args:
        logits: (N, C). labels: (N,) int64.

    Returns:
        (N,) in logits; negative where the answer is wrong.
    """
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return own.squeeze(1) - others


def places(logits: Tensor, labels: Tensor, among: Tensor, among_labels: Tensor) -> Tensor:
    """The share of others that have a smaller margin than each sample.

    The others are those of its class when there are `ENOUGH`, else all.

    Args:
        logits: (N, C), among: (H, C), H > 0.
        labels: (N,), among_labels: (H,), int64.

    Returns:
        (N,) in (0, 1): at least half a place from either end.
    """
    return among_alike(margins(logits, labels), labels, margins(among, among_labels), among_labels)


def among_alike(mine: Tensor, labels: Tensor, theirs: Tensor, among_labels: Tensor) -> Tensor:
    """As `places`, for values (N,) of any kind among others' (H,)."""
    found = _share_below(mine, theirs)
    for label in classes(labels):
        alike = among_labels == label
        if alike.sum() >= ENOUGH:
            found[labels == label] = _share_below(mine[labels == label], theirs[alike])
    return found


def calibrated(
    logits: Tensor,
    labels: Tensor,
    holdout_logits: Tensor,
    holdout_labels: Tensor,
    ease: Tensor,
) -> Tensor:
    """The original's answer, as confident in the true class as on samples it never saw.

    A sample keeps its rank among the forget samples' margins, and takes the hold-out margin at the
    place (`ease`) with that rank: within its class when both sides have `ENOUGH` samples of it,
    else among all the rest. Only the logit of the true class moves, and only down: nothing is
    taught again.

    Args:
        logits: (N, C), holdout_logits: (H, C), both of the original.
        labels: (N,), holdout_labels: (H,), int64.
        ease: (N,) in (0, 1), the samples' places among unseen ones; see `places`.

    Returns:
        (N, C) probabilities.
    """
    current, unseen = margins(logits, labels), margins(holdout_logits, holdout_labels)
    wanted = current.clone()
    rest = torch.ones_like(labels, dtype=torch.bool)
    for label in classes(labels):
        mine, theirs = labels == label, holdout_labels == label
        if min(int(mine.sum()), int(theirs.sum())) >= ENOUGH:
            wanted[mine] = _placed(current[mine], unseen[theirs], ease[mine])
            rest &= ~mine
    wanted[rest] = _placed(current[rest], unseen, ease[rest])
    wanted = torch.minimum(wanted, current)
    return logits.scatter_add(1, labels[:, None], (wanted - current)[:, None]).softmax(1)


def sharpened(probabilities: Tensor, confidence: float) -> Tensor:
    """Probabilities (N, C) at the temperature, at most 1, at which they are as sure as one model.

    A mean of several models is less confident than each of them.

    Args:
        confidence: the wanted mean of the largest probabilities; if they already exceed it or
            cannot reach it, the nearest possible value.
    """
    logits = probabilities.float().clamp_min(torch.finfo(torch.float32).tiny).log()
    low, high = 0.05, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        sure = (logits / middle).softmax(1).amax(1).mean() >= confidence
        low, high = (middle, high) if sure else (low, middle)
    return (logits / high).softmax(1)


def shifted(probabilities: Tensor, labels: Tensor, shift: Tensor) -> Tensor:
    """Probabilities (N, C) with the true class's logit lowered by `shift` nats."""
    own = torch.zeros_like(probabilities).scatter_(1, labels[:, None], 1.0)
    logits = probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
    return (logits - shift.to(logits) * own).softmax(1)


def _placed(values: Tensor, reference: Tensor, ease: Tensor) -> Tensor:
    """Each value (N,) replaced by the reference value (H,) of the same rank."""
    places = ease.sort().values[values.argsort().argsort()]
    chosen = (places * len(reference)).long().clamp_max(len(reference) - 1)
    return reference.sort().values[chosen]


def _share_below(values: Tensor, reference: Tensor) -> Tensor:
    """(N,) the share of reference values (H,) below each value, in (0, 1); ties count half."""
    ordered, count = reference.sort().values, len(reference)
    ends = torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)
    return (ends / (2 * count)).clamp(0.5 / count, 1 - 0.5 / count)
