"""To the model, do forget samples look like samples it never saw? One family of tests.

Shapes: F forget samples, H hold-out samples, N of both, C classes, S scores, b permutations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.unlearning.alignment import eigenspace, standing
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.pair import Pair, ReferenceScores
from worker.unlearning.audit.permutation import max_t, shuffles
from worker.unlearning.evaluation import (
    Observed,
    Outputs,
    default_k,
    retain_moments,
    retain_weights,
)
from worker.unlearning.probes import Cells, Probe
from worker.unlearning.samples import classes
from worker.unlearning.targets import margins

ALPHA = 0.03
"""Familywise error of the tests. At 0.05 too few retrained models passed: docs/method.md."""

PERMUTATIONS = 2000

PROBED = 20
"""Forget samples from which F1 and NMI of the probe are compared."""

DOUBT = 1.5
"""Share of its own size by which an adjustment for difficulty may be too small. Reference models
are few and their answers noisy, which flattens every fit to them; and of two samples they find
equally hard, one may be hard and the other mislabelled. Chosen on retrained CIFAR-10 models: for
membership of mislabelled samples, they needed 0.5 to 1.5."""

PER_SAMPLE = "membership_per_sample"
RANKED = ("membership_loss", "membership_margin", PER_SAMPLE)
"""Compared by rank: their value is an AUC, the chance that a forget sample looks more like a
training sample than a hold-out sample of its class does. With references it is 0.5 plus a
difference of ranks extrapolated to equal difficulty, and may leave [0, 1]."""


FREE = ("alignment", "feature_norm")
"""The scores that do not depend on the label: the figures of `standing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One figure, with what it is compared to."""

    __test__ = False  # for pytest: this is not one of its tests

    name: str
    value: float
    low: float | None
    """The lower end of a family test's simultaneous interval; the only bound of a one-sided
    test."""

    high: float | None
    expected: float
    threshold: float
    """For a family test, the largest passing distance between value and `expected`; for a one-sided
    test, what `low` must not exceed."""

    p_value: float
    """For a family test, adjusted for the family."""

    forget_samples: int
    """Number of forget samples compared; 0 for a test that looks at others only."""

    holdout_samples: int
    """Number of samples the forget samples were compared to, or a guard was measured on."""

    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Tests of one hypothesis: to the model, forget samples look like samples it never saw."""

    tests: tuple[Test, ...]
    """Empty when no forget sample could be compared."""

    p_value: float
    """The smallest of the adjusted p-values; 1 when there are no tests."""

    remarks: tuple[str, ...]
    """What was left out, and the reason."""

    @property
    def rejected(self) -> bool:
        """Whether a test fails, so the samples can be told apart."""
        return not all(test.passed for test in self.tests)


def exchangeability(
    observed: Observed,
    *,
    class_counts: Tensor,
    references: ReferenceScores | None = None,
    groups: Groups | None = None,
    k: int | None = None,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Family:
    """Test that forget samples look to the model like hold-out samples of the same class.

    All statistics are two-sided and share permutations of who is forgotten, within classes; the
    largest standardised one is judged (see `max_t`), so that a model that never saw the forget
    set is rejected at a rate of at most ALPHA, whatever their correlations.

    Without `references` the permutations are exact for a forget set drawn like the hold-out. With
    them, scores that depend on the label are compared at equal out-of-sample confidence, and scores
    of the features at equal confidence of the model's own answer, by a linear model with a margin
    of doubt (`DOUBT`): the forget set may then be harder than the hold-out, or mislabelled. The
    error rate is approximate in that case.

    Source:
        Permuting residuals: Freedman and Lane, 1983. Membership by reference models: Carlini et
        al., "Membership Inference Attacks From First Principles", 2022, arXiv:2112.03570. Putting
        these together is our reconstruction.
    """
    generator = torch.Generator().manual_seed(seed)
    pair = Pair.of(observed, references, generator)
    if pair.forget_samples == 0:
        return Family(tests=(), p_value=1.0, remarks=pair.remarks)
    scores = _scores(observed.retain, pair, class_counts, k)
    tables = _tables(pair, scores.read_as, generator)
    rows = torch.cat(
        [
            torch.cat([scores.differences(places), tables.differences(places)], 1)
            for places in shuffles(pair.outputs.labels, permutations + 1, generator)
        ]
    )  # (B, S)
    linear = len(scores.names)
    centre = torch.cat([rows.new_zeros(linear), rows[:, linear:].mean(0)])
    values, doubt = rows[0].clone(), torch.zeros_like(centre)
    doubt[:linear] = DOUBT * (values[:linear] - scores.unadjusted)
    rows[0] = centre + _nearest_to_zero(values - centre, doubt)
    found = max_t(rows, centre, ALPHA)
    figures = zip(
        (*scores.names, *tables.names),
        *(each.tolist() for each in (values, centre, doubt, found.threshold, found.p_value)),
        strict=True,
    )
    tests = tuple(_test(pair, *each) for each in figures)
    return Family(
        tests=tests,
        p_value=min(test.p_value for test in tests),
        remarks=pair.remarks + tables.remarks,
    )


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
class _Scores:
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


def _scores(retain: Outputs, pair: Pair, class_counts: Tensor, k: int | None) -> _Scores:
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
    difficulty, sureness = _covariates(pair)
    nothing = _nothing(pair)
    plain = bound | {name: confidence for name in bound if name == PER_SAMPLE} | free
    return _Scores(
        names=(*bound, *free),
        weights=(pair.weights(difficulty), pair.weights(sureness)),
        scores=(_residuals(pair, bound, difficulty), _residuals(pair, free, sureness)),
        unadjusted=pair.weights(nothing) @ _residuals(pair, plain, nothing),
        read_as=read_as,
    )


def _residuals(pair: Pair, scores: dict[str, Tensor], covariates: Tensor) -> Tensor:
    """(N, S) the part of each score (N,) that class and covariates do not explain."""
    left = [pair.residuals(s, covariates, ranked=name in RANKED) for name, s in scores.items()]
    return torch.stack(left, 1)


def _covariates(pair: Pair) -> tuple[Tensor, Tensor]:
    """The covariates of label-dependent scores, and those of the others: (N, Q) each.

    Nothing without references. With them, the reference models' confidence in the label, and the
    model's confidence in its own answer.
    """
    if pair.out_mean is None:
        return _nothing(pair), _nothing(pair)
    logits = pair.outputs.logits
    return _bent(pair.out_mean), _bent(scaled_confidence(logits, logits.argmax(1)))


def _nothing(pair: Pair) -> Tensor:
    """(N, 0): no covariates."""
    return torch.zeros(len(pair.mine), 0, dtype=torch.float64)


def _bent(confidence: Tensor) -> Tensor:
    """(N, 3): scaled confidence, where it is positive, and as a probability."""
    return torch.stack([confidence, confidence.clamp_min(0), confidence.sigmoid()], 1)


@dataclass(frozen=True, slots=True)
class _Tables:
    """Contingency of label and probe, ready to be compared under any permutation."""

    pair: Pair
    cells: Cells | None
    """None when tables are not compared."""

    remarks: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.cells is None else ("probe_f1", "probe_nmi")

    def differences(self, places: Tensor) -> Tensor:
        """(b, 2) how much higher F1 and NMI are on forget samples; (b, 0) if not compared."""
        if self.cells is None:
            return torch.zeros(len(places), 0, dtype=torch.float64)
        mine = self.pair.mine.double().take(places)
        first = self.cells.count(mine)
        second = self.cells.count((1 - mine) * _mix(self.pair))
        figures = (self.cells.macro_f1, self.cells.nmi)
        return torch.stack([figure(first) - figure(second) for figure in figures], 1)


def _tables(pair: Pair, read_as: Tensor, generator: torch.Generator) -> _Tables:
    labels = pair.outputs.labels
    if len(classes(labels)) < 2 or pair.forget_samples < PROBED:
        return _Tables(pair, None, ("too few forget samples or classes for F1 and NMI",))
    if not _as_hard(pair, generator):
        return _Tables(
            pair, None, ("F1 and NMI left out: the forget set is not as hard as the hold-out",)
        )
    return _Tables(pair, Cells.of(labels, read_as), ())


def _as_hard(pair: Pair, generator: torch.Generator) -> bool:
    """Whether reference models find the forget set as hard as the hold-out; True without them."""
    if pair.out_mean is None:
        return True
    hardness = pair.residuals(pair.out_mean, _nothing(pair), ranked=True)
    weights, places = pair.weights(_nothing(pair)), shuffles(pair.outputs.labels, 200, generator)
    rows = torch.cat([weights[chunk] @ hardness for chunk in places])
    return max_t(rows[:, None], torch.zeros(1).double(), ALPHA).p_value.item() > ALPHA


def _mix(pair: Pair) -> Tensor:
    """(N,) forget samples for each hold-out sample, in the class of each sample."""
    labels, mine = pair.outputs.labels, pair.mine
    size = int(labels.max()) + 1
    counts = [labels[group].bincount(minlength=size).double() for group in (mine, ~mine)]
    return (counts[0] / counts[1])[labels]


def _nearest_to_zero(values: Tensor, doubt: Tensor) -> Tensor:
    """The value of smallest magnitude between each value and value + doubt."""
    opposed = values * doubt < 0
    smaller = values.sign() * (values.abs() - doubt.abs()).clamp_min(0)
    return torch.where(opposed, smaller, values)


def _test(
    pair: Pair,
    name: str,
    value: float,
    centre: float,
    doubt: float,
    margin: float,
    p_value: float,
) -> Test:
    shift = 0.5 if name in RANKED else 0.0
    opposed = (value - centre) * doubt < 0
    return Test(
        name=name,
        value=value + shift,
        low=value + shift - margin + min(doubt, 0),
        high=value + shift + margin + max(doubt, 0),
        expected=centre + shift,
        threshold=margin + (abs(doubt) if opposed else 0),
        p_value=p_value,
        forget_samples=pair.forget_samples,
        holdout_samples=pair.holdout_samples,
        passed=p_value > ALPHA,
    )
