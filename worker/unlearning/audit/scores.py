"""Scores of single samples in which training shows, with what class and difficulty explain of them.

Shapes: N samples, C classes, S scores, Q covariates, b permutations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.unlearning.alignment import eigenspace, standing
from worker.unlearning.audit.pair import Pair
from worker.unlearning.evaluation import Outputs, default_k, retain_moments, retain_weights
from worker.unlearning.probes import Probe
from worker.unlearning.targets import margins

PER_SAMPLE = "membership_per_sample"
RANKED = ("membership_loss", "membership_margin", PER_SAMPLE)
"""Compared by rank: their value is an AUC, the chance that a forget sample looks more like a
training sample than a hold-out sample of its class does. With references it is 0.5 plus a
difference of ranks extrapolated to equal difficulty, and may leave [0, 1]."""


FREE = ("alignment", "feature_norm")
"""The scores that do not depend on the label: the figures of `standing`."""


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) of the probability p of the label: (N,) float64, finite for finite logits.

    Args:
        logits: (N, C), C >= 2. labels: (N,) int64.

    Source:
        Carlini et al., 2022, arXiv:2112.03570, section VI.
    """
    logits = logits.double()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return own - logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)


@dataclass(frozen=True, slots=True)
class Scores:
    """Per-sample scores, ready to be compared under any permutation."""

    names: tuple[str, ...]
    weights: tuple[Tensor, Tensor]
    """(N,) for scores that depend on the label, and for the others; see `contrast`."""

    scores: tuple[Tensor, Tensor]
    """The scores of the same two groups: (N, S), (N, S')."""

    unadjusted: Tensor
    """(S + S',) how much higher forget samples score without adjusting for difficulty."""

    read_as: Tensor
    """(N,) the class that the probe predicts from each feature."""

    def differences(self, places: Tensor) -> Tensor:
        """(b, S + S') how much higher forget samples score, for permuted places (b, N)."""
        pairs = zip(self.weights, self.scores, strict=True)
        return torch.cat([weights.take(places) @ scores for weights, scores in pairs], 1)


def sample_scores(
    retain: Outputs,
    pair: Pair,
    class_counts: Tensor,
    k: int | None,
    covariates: Tensor | None = None,
) -> Scores:
    """The scores of all samples; `covariates` (N, Q) take the place of those of the pair."""
    outputs, labels = pair.outputs, pair.outputs.labels
    space = eigenspace(
        retain_moments(retain, class_counts), k=default_k(class_counts) if k is None else k
    )
    weights = retain_weights(retain.labels, class_counts)
    probe = Probe.fit(retain.features, retain.labels, weights, outputs.logits.shape[1])
    read_as = probe.predict(outputs.features)
    confidence = scaled_confidence(outputs.logits, labels)  # ranked like the loss, upside down
    bound = {
        "membership_loss": confidence,
        "membership_margin": margins(outputs.logits.double(), labels),
        "accuracy": outputs.logits.argmax(1) == labels,
        "probe_accuracy": read_as == labels,
    }
    if pair.out_mean is not None and pair.out_std is not None:
        bound[PER_SAMPLE] = (confidence - pair.out_mean) / pair.out_std
    free = dict(zip(FREE, standing(outputs.features.double(), space).unbind(1), strict=True))
    difficulty, sureness = covariates_of(pair) if covariates is None else (covariates, covariates)
    nothing = no_covariates(pair)
    plain = bound | {name: confidence for name in bound if name == PER_SAMPLE} | free
    return Scores(
        names=(*bound, *free),
        weights=(pair.weights(difficulty), pair.weights(sureness)),
        scores=(residual_scores(pair, bound, difficulty), residual_scores(pair, free, sureness)),
        unadjusted=pair.weights(nothing) @ residual_scores(pair, plain, nothing),
        read_as=read_as,
    )


def residual_scores(pair: Pair, scores: dict[str, Tensor], covariates: Tensor) -> Tensor:
    """(N, S) the part of each score (N,) that class and covariates do not explain."""
    left = [pair.residuals(s, covariates, ranked=name in RANKED) for name, s in scores.items()]
    return torch.stack(left, 1)


def covariates_of(pair: Pair) -> tuple[Tensor, Tensor]:
    """The covariates of label-dependent scores, and those of the others: (N, Q) each.

    Nothing without references. With them, the reference models' confidence in the label, and the
    model's confidence in its own answer.
    """
    if pair.out_mean is None:
        return no_covariates(pair), no_covariates(pair)
    logits = pair.outputs.logits
    return _bent(pair.out_mean), _bent(scaled_confidence(logits, logits.argmax(1)))


def no_covariates(pair: Pair) -> Tensor:
    """(N, 0): no covariates."""
    return torch.zeros(len(pair.mine), 0, dtype=torch.float64)


def _bent(confidence: Tensor) -> Tensor:
    """(N, 3): scaled confidence, where it is positive, and as a probability."""
    return torch.stack([confidence, confidence.clamp_min(0), confidence.sigmoid()], 1)
