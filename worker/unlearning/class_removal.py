"""What is special about removing whole classes: which they are, their answers and their rows.

Such a run is configured in `config.default_config`, and `audit.verdict` tests that a removed class
is no longer known; both take `removing`. Shapes: N samples, C classes.
"""

import torch
from torch import Tensor, nn

from worker.unlearning.network import Network


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


def least_likely_loss(logits: Tensor) -> float:
    """The loss, in nats, of the class that each unseen sample (N, C) is least likely to have, on
    average.

    About what a network that never learned a class gives to it: in networks retrained without one,
    its mean loss was 1.0 to 1.4 times this figure of the original. A forget set that is pushed
    beyond it is no better forgotten, but leaves a head that shows what was removed, and the push
    has no end: the class's unseen samples, which it is held against, share the head and follow.
    """
    return -logits.double().log_softmax(1).amin(1).mean().item()


@torch.no_grad()
def silence(network: Network, lost: Tensor) -> None:
    """Make a linear head give all samples the same logits for removed classes.

    Distillation alone lowers their logits but keeps the samples' order in them.
    """
    head = network.model.get_submodule(network.head)
    if isinstance(head, nn.Linear) and head.out_features == len(lost):
        head.weight[lost.to(network.device)] = 0.0
