"""What is said in words about how a deletion ended: in answers, and in certificates.

All such texts are here, so that no two places say different things. They say what was measured,
and no more; what a certificate does not prove has texts of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from domain.states import Mode, Objective, RowsStatus, Verdict
from evidence import advantage, backbones, fine_tuned

Result = Mapping[str, Any]
"""What a certificate says of one model, as it is signed: the words rest on nothing else."""


class Kind(StrEnum):
    """What a certificate certifies of a model: changed, retrained, retrained elsewhere as somebody
    declared, or left as it was."""

    APPROXIMATE = "approximate"
    EXACT = "exact"
    DECLARED = "declared"
    NOTHING_TO_FORGET = "nothing_to_forget"


MEANING = {
    Verdict.PASS: "Influence reduced to within the measured range of models never trained on these "
    "samples, under these tests.",
    Verdict.FAIL: "These tests can still tell the samples from samples the model was never trained "
    "on, or the model lost more than its policy allows.",
    Verdict.NO_POWER: "These tests cannot tell: the model would not have failed them before the "
    "job either, or they cannot speak for these samples. This is no evidence that the samples' "
    "influence is gone.",
}
"""What a verdict says of a version that was changed, and no more."""

OF_RETRAINED = {
    Verdict.PASS: "It was trained anew without these samples, which is what forgetting them means. "
    "This rests on the retraining: the tests are shown beside it and do not decide.",
    Verdict.FAIL: "It was retrained without these samples and held back all the same, for a person "
    "to decide: the tests say why.",
}
"""The same of a version that was retrained. Without power is none, but of earlier releases."""

ROWS = {
    RowsStatus.WAITING: "The rows of the samples are still in the dataset's files. A job that "
    "erases them waits or runs.",
    RowsStatus.FAILED: "The rows of the samples are still in the dataset's files: the job that was "
    "to erase them failed. Mend what its failure names, then have it tried again with "
    "`POST /v1/jobs/{id}/retry`.",
    RowsStatus.HELD: "Rows of the samples are still in the dataset's files, because another model "
    "of the dataset has yet to forget them. Ask it to, with a request that names the `dataset`.",
    RowsStatus.GONE: "No row of the samples is left in the dataset's files.",
}
"""What is said of the rows of samples, where the dataset erases."""

KNOWS = (
    "It can tell samples that it was declared not to be trained on from samples nobody was trained "
    "on; this was accepted beforehand, with `accept_memory`."
)
NOT_TESTED = "No tests were run, so nothing is said about the samples' influence."
SEEN_ANYWAY = (
    "{failed} of {all} tests tell the samples apart in it. They do so in any model that was never "
    "trained on them, too, where the samples are unlike those they are compared with."
)
ACCEPTED = "A person accepted this version in spite of that."

ACCEPTED_BEFORE = (
    "A person accepted another version whose tests failed by as much. Other requests had overtaken "
    "that one, so this one was made anew in its place."
)

MADE = {
    Kind.APPROXIMATE: "was changed to forget these samples; it was not retrained.",
    Kind.EXACT: "was retrained without these samples.",
    Kind.DECLARED: "was trained elsewhere. Whoever registered it declared what it was trained on, "
    "and these samples are not among that. The ids were compared; the training was not observed.",
}
"""How a version came to be."""

ROWS_NOT_PROVEN = "That the samples are gone from the files of the dataset."
ROWS_OVERWRITTEN = (
    "That rows which were taken out of files cannot be recovered from the storage medium: the "
    "files were written anew, and what the old ones took up was not overwritten."
)
NEVER_PROVEN = (
    "That no copy of the samples is left elsewhere: in exports, in caches, on other machines or "
    "with other people.",
    "That backups of the database, the dataset and the weights no longer contain the samples.",
    ROWS_NOT_PROVEN,
    "That other models that were trained on the samples, or made from the old weights, have "
    "forgotten them.",
    "That the machine ran what is recorded here: the figures are what it stored and signed, and "
    "nobody outside observed it.",
    "That everything was recorded: the log shows that no entry has been changed since, not that "
    "none was left out.",
    "That the sample ids belong to the person who asked: whoever named them had to know that.",
)
"""What no certificate proves."""

CHANGED = (
    "That the weights are what training without the samples would have produced: they were "
    "changed, not retrained."
)
RETRAINED = (
    "That the training did not get the samples from anywhere else, such as a copy under another id "
    "or parts that had been trained before."
)
DECLARED = (
    "That version {version} of model {model} was trained without the samples: it was trained "
    "elsewhere, and this rests on what whoever registered it declared."
)
FORGOTTEN_EARLIER = (
    "That samples which had already been forgotten were forgotten well: the certificates of the "
    "earlier requests say what was tested then."
)
NEVER_TRAINED_ON = (
    "That samples outside the training split were never trained on: this is what whoever "
    "registered the dataset and the model stated."
)
OTHER_TESTS = (
    "That no other test could tell the samples apart: only the tests in this certificate were run."
)
NO_TESTS = "That the samples' influence is gone from versions that were not tested."
CONCEPT = (
    "That the model knows nothing about the removed class: this was tested only with held-out "
    "samples of that class."
)
WEIGHTS_LEFT = (
    "That the old weights are gone: those without a time of deletion were still stored when this "
    "certificate was issued."
)
WEIGHTS_DELETED = (
    "That deleted weights cannot be recovered from the storage medium: their files were deleted, "
    "not overwritten."
)

VERDICT_TITLES = {
    Verdict.PASS: "Pass",
    Verdict.FAIL: "Fail",
    Verdict.NO_POWER: "No power: the tests cannot tell",
    None: "Not tested",
}
KIND_TITLES = {
    Kind.APPROXIMATE: "Approximate: the model was changed",
    Kind.EXACT: "Exact: the model was retrained",
    Kind.DECLARED: "Declared: the model was retrained elsewhere",
    Kind.NOTHING_TO_FORGET: "Nothing to forget",
}
MOMENT_TITLES = {
    "before": "On the previous version: can the tests tell the samples apart?",
    "after": "On the new version",
    "guard": "What the new version had to keep, and a removed class had to lose",
}
TEST_TITLES = {
    "membership_loss": "Membership by loss (AUC)",
    "membership_margin": "Membership by margin (AUC)",
    "membership_per_sample": "Membership by reference models (AUC)",
    "membership_per_group": "Membership of groups by reference models (deviations)",
    "probe_membership_per_group": "Membership of groups, by a refitted head (deviations)",
    "accuracy": "Accuracy above hold-out",
    "probe_accuracy": "Linear probe: accuracy above hold-out",
    "probe_f1": "Linear probe: F1 above hold-out",
    "probe_nmi": "Linear probe: NMI above hold-out",
    "alignment": "Dimensional alignment above hold-out",
    "feature_norm": "Log norm of features above hold-out",
    "test_accuracy": "Drop in test accuracy on retained classes",
    "class_accuracy": "Largest drop in accuracy on a retained class",
    "nll": "Rise of the mean loss on retained classes (NLL)",
    "ece": "Rise of the calibration error on retained classes (ECE)",
    "concept_removed": "Accuracy on the removed class",
}
"""How people read what a certificate names."""


OBJECTIONS = {
    "no_better_than_chance": "answered its own training samples no better than chance",
    "worse_than_holdout": "answered its own training samples worse than its hold-out",
}
"""What can be objected to a model's accuracy, after "the model"."""


