"""What is said of subjects whom a request named: in answers, and in certificates.

They are people, accounts or households. Nothing here knows who they are: only how many were named,
and what the index of a dataset had of them when the request was received.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.events import RequestReceived
from domain.tables import AuditEvent
from domain.trail import instant

LINE = "Subjects:"
"""How the paragraph about them begins."""

NOT_ALL_OF_THEM = (
    "That the samples found are all that there are of a person: each subject was looked up as it "
    "was given, and another spelling is another subject. Samples without a group, other datasets "
    "and models that are not registered were not looked at."
)
NOT_NEVER = (
    "That no data of a person who was not found was ever used: the index has what was in the "
    "dataset's files when they were read, without what had been taken out of them before, or after "
    "an earlier request."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedUp:
    """What the audit trail says of the subjects of a request."""

    named: int
    unknown: int
    """How many of them had no sample."""

    samples: int
    dataset: str
    indexed_at: str | None
    """When the dataset's files had been read; RFC 3339."""

    at: datetime
    """When they were looked up."""

    def said(self) -> dict[str, Any]:
        """As a certificate has it."""
        return {
            "named": self.named,
            "unknown": self.unknown,
            "samples": self.samples,
            "dataset": self.dataset,
            "indexed_at": self.indexed_at,
            "looked_up_at": instant(self.at),
        }


def told(request_id: UUID, events: Iterable[AuditEvent]) -> LookedUp | None:
    """What the events about a request say of its subjects; None where it named none."""
    received = next(
        event
        for event in events
        if (event.subject_id, event.event) == (request_id, RequestReceived.event)
    )
    data = received.data
    if data.get("subjects") is None:
        return None
    return LookedUp(
        named=data["subjects"],
        unknown=data["unknown_subjects"],
        samples=data["subject_samples"],
        dataset=data["dataset"],
        indexed_at=data["indexed_at"],
        at=received.at,
    )


def meaning(*, unknown: int, named: int, dataset: str) -> str | None:
    """What it means for a request that some of its subjects were not found; None if all were."""
    if not unknown:
        return None
    return (
        f"No data of {unknown} of the {named} subjects was found in the index of dataset "
        f"{dataset}. As far as the index says, models of this dataset were not trained on any. "
        "Another spelling, other datasets and what was taken out of the dataset's files before "
        "were not looked at."
    )


def statement(looked_up: LookedUp, *, outside_training: bool = False) -> str:
    """The paragraph of a certificate, which stands before those about models.

    Args:
        outside_training: whether no model was trained on any of the samples that were named.
    """
    indexed = f", as it was indexed at {looked_up.indexed_at}" if looked_up.indexed_at else ""
    said = [
        f"{LINE} {looked_up.named} named, and looked up by keyed digests at "
        f"{instant(looked_up.at)} in the index of dataset {looked_up.dataset}{indexed}.",
        f"Samples found: {looked_up.samples}.",
    ]
    if outside_training:
        said.append(
            "All samples named are outside the training split: no model was trained on any."
        )
    if looked_up.unknown:
        said.append(
            f"No data was found there of {looked_up.unknown} of them. The models below are models "
            "of that dataset: as far as its index says, no data of these persons was used to train "
            "them. An earlier request may have taken their rows out of it."
        )
    return " ".join(said)


def not_proven(looked_up: LookedUp) -> list[str]:
    """What a certificate does not prove because subjects were named."""
    return [NOT_ALL_OF_THEM, *([NOT_NEVER] if looked_up.unknown else [])]
