"""How well somebody could guess who was forgotten: what a job's two evaluations say of it.

Pure: figures go in, JSON comes out, for answers and certificates.
"""

import math
from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, Any]
"""As `worker.unlearning.evaluation` measures them."""

MEMBERS = ("bound", "observed", "pairs", "forgotten", "grouped", "confidence")
LEFT_OUT = "in_part"
"""A member that is told where it is not 0: certificates of earlier releases have none."""


def report(before: Figures | None, after: Figures | None) -> dict[str, Any] | None:
    """What was measured before and after a job; None where it was not, as by earlier releases."""
    old, new = ((figures or {}).get("advantage") for figures in (before, after))
    if old is None or new is None:
        return None
    return {
        moment: {name: told[name] for name in (*MEMBERS, *[LEFT_OUT] * bool(told.get(LEFT_OUT)))}
        for moment, told in (("before", old), ("after", new))
    }


def in_hundred(bound: float) -> int:
    """A bound as a number of guesses of a hundred, never rounded to the comforting side."""
    return math.ceil(100 * bound - 1e-9)


def remarks(told: Mapping[str, Any]) -> list[str]:
    """What this means, in sentences.

    Args:
        told: as `report` makes it.
    """
    after, measured = told["after"], _measured(told)
    left_out = after.get(LEFT_OUT, 0)
    if after["pairs"] == 0:
        why = "the hold-out has no samples of their classes, so"
        if left_out:
            why = "others of their groups stay in training, so it may know these groups anyway, and"
        return [
            "How well somebody could guess whose samples it was trained on was not measured: "
            f"{why} up to 100 right guesses in 100 are not excluded."
        ]
    most = in_hundred(after["bound"])
    game = (
        "Somebody who is shown one of these samples and one of the same class that the model never "
        "saw, and goes by the model's loss, guesses which is which"
    )
    what = "groups" if after["grouped"] else "samples"
    pairs = f"{after['pairs']} {'pair' if after['pairs'] == 1 else 'pairs'} of {what}"
    said = (
        f"{game} right at most {most} times in 100 ({measured}; 50 is chance). More is excluded "
        f"with a confidence of {after['confidence']:.0%}, by {pairs}."
    )
    if most >= 100:
        said = (
            f"{game} right up to 100 times in 100, as far as these data tell ({measured}): {pairs} "
            "are too few to exclude it, or do not contradict it."
        )
    if not left_out:
        return [said]
    these = "1 sample is" if left_out == 1 else f"{left_out} samples are"
    return [
        said,
        f"{these} not counted in this: others of the same groups stay in training, by which the "
        "model may know these groups.",
    ]


def _measured(told: Mapping[str, Any]) -> str:
    shares = [told[moment]["observed"] for moment in ("after", "before")]
    now, then = ("unknown" if each is None else f"{100 * each:.1f}" for each in shares)
    return f"measured: {now}, before the job {then}"
