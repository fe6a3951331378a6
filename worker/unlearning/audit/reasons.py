"""The reason of a verdict, in sentences for whoever answers for it."""

from collections.abc import Sequence

from worker.unlearning.audit import guards
from worker.unlearning.audit.family import Family, Test

WORDS = {
    "membership_loss": "membership by loss (AUC)",
    "membership_margin": "membership by margin (AUC)",
    "membership_per_sample": "membership by reference models (AUC)",
    "membership_per_group": "membership of groups by reference models (standard deviations)",
    "probe_membership_per_group": "membership of groups by a refitted head (standard deviations)",
    "accuracy": "accuracy on the forget set above hold-out",
    "probe_accuracy": "linear probe's accuracy on the forget set above hold-out",
    "probe_f1": "linear probe's F1 on the forget set above hold-out",
    "probe_nmi": "linear probe's NMI on the forget set above hold-out",
    "alignment": "dimensional alignment of the forget set above hold-out",
    "feature_norm": "log norm of forget features above hold-out",
    **guards.WORDS,
}
"""Each test as the reason of a verdict names it."""


BY_REFERENCE = ("membership_per_group", "probe_membership_per_group")
TRAINED = (
    "the model looks trained on these samples",
    "the model treats these samples as stranger than what it never saw",
)
MEANINGS = {
    "membership_loss": TRAINED,
    "membership_margin": TRAINED,
    "membership_per_sample": TRAINED,
    "membership_per_group": (
        "the model is surer of these groups' samples than networks that never saw them",
        "the model is less sure of these groups' samples than networks that never saw them",
    ),
    "probe_membership_per_group": (
        "the model's features, read anew, are surer of these groups' samples than networks that "
        "never saw them",
        "the model's features, read anew, are less sure of these groups' samples than networks "
        "that never saw them",
    ),
    "accuracy": (
        "the model is right about these samples more often than about unseen ones",
        "the model is right about these samples less often than about unseen ones",
    ),
    "alignment": (
        "the features of these samples are nearer to what was kept than those of unseen ones",
        "the features of these samples are farther from what was kept than those of unseen ones",
    ),
    "feature_norm": (
        "the features of these samples are larger than those of unseen ones",
        "the features of these samples are smaller than those of unseen ones",
    ),
    **dict.fromkeys(
        ("probe_accuracy", "probe_f1", "probe_nmi"),
        (
            "the features of these samples tell their classes better than those of unseen ones",
            "the features of these samples tell their classes worse than those of unseen ones",
        ),
    ),
}
"""What a failing test of a family means, above what is expected and below it."""


def reason_of(family: Family, earlier: Family, failed: Sequence[Test]) -> str:
    """Why the verdict is what it is.

    Args:
        earlier: the family on the model before the job.
        failed: the tests and guards that fail on the model after it.
    """
    remarks = "".join(f" ({remark})" for remark in family.remarks)
    if failed:
        sentence = "; ".join(map(_in_words, failed))
        return f"{sentence[0].upper()}{sentence[1:]}.{remarks}"
    if family.lacking is not None:
        return f"These tests cannot tell: {family.lacking}.{remarks}"
    if not family.tests:
        return f"No forget sample can be compared to the hold-out.{remarks}"
    if family.unclear:
        odd = "; ".join(_in_words(test) for test in family.tests if test.name in family.unclear)
        return (
            "These tests cannot tell: the samples differ from those of unseen groups in a way that "
            "need not come from training. Harder or unusual people differ so too, and so do people "
            "whom the model was made to answer worse than it answers unseen ones. Reference models "
            f"(policy `reference_models`) would tell. {odd}.{remarks}"
        )
    if not earlier.rejected:
        return (
            "The model before the job would have passed: too few samples, or too little memorised, "
            f"for these tests to see.{remarks}"
        )
    return (
        "Influence reduced to within the measured range of models never trained on these samples, "
        f"under these tests; the model before the job was outside it.{remarks}"
    )


def _in_words(test: Test) -> str:
    if test.name in guards.WORDS:
        return guards.in_words(test)
    meaning = MEANINGS[test.name][0 if test.value > test.expected else 1]
    others = "such networks" if test.name in BY_REFERENCE else "unseen samples"
    expected = f"{test.expected:.3f}"
    if test.high is not None:
        expected += f" ± {test.threshold:.3f}"
    return f"{meaning}: {WORDS[test.name]} is {test.value:.3f}, where {others} give {expected}"
