"""The forget and the hold-out samples of an audit, side by side.

Shapes: F forget samples, H hold-out samples, N of both.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.permutation import contrast, ranks, residuals
from worker.unlearning.evaluation import Observed, Outputs

AUDITED = 20_000
"""From a larger forget set or hold-out, this many samples are drawn at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceScores:
    """Scaled confidence of models that have not seen the samples; see `scaled_confidence`."""

    forget_mean: Tensor
    """(F,) mean over the reference models."""

    forget_std: Tensor
    """(F,) positive, standard deviation."""

    holdout_mean: Tensor
    """(H,) the same for hold-out samples."""

    holdout_std: Tensor
    """(H,) positive, the same for hold-out samples."""

    forget_scores: Tensor | None = None
    """(K, F) float64, scaled confidence of every one of K models on the forget samples, whether or
    not it has learned from them."""

    forget_seen: Tensor | None = None
    """(K, F) bool, whether it has learned from the sample."""

    holdout_scores: Tensor | None = None
    """(K, H) float64, the same as `forget_scores` for hold-out samples, which no model has seen."""

    def of(self, chosen: Tensor) -> "ReferenceScores":
        """The same with those forget samples only where `chosen` (F,) is true."""
        scores, seen = self.forget_scores, self.forget_seen
        return replace(
            self,
            forget_mean=self.forget_mean[chosen],
            forget_std=self.forget_std[chosen],
            forget_scores=None if scores is None else scores[:, chosen],
            forget_seen=None if seen is None else seen[:, chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The forget and the hold-out samples of the classes that both have, as one set."""

    outputs: Outputs
    mine: Tensor
    """(N,) bool, the forget samples."""

    out_mean: Tensor | None
    """(N,) from the reference models' scaled confidence; None without them."""

    out_std: Tensor | None
    reference_scores: Tensor | None
    """(K, N) scaled confidence of each reference model; None where it is not known."""

    reference_seen: Tensor | None
    """(K, N) bool, whether it has learned from the sample."""

    codes: Tensor
    """(N,) the groups of the samples; each its own, where none are given."""

    remarks: tuple[str, ...]

    @classmethod
    def of(
        cls,
        observed: Observed,
        references: ReferenceScores | None,
        generator: torch.Generator,
        groups: Groups | None = None,
    ) -> "Pair":
        forget, holdout = observed.forget, observed.holdout
        comparable = torch.isin(forget.labels, holdout.labels)
        drawn = [
            _drawn(comparable, generator),
            _drawn(torch.isin(holdout.labels, forget.labels), generator),
        ]
        labels = [forget.labels[drawn[0]], holdout.labels[drawn[1]]]
        first = drawn[0][torch.isin(labels[0], labels[1])]  # a draw may lose a rare class
        second = drawn[1][torch.isin(labels[1], labels[0])]
        remarks = []
        if lacking := int((~comparable).sum()):
            remarks.append(f"{lacking} forget samples are of classes that the hold-out lacks")
        if len(first) < comparable.sum():
            remarks.append(f"{len(first)} of {int(comparable.sum())} forget samples were drawn")
        mean = std = None
        if references is not None:
            mean = torch.cat([references.forget_mean[first], references.holdout_mean[second]])
            std = torch.cat([references.forget_std[first], references.holdout_std[second]])
        scores, seen = _of_each_model(references, first, second)
        codes = torch.arange(len(first) + len(second))
        if groups is not None:
            codes = torch.cat([groups.forget[first], groups.holdout[second]])
        return cls(
            outputs=forget.select(first).joined(holdout.select(second)),
            mine=torch.arange(len(first) + len(second)) < len(first),
            out_mean=mean if mean is None else mean.double(),
            out_std=std if std is None else std.double(),
            reference_scores=scores,
            reference_seen=seen,
            codes=codes,
            remarks=tuple(remarks),
        )

    @property
    def forget_samples(self) -> int:
        return int(self.mine.sum())

    @property
    def holdout_samples(self) -> int:
        return int((~self.mine).sum())

    def weights(self, covariates: Tensor) -> Tensor:
        """See `contrast`."""
        return contrast(self.mine, self.outputs.labels, covariates)

    def residuals(self, score: Tensor, covariates: Tensor, *, ranked: bool) -> Tensor:
        """The part of a score (N,), or of its rank, that class and covariates do not explain."""
        labels = self.outputs.labels
        left = residuals(score.double(), labels, covariates)
        return residuals(ranks(left, labels), labels, covariates) if ranked else left


def _of_each_model(
    references: ReferenceScores | None, first: Tensor, second: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """What each reference model says of these samples, and whether it has seen them: (K, N)."""
    if references is None:
        return None, None
    mine, seen = references.forget_scores, references.forget_seen
    theirs = references.holdout_scores
    if mine is None or seen is None or theirs is None:
        return None, None
    scores = torch.cat([mine[:, first], theirs[:, second]], 1).double()
    never = torch.zeros(len(theirs), len(second), dtype=torch.bool)
    return scores, torch.cat([seen[:, first], never], 1)


def _drawn(comparable: Tensor, generator: torch.Generator) -> Tensor:
    """Indices where the mask is true, in order; a random draw of `AUDITED` if there are more."""
    places = comparable.nonzero().squeeze(1)
    if len(places) > AUDITED:
        chosen = torch.randperm(len(places), generator=generator)[:AUDITED]
        places = places[chosen.sort().values]
    return places
