"""Synthetic outputs of a model, where every figure is known."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from worker.unlearning.evaluation import Observed, Outputs

CLASSES, WIDTH = 4, 6
COUNTS = torch.full((CLASSES,), 100)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def seen(count, generator, *, memorised=0.0, labels=None, shrink=1.0):
    """Outputs of a model: features near the class mean, and nearer when it is memorised."""
    labels = torch.arange(count) % CLASSES if labels is None else labels
    centres = 2.5 * F.one_hot(labels, WIDTH)
    noise = torch.randn(len(labels), WIDTH, generator=generator)
    features = shrink * (centres * (1 + memorised) + noise * (1 - memorised))
    return Outputs(features, features[:, :CLASSES], labels)


def observed(*, forget=60, holdout=200, memorised=0.0, seed=0, shrink=1.0, labels=None):
    generator = seeded(seed)
    return Observed(
        forget=seen(forget, generator, memorised=memorised, labels=labels, shrink=shrink),
        retain=seen(200, generator),
        holdout=seen(holdout, generator),
        test=seen(300, generator),
    )


def constant(outputs):
    """One answer to everything."""
    return replace(
        outputs,
        features=torch.ones_like(outputs.features),
        logits=torch.zeros_like(outputs.logits),
    )


def by_name(family):
    return {test.name: test for test in family.tests}
