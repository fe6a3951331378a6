"""What is special about removing whole classes: which they are, their answers and their rows.

Such a run is configured in `config.default_config`, and `audit.verdict` tests that a removed class
is no longer known; both take `removing`. Shapes: N samples, C classes.
"""

import torch
from torch import Tensor, nn

from worker.unlearning.network import Network

CEILING = 0.7
"""A step overshoots the ceiling, by about half of it: so the losses end near those of networks that
were retrained without the class."""


def lost_classes(labels: Tensor, class_counts: Tensor, *, removing: bool) -> Tensor:
    """(C,) bool: the classes that the model should no longer know.

    Args:
        labels: (N,) labels of the forget set.
        class_counts: (C,) how many retain samples each class has.
        removing: the objective is to remove the classes of the forget set. Otherwise a class is
            removed only if no retain sample has it.
    """
    lost = class_counts.cpu() == 0
    if removing:
        lost[labels.cpu()] = True
    return lost


def without_classes(probabilities: Tensor, lost: Tensor) -> Tensor:
    """Probabilities (N, C) with none for the removed classes (C,); uniform if nothing is left."""
    kept = probabilities.float().masked_fill(lost, 0).clamp_min(0) + 1e-7 * ~lost
    return kept / kept.sum(1, keepdim=True)


def ceiling_of(logits: Tensor) -> float:
    """The loss, in nats, that is high enough for a removed class: a share of the loss of the class
    that each unseen sample (N, C) is least likely to have in the original, on average.

    Networks that never learned a class give it a mean loss of 1.0 to 1.4 times the latter. A forget
    set that is pushed further is no better forgotten, but the head shows what was removed, and the
    push has no end: the unseen samples that it is held against share the head and follow. Our
    reconstruction.
    """
    return -CEILING * logits.double().log_softmax(1).amin(1).mean().item()


@torch.no_grad()
def silence(network: Network, lost: Tensor) -> None:
    """Make a linear head give all samples the same logits for removed classes.

    Distillation alone lowers their logits but keeps the samples' order in them.
    """
    head = network.model.get_submodule(network.head)
    if isinstance(head, nn.Linear) and head.out_features == len(lost):
        head.weight[lost.to(network.device)] = 0.0
