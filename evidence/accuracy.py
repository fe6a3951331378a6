"""What a job did to a model's accuracy, over all classes and for each of them.

Pure: the figures of a job's two evaluations go in, JSON comes out, for answers and certificates.
Classes are told by their numbers: the name of a class may be that of a person.
"""

from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, Any]
"""As `worker.unlearning.evaluation` measures them."""


def report(before: Figures | None, after: Figures | None) -> dict[str, Any] | None:
    """What was measured before and after a job, on samples that the model was never trained on.

    None where something was not measured: by releases before this one, or while the job runs.
    """
    if before is None or after is None:
        return None
    old, new = before.get("every_class"), after.get("every_class")
    if old is None or new is None:
        return None
    rows = zip(new["samples"], old["right"], new["right"], strict=True)
    samples = sum(new["samples"])
    return {
        "measured_on": new["measured_on"],
        "samples": samples,
        "before": _share(sum(old["right"]), samples),
        "after": _share(sum(new["right"]), samples),
        "classes": [
            {"label": label, "samples": of, "before": _share(was, of), "after": _share(now, of)}
            for label, (of, was, now) in enumerate(rows)
        ],
        "lost_classes": after["lost_classes"],
    }


def _share(right: int, samples: int) -> float | None:
    return right / samples if samples else None
