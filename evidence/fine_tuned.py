"""What became of the forgotten samples when a copy of the new version was trained further.

Pure: figures go in, JSON comes out, for answers and certificates.
"""

from collections.abc import Mapping
from typing import Any

MEMBERS = ("steps", "samples", "membership_auc_before", "membership_auc_after")


def report(after: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a job's last evaluation says of it; None where it was not measured."""
    told = (after or {}).get("fine_tuned")
    return None if told is None else {name: told[name] for name in MEMBERS}


def remarks(told: Mapping[str, Any]) -> list[str]:
    """What this means, in sentences.

    Args:
        told: as `report` makes it.
    """
    before, after = told["membership_auc_before"], told["membership_auc_after"]
    copy = f"A copy of it was trained for {told['steps']} more steps on samples that stay"
    if before is None or after is None:
        return [f"{copy}; membership could not be measured on it."]
    return [
        f"{copy}, and thrown away: the membership AUC went from {100 * before:.1f} to "
        f"{100 * after:.1f} (50 is chance). In a model that never saw the samples it hardly moves; "
        "in one that only hides them it rises."
    ]
