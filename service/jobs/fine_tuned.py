"""What further training of a copy brought back, as jobs tell it."""

from typing import Self

from domain.tables import Evaluation
from evidence import fine_tuned
from service.fields import Out


class FineTunedRead(Out):
    """Membership, before and after a copy of the new version was trained further on retain samples.

    No verdict hangs on it. The copy was thrown away.
    """

    steps: int
    """How many steps the copy was trained for: the policy's `fine_tuned_steps`."""

    samples: int
    """How many different retain samples were used at most."""

    membership_auc_before: float | None
    """The chance that a forgotten sample has a lower loss than a hold-out sample, under the new
    version; 0.5 means indistinguishable. Null where the hold-out has no samples of these
    classes."""

    membership_auc_after: float | None
    """That chance under the copy. In a model that never saw the samples it hardly moves; in one
    that only hides them it rises. Null where the copy could not be trained."""

    remarks: list[str]
    """What this means, in sentences, as certificates say it."""

    @classmethod
    def of(cls, after: Evaluation | None) -> Self | None:
        """What the last evaluation of a job tells; None where it does not."""
        report = fine_tuned.report(after.figures if after else None)
        if report is None:
            return None
        return cls.model_validate({**report, "remarks": fine_tuned.remarks(report)})
