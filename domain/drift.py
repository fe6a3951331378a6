"""How far a model's champion is from its last training; kept with each version, in its figures.

Every approximate version adds to it, an exact one starts anew.
"""

from dataclasses import asdict, dataclass
from typing import Any

from domain.policy import DriftLimits


@dataclass(frozen=True, slots=True)
class Drift:
    """What was forgotten, and what that cost, since a version that was trained."""

    since_version: int
    trained_on: int
    """Samples of that training."""

    forgotten: int
    accuracy_change: float
    """Of the test accuracy, in [-1, 1]: negative when it fell."""

    @property
    def forgotten_share(self) -> float:
        return self.forgotten / self.trained_on if self.trained_on else 0.0

    def further(self, *, forgotten: int, accuracy_change: float = 0.0) -> "Drift":
        """Where another approximate version leads."""
        return Drift(
            self.since_version,
            self.trained_on,
            self.forgotten + forgotten,
            self.accuracy_change + accuracy_change,
        )

    def exceeds(self, limits: DriftLimits) -> bool:
        return (
            self.forgotten_share > limits.max_forgotten_share
            or -self.accuracy_change > limits.max_accuracy_drop
        )

    def to_figures(self) -> dict[str, Any]:
        return asdict(self)


def of_version(number: int, figures: dict[str, Any]) -> Drift:
    """That of a version; none for one that was registered."""
    if "drift" in figures:
        return Drift(**figures["drift"])
    trained_on = (figures.get("samples") or {}).get("train", 0)
    return Drift(since_version=number, trained_on=trained_on, forgotten=0, accuracy_change=0.0)
