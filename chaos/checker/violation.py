"""A broken rule."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """What is wrong, and where."""

    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


LOST = frozenset(
    {
        "request_lost", "request_open", "request_failed", "target_missing",
        "offer_lost", "offer_open", "offer_refused",
    }
)  # fmt: skip
"""Rules whose violation means that what was accepted was not carried out."""

DOUBLED = frozenset({"request_doubled", "sample_doubled", "version_doubled", "offer_doubled"})
"""Rules whose violation means that something was done twice."""
