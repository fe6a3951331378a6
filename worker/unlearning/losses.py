"""Losses of the unlearning objective. Pure functions of tensors.

Shapes: N samples, d feature dimensions, C classes. Our reconstruction of the losses described by
Seo, Kim, Han, WACV 2025 (arXiv:2407.17710).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def standing_loss(standing: Tensor, aim: Tensor, spread: Tensor) -> Tensor:
    """Pull forget samples, on average, to the mean of unseen samples.

    Squared distance between the means, in units of the spread, summed over the figures and shrunk
    by N / (N + 10), because few samples say little about their mean. It uses means because single
    samples must keep their spread: DA is a property of a set. It squares because the mean of a
    batch is noisy, and the gradient of a square is right on average.

    Args:
        standing: (N, S) of forget samples, N > 0; see `alignment.standing`.
        aim: (S,). spread: (S,) positive.

    Returns:
        () non-negative, dimensionless.

    Source:
        Our reconstruction, arXiv:2407.17710, with a calibrated target instead of DA = 1.
    """
    away = (standing.mean(0) - aim) / spread
    return away.square().sum() * len(standing) / (len(standing) + 10)


def membership_loss(losses: Tensor, unseen: Tensor) -> Tensor:
    """The Wasserstein distance between the losses of forget samples and those of unseen ones.

    Mean distance between each loss and the unseen loss at the same quantile. At 0 the losses do not
    reveal which samples were trained on.

    Args:
        losses: (N,) of forget samples, in nats, N > 0; gradients flow into them only.
        unseen: (M,) of unseen samples, M > 0.

    Returns:
        () non-negative, in nats.

    Source:
        Our reconstruction.
    """
    ordered, places = unseen.detach().sort().values, torch.arange(len(losses), device=losses.device)
    nearest = ((places + 0.5) / len(losses) * len(unseen)).long().clamp_max(len(unseen) - 1)
    return (losses.sort().values - ordered[nearest]).abs().mean()


def distillation_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """KL(target || model), averaged over the batch.

    Args:
        logits: (N, C) of the model being changed.
        targets: (N, C) probabilities; no gradient flows into them.

    Returns:
        () non-negative, in nats; 0 for no samples.

    Source:
        Hinton et al., 2015, arXiv:1503.02531, at temperature 1.
    """
    total = F.kl_div(logits.log_softmax(1), targets.detach(), reduction="sum")
    return total / max(len(logits), 1)
