"""Bad Teacher: a competent teacher on retain samples, an incompetent one on forget samples.

Source: Chundawat et al., "Can Bad Teaching Induce Forgetting?", AAAI 2023 (arXiv:2205.08096): the
original teaches 30 % of the retain set, a newly initialised model the forget set, both in the same
shuffled batches, by the divergence at temperature 1; Adam, rate 1e-4, one epoch in the authors'
notebook. Adapted: batches of 128. Both teachers are frozen, so their answers are computed once. The
loss is averaged over samples, not over samples and classes as in the authors' code; to Adam that
factor is the same.
"""

import torch
from torch import nn

from benchmarks.quality.methods.given import Given, defaults
from benchmarks.quality.methods.training import (
    BATCH_SIZE,
    Descent,
    divergence,
    finish,
    start,
    steps_in,
)
from worker.unlearning.samples import Samples, batch_indices


def unlearn(
    given: Given,
    *,
    lr: float = 1e-4,
    epochs: int = 1,
    retain_share: float = 0.3,
    temperature: float = 1.0,
) -> nn.Module:
    """Distil from both teachers at once."""
    network, generator = start(given)
    kept = round(retain_share * len(given.retain))
    retain = given.retain.select(torch.randperm(len(given.retain), generator=generator)[:kept])
    bad = given.original.around(given.fresh(given.seed).to(given.original.device))
    taught = Samples(
        torch.cat([given.forget.inputs, retain.inputs]),
        torch.cat([given.forget.labels, retain.labels]),
    )
    answers = torch.cat(
        [
            teacher.outputs(pupils, 4 * BATCH_SIZE)[1]
            for teacher, pupils in ((bad, given.forget), (given.original, retain))
        ]
    )  # (F + R, C)
    optimizer = torch.optim.Adam(network.model.parameters(), lr)
    descent = Descent(optimizer, epochs * steps_in(taught))
    for _ in range(epochs):
        for chosen in batch_indices(len(taught), BATCH_SIZE, generator):
            _, logits = network(taught.inputs[chosen])
            descent.step(divergence(logits, answers[chosen], temperature))
    return finish(network)


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"lr": 1e-3},
        {"lr": 1e-3, "retain_share": 1.0},
        {"lr": 1e-3, "epochs": 3},
        {"lr": 3e-3, "epochs": 3},
        {"lr": 1e-3, "retain_share": 1.0, "epochs": 4},
        {"lr": 3e-3, "retain_share": 1.0, "epochs": 4},
        {"lr": 1e-3, "retain_share": 0.5, "epochs": 5, "temperature": 2.0},
    )
]
