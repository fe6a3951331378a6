"""What an unlearning job did to the model's accuracy, as jobs and requests tell it."""

from typing import Literal, Self

from domain.tables import Evaluation
from evidence import accuracy, wording
from service.fields import Out


class ClassAccuracy(Out):
    """The accuracy on the samples of one class, which the model was never trained on."""

    label: int
    """The class, by its label as the model numbers classes."""

    samples: int
    """How many samples of the class were measured."""

    before: float | None
    """The share that the base version answered correctly, from 0 to 1; null if there were none."""

    after: float | None
    """The share that the new version answers correctly, from 0 to 1; null if there were none."""


class AccuracyChange(Out):
    """The accuracy before and after a job, over all classes: also over those of which it left no
    training sample, while `test_accuracy` elsewhere is about the classes that stay."""

    measured_on: Literal["test", "holdout"]
    """What was measured: test samples, or hold-out samples where there are none."""

    samples: int
    """How many samples were measured."""

    before: float | None
    """The share that the base version answered correctly, from 0 to 1; null if there were none."""

    after: float | None
    """The share that the new version answers correctly, from 0 to 1; null if there were none."""

    classes: list[ClassAccuracy]
    """The accuracy on each class, by label. A deletion request shows at most 100 classes: those
    that lost all of their training samples, and those whose accuracy fell most; its job shows
    all."""

    lost_classes: list[int]
    """The labels of the classes that lost all of their training samples with the job."""

    remarks: list[str]
    """What this means, in sentences, as certificates say it."""

    @classmethod
    def of(
        cls, before: Evaluation | None, after: Evaluation | None, *, most: int | None = None
    ) -> Self | None:
        """What two evaluations of a job tell; None where they do not.

        Args:
            most: how many classes are shown.
        """
        report = accuracy.report(
            before.figures if before else None, after.figures if after else None
        )
        if report is None:
            return None
        lost = set(report["lost_classes"])

        def gravity(row: dict[str, float | None]) -> tuple[bool, float]:
            fall = (row["before"] or 0.0) - (row["after"] or 0.0)
            return row["label"] in lost, fall

        shown = sorted(report["classes"], key=gravity, reverse=True)[:most]
        shown.sort(key=lambda row: int(row["label"]))
        return cls.model_validate(
            {**report, "classes": shown, "remarks": wording.accuracy_remarks(report)}
        )
