"""People whose samples are alike, and what simulated networks say of them: no training needed.

A network's scaled confidence in a sample is what is easy about the person and about the sample,
what this network happens to think of the person and of the sample, and more if it has learned from
them. Its features say the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.worker.unlearning.audit.synthetic import seeded
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.verdict import Limits, ReferenceScores, audit
from worker.unlearning.evaluation import Observed, Outputs

PERSON, SAMPLE, LUCK_PERSON, LUCK_SAMPLE = 1.0, 1.0, 0.4, 1.0
RETAIN = 120
COUNTS = torch.tensor([RETAIN // 2, RETAIN // 2])


@dataclass(frozen=True)
class World:
    """Forgotten people, unseen people, and what networks say of both."""

    groups: Groups
    labels: Tensor
    ease: Tensor
    generator: torch.Generator

    def luck(self, memory: float = 0.0, *, all_seen: bool = False) -> Tensor:
        """(N,) what one network says; `memory` is added for the forgotten people."""
        codes = self.codes
        of_person = torch.randn(int(codes.max()) + 1, generator=self.generator)[codes]
        of_sample = torch.randn(len(codes), generator=self.generator)
        learned = memory * (torch.arange(len(codes)) < len(self.groups.forget))
        return self.ease + LUCK_PERSON * of_person + LUCK_SAMPLE * of_sample + learned

    @property
    def codes(self) -> Tensor:
        return torch.cat([self.groups.forget, self.groups.holdout])

    def observed(self, memory: float = 0.0, *, features: float | None = None) -> Observed:
        """A network that remembers so much; its features may remember more than its answers."""
        said = self.luck(memory)
        shown = said if features is None else self.luck(features)
        every = outputs(said + 0.3, shown + 0.3, self.labels)
        first = torch.arange(len(self.labels)) < len(self.groups.forget)
        labels = torch.arange(RETAIN) % 2
        kept = 4 + torch.randn(RETAIN, generator=self.generator)
        return Observed(
            forget=every.select(first),
            retain=outputs(kept, kept, labels),
            holdout=every.select(~first),
            test=None,
        )

    def references(self, networks: int = 8, memory: float = 2.0, *, by_sample=False):
        people = self.groups.forget.unique(return_inverse=True)[1]
        units = torch.arange(len(people)) if by_sample else people
        seen = torch.zeros(networks, len(people), dtype=torch.bool)
        for pair in range(0, networks, 2):
            half = torch.rand(int(units.max()) + 1, generator=self.generator) < 0.5
            seen[pair], seen[pair + 1] = half[units], ~half[units]
        count = len(people)
        scores = torch.stack([self.luck() for _ in range(networks)]).double()
        scores[:, :count] += memory * seen
        out = scores[:, :count].masked_fill(seen, torch.nan).nanmean(0).nan_to_num()
        return ReferenceScores(
            forget_mean=out,
            forget_std=torch.ones(count),
            holdout_mean=scores[:, count:].mean(0),
            holdout_std=torch.ones(len(self.groups.holdout)),
            forget_scores=scores[:, :count],
            forget_seen=seen,
            holdout_scores=scores[:, count:],
        )


def world(forget, holdout, *, seed=0, harder=0.0):
    """People with so many samples each; the forgotten ones are harder by so much."""
    generator = seeded(seed)
    codes = [
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        for sizes in (forget, holdout)
    ]
    groups = Groups(forget=codes[0], holdout=codes[1] + len(forget))
    every = torch.cat([groups.forget, groups.holdout])
    ease = PERSON * torch.randn(len(forget) + len(holdout), generator=generator)[every]
    ease = ease + SAMPLE * torch.randn(len(every), generator=generator)
    ease[: len(groups.forget)] -= harder
    labels = torch.cat([torch.arange(len(each)) % 2 for each in codes])
    return World(groups, labels, ease, generator)


def outputs(said, shown, labels):
    """Two classes: confidence `said` in the answers, and `shown` in the features."""
    towards = torch.where(labels == 0, 1.0, -1.0)
    logits = torch.stack([towards * said, torch.zeros(len(labels))], 1)
    return Outputs((towards * shown)[:, None].repeat(1, 2).float(), logits.float(), labels)


def judged(before, after, people, references=None):
    return audit(
        before,
        after,
        class_counts=COUNTS,
        removing=False,
        limits=Limits(max_test_accuracy_drop=1, max_class_accuracy_drop=1),
        references=references,
        groups=people.groups,
    )
