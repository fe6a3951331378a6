"""What differs where whole classes leave: which they are, what is said of them, and their rows.

How such a run is configured is in `config.default_config`, and the test that a removed class is no
longer known in `audit.verdict`; both ask for `removing`. Shapes: N samples, C classes.
"""

import torch
from torch import Tensor, nn

from worker.unlearning.network import Network


def lost_classes(labels: Tensor, class_counts: Tensor, *, removing: bool) -> Tensor:
    """(C,) bool: the classes that the model is no longer to know.

    Args:
        labels: (N,) of the forget set.
        class_counts: (C,) how many retain samples each class has.
        removing: the objective is to remove the classes of the forget set. Without it a class is
            lost only where no retain sample has it.
    """
    lost = class_counts.cpu() == 0
    if removing:
        lost[labels.cpu()] = True
    return lost


def without_classes(probabilities: Tensor, lost: Tensor) -> Tensor:
    """Probabilities (N, C) with nothing left for the lost classes (C,); uniform if nothing is."""
    kept = probabilities.float().masked_fill(lost, 0).clamp_min(0) + 1e-7 * ~lost
    return kept / kept.sum(1, keepdim=True)


@torch.no_grad()
def silence(network: Network, lost: Tensor) -> None:
    """Let a linear head say the same of every sample about lost classes, as one never taught them.

    Distillation alone lowers their logits, but leaves the order of the samples in them.
    """
    head = network.model.get_submodule(network.head)
    if isinstance(head, nn.Linear) and head.out_features == len(lost):
        head.weight[lost.to(network.device)] = 0.0