def accepted_accuracy(check: Mapping[str, Any]) -> str | None:
    """What is said of a model whose accuracy did not have to be that of a trained one.

    Args:
        check: what registration found, as `worker.jobs.plausibility` puts it.
    """
    if not check["accepted"]:
        return None
    measured = f"accuracy {check['train']:.3f} on {check['train_samples']} training samples"
    if check["holdout"] is not None:
        measured += f" and {check['holdout']:.3f} on {check['holdout_samples']} hold-out samples"
    if not check["objections"]:
        return (
            "It was accepted beforehand, with `accept_accuracy`, whatever the model's accuracy "
            f"would be when it was registered; nothing was objected to it ({measured})."
        )
    found = " and ".join(OBJECTIONS[name] for name in check["objections"])
    return (
        f"When it was registered, the model {found} ({measured}). This was accepted beforehand, "
        "with `accept_accuracy`: what is said here is about a network that may not get the inputs "
        "or the labels that it was trained with."
    )


LISTED = 10
"""Classes that are named one by one."""

MEASURED_ON = {"test": "test samples", "holdout": "hold-out samples"}


def accuracy_remarks(report: Mapping[str, Any]) -> list[str]:
    """What a job did to the accuracy over all classes, and to the classes it left nothing of.

    Args:
        report: as `evidence.accuracy` makes it.
    """
    remarks = []
    measured = MEASURED_ON[report["measured_on"]]
    if report["samples"]:
        remarks.append(
            f"Over all classes, its accuracy on {report['samples']} {measured} was "
            f"{report['before']:.3f} before and {report['after']:.3f} after."
        )
    for label in report["lost_classes"][:LISTED]:
        row = report["classes"][label]
        remarks.append(
            f"Class {label} lost all of its training samples"
            + (
                f": its accuracy on {row['samples']} {measured} went from {row['before']:.3f} to "
                f"{row['after']:.3f}."
                if row["samples"]
                else f", and there are no {measured} of it to measure what that did."
            )
        )
    if more := report["lost_classes"][LISTED:]:
        remarks.append(f"So did {len(more)} more classes.")
    return remarks


def meaning(
    verdict: Verdict, mode: Mode | Kind | None, config: Mapping[str, Any] | None = None
) -> str:
    """What a verdict says of a version that was made in this mode.

    Args:
        config: what it was made with, as the job or the round has it.
    """
    if mode == Kind.EXACT and verdict in OF_RETRAINED:
        return (backbones.OF_REFITTED if config and config.get("backbone") else OF_RETRAINED)[
            verdict
        ]
    return MEANING[verdict]


def statement(results: Sequence[Result], *, nothing_found: bool = False) -> str:
    """What came of a request, in plain language: a paragraph for each model.

    Args:
        nothing_found: whether it named subjects of whom the dataset has no sample, and nothing
            else.
    """
    return "\n".join(" ".join(_sentences(result, nothing_found)) for result in results)


