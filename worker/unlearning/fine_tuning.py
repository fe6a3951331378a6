"""A copy of a network, trained further on retain samples: does what was forgotten come back?

A network that never saw the forget samples learns nothing of them from others. One that only hides
them, with features that still tell them apart, finds them again as soon as it is trained.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from worker.unlearning.network import Network
from worker.unlearning.phases import MOMENTUM, require_finite, take_step
from worker.unlearning.samples import Samples, moved
from worker.unlearning.sgd import SGD


def fine_tuned(
    network: Network,
    retain: Samples,
    *,
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> Network:
    """A copy of the network after so many steps on retain samples; the network stays as it was.

    Cross-entropy with the true labels, in random order, cycling through all, by the optimizer of
    the recover phase at a constant rate. All parameters move.

    Args:
        on_step: called before each step.

    Raises:
        NotFinite: a loss or a weight became NaN or infinite.
    """
    tuned = network.copy()
    tuned.model.requires_grad_(True)
    tuned.train()
    optimizer = SGD(tuned.model.parameters(), lr, momentum=MOMENTUM)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), device=tuned.device)
    done = 0
    while done < steps:
        for inputs, labels in retain.batches(batch_size, generator):
            if done == steps:
                break
            on_step()
            _, logits = tuned(moved(inputs, tuned.device))
            loss = F.cross_entropy(logits, moved(labels, logits.device))
            take_step(tuned, optimizer, loss)
            total += loss.detach()
            done += 1
    require_finite(tuned, total, "fine-tuning")
    tuned.model.eval()
    return tuned
