"""What the service would see of a network, and its verdict."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.persons.prepare import Fold
from domain.states import Verdict
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.verdict import (
    Audit,
    Limits,
    ReferenceScores,
    audit,
    scaled_confidence,
)
from worker.unlearning.config import default_config
from worker.unlearning.evaluation import Observed, Outputs, accuracy, retain_moments
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples, skew
from worker.unlearning.unlearn import unlearn
from worker.unlearning.unseen_answers import ease_told

LEVELS = (0, 1, 2)
LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a fold: what to forget, and the samples that a job would work with."""

    fold: Fold
    forgotten: Tensor
    """(N,) bool, the samples."""

    def samples(self, mask: Tensor) -> Samples:
        return self.fold.data.samples.select(mask)

    @property
    def masks(self) -> dict[str, Tensor]:
        """(N,) bool: the samples of each part."""
        train, calibration, audited, test = (self.fold.of(part) for part in self.fold.parts)
        return {
            "forget": self.forgotten,
            "retain": train & ~self.forgotten,
            "calibration": calibration,
            "holdout": audited,
            "test": test,
        }

    @property
    def class_counts(self) -> Tensor:
        labels = self.fold.data.samples.labels
        return labels[self.masks["retain"]].bincount(minlength=int(labels.max()) + 1)

    def observed(self, network: Network) -> Observed:
        masks = self.masks
        return Observed.of(
            network,
            forget=self.samples(masks["forget"]),
            retain=self.samples(masks["retain"]),
            holdout=self.samples(masks["holdout"]),
            test=self.samples(masks["test"]),
        )

    @property
    def groups(self) -> Groups:
        codes, masks = self.fold.data.groups, self.masks
        forget = codes[masks["forget"]]
        return Groups(
            forget=forget,
            holdout=codes[masks["holdout"]],
            in_part=torch.isin(forget, codes[masks["retain"]]),
        )

    @property
    def in_part(self) -> bool:
        """Whether there is a person of whom something stays."""
        return not bool(self.groups.whole.all())

    @property
    def scores(self) -> Tensor:
        """(K, N) scaled confidence of the reference models."""
        labels = self.fold.data.samples.labels
        return torch.stack([scaled_confidence(each, labels) for each in self.fold.reference_logits])

    @property
    def references(self) -> ReferenceScores:
        """What the service would have kept of the reference models."""
        fold, masks, scores = self.fold, self.masks, self.scores
        mine, theirs = scores[:, masks["forget"]], scores[:, masks["holdout"]]
        seen = fold.seen[:, masks["forget"]]
        out = mine.masked_fill(seen, torch.nan).nanmean(0)
        return ReferenceScores(
            forget_mean=out,
            forget_std=torch.full_like(out, theirs.std().item()),
            holdout_mean=theirs.mean(0),
            holdout_std=theirs.std(0).clamp_min(1e-3),
            forget_scores=mine,
            forget_seen=seen,
            holdout_scores=theirs,
        )

    @property
    def predictions(self) -> Tensor:
        """(F, C) mean answers of the reference models that have not seen the samples."""
        forget = self.masks["forget"]
        unseen = (~self.fold.seen[:, forget]).double()[..., None]
        answers = self.fold.reference_logits[:, forget].softmax(2)
        return ((answers * unseen).sum(0) / unseen.sum(0)).float()

    @property
    def ease(self) -> Tensor:
        """(F,) how easy they find them."""
        labels, masks, scores = self.fold.data.samples.labels, self.masks, self.scores
        mine, theirs = masks["forget"], masks["calibration"]
        seen = self.fold.seen[:, mine]
        return ease_told(scores[:, mine], seen, labels[mine], scores[:, theirs], labels[theirs])

    def judged(self, after: Network, *, references: bool, unaware: bool = False) -> Audit:
        """The audit; or, `unaware`, one that takes nobody for known by what stays of them."""
        groups = self.groups
        return audit(
            self.observed(self.fold.original),
            self.observed(after),
            class_counts=self.class_counts,
            removing=False,
            limits=LIMITS,
            references=self.references if references else None,
            groups=replace(groups, in_part=None) if unaware else groups,
        )

    def unlearned(self, level: int, *, references: bool) -> Network:
        """What one round of a job makes of the original."""
        masks, original = self.masks, self.fold.original
        forget, retain = self.samples(masks["forget"]), self.samples(masks["retain"])
        outputs = Outputs.of(original, retain, 500)
        changed = unlearn(
            original,
            forget=forget,
            retain=retain,
            retain_logits=outputs.logits,
            holdout=self.samples(masks["calibration"]),
            moments=retain_moments(outputs, self.class_counts),
            class_counts=self.class_counts,
            config=default_config(
                removing=False,
                forget_count=len(forget),
                reservoir_count=len(retain),
                skew=skew(forget.labels, self.class_counts),
                level=level,
            ),
            on_cycle=lambda scores, state: None,
            predictions=self.predictions if references else None,
            ease=self.ease if references else None,
        )
        return original.around(changed)

    def test_accuracy(self, network: Network) -> float:
        """In percent, on all samples that no method was given: the audit's and the test's."""
        masks = self.masks
        unseen = self.samples(masks["holdout"] | masks["test"])
        return 100 * (accuracy(Outputs.of(network, unseen, 500)) or 0.0)


def verdict(found: Audit) -> str:
    return Verdict.of(fails=found.fails, has_power=found.has_power).value