def not_proven(
    objective: Objective, results: Sequence[Result], *, erased: bool = False
) -> list[str]:
    """What a certificate with these results does not prove, each once: what concerns these models
    first, then what no certificate proves.

    Args:
        erased: whether the samples' rows were erased from the dataset's files.
    """
    special = [text for result in results for text in _limits(objective, result)]
    never = [
        ROWS_OVERWRITTEN if erased and text == ROWS_NOT_PROVEN else text for text in NEVER_PROVEN
    ]
    return list(dict.fromkeys([*special, *never]))


def _sentences(result: Result, nothing_found: bool) -> Iterator[str]:
    yield from _what_came_of(result, nothing_found)
    if report := result.get("accuracy"):
        yield from accuracy_remarks(report)
    if told := result.get("advantage"):
        yield from advantage.remarks(told)
    if told := result.get("fine_tuned"):
        yield from fine_tuned.remarks(told)
    if accepted := result.get("accepted_accuracy"):
        yield str(accepted_accuracy(accepted))


def _what_came_of(result: Result, nothing_found: bool) -> Iterator[str]:
    if result["kind"] == Kind.NOTHING_TO_FORGET:
        yield f"Model {result['model']}: there was nothing to forget."
        if nothing_found:
            yield f"Version {result['before']['version']} was served then, and stays as it is."
            return
        yield (
            f"{result['already_forgotten']} of the named samples had already been forgotten, and "
            f"{result['not_trained_on']} are not among those it was trained on."
        )
        yield "No new version was made, and nothing was tested."
        yield from _knows(result)
        return
    yield f"Model {result['model']}: version {result['after']['version']}"
    verdict, kind, backbone = _verdict(result), Kind(result["kind"]), backbones.of(result)
    yield MADE[kind] if backbone is None else backbones.REFITTED
    if backbone is not None:
        yield backbones.DECLARED
    yield from _knows(result)
    config = result["method"]["config"] if backbone else None
    yield NOT_TESTED if verdict is None else meaning(verdict, kind, config)
    if verdict is Verdict.PASS and kind is Kind.EXACT:
        compared = [test["passed"] for test in result["tests"] if test["moment"] == "after"]
        if not all(compared):
            yield SEEN_ANYWAY.format(failed=compared.count(False), all=len(compared))
    elif verdict is Verdict.PASS:
        yield f"The previous version, {result['before']['version']}, was outside that range."
    if verdict is Verdict.FAIL and result["approval"]:
        yield ACCEPTED_BEFORE if "accepted_job" in result["approval"] else ACCEPTED


def _knows(result: Result) -> Iterator[str]:
    """What was found of a version that was trained elsewhere, in spite of what was declared."""
    if "memory" in result.get("declared", {}).get("accepted", ()):
        yield KNOWS


def _limits(objective: Objective, result: Result) -> Iterator[str]:
    kind, verdict = Kind(result["kind"]), _verdict(result)
    if told := result.get("declared"):
        yield DECLARED.format(version=told["version"], model=result["model"])
    if kind is not Kind.NOTHING_TO_FORGET:
        if kind is not Kind.EXACT or verdict is not Verdict.PASS:
            yield from _limits_of_tests(result, verdict)
        yield CHANGED if kind is Kind.APPROXIMATE else RETRAINED
        if backbones.of(result) is not None:
            yield backbones.NOT_PROVEN
        if objective is Objective.REMOVE_CLASS:
            yield CONCEPT
    if result["already_forgotten"]:
        yield FORGOTTEN_EARLIER
    if result["not_trained_on"]:
        yield NEVER_TRAINED_ON
    gone = [bool(old["purged_at"]) for old in result["purge"]["superseded_weights"]]
    if not all(gone):
        yield WEIGHTS_LEFT
    if any(gone):
        yield WEIGHTS_DELETED


def _limits_of_tests(result: Result, verdict: Verdict | None) -> Iterator[str]:
    name = f"model {result['model']}"
    compared = [test for test in result["tests"] if test["moment"] == "after"]
    forget = max((test["forget_samples"] for test in compared), default=0)
    holdout = max((test["holdout_samples"] for test in compared), default=0)
    sizes = f"{forget} of the samples with {holdout} it was never trained on"
    match verdict:
        case Verdict.PASS:
            yield (
                f"That no influence is left that is too small for these tests to detect: for "
                f"{name} they compared {sizes}, and the intervals show how precisely."
            )
            yield OTHER_TESTS
        case Verdict.FAIL:
            yield f"That the samples' influence on {name} is gone: the verdict is fail."
        case Verdict.NO_POWER:
            told = "none of them could be compared with samples it was never trained on."
            if compared:
                told = (
                    f"the tests compared {sizes}, and cannot tell: they are too few or too little "
                    "memorised, or do not stand for all that was to be forgotten."
                )
            yield f"That the samples' influence on {name} is gone: {told}"
        case None:
            yield NO_TESTS


def _verdict(result: Result) -> Verdict | None:
    return None if result["verdict"] is None else Verdict(result["verdict"])
