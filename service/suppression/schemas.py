"""What goes into and comes out of the routes of suppressions."""

from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, FailFast, Field

from service.fields import STORABLE, In, Instant, Out, SampleId


class LiftCreate(In):
    """Samples that may be trained on again, who answers for that, and why."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sample_ids": ["img-00017"],
                    "reason": "Consent given anew on 12 March, ticket 4711.",
                    "authorised_by": "Data protection officer",
                }
            ]
        }
    )

    sample_ids: Annotated[list[SampleId], Field(min_length=1), FailFast()]
    """The ids of the samples, which need not be in the dataset any more. At most 100,000 unless the
    service is configured otherwise."""

    reason: Annotated[str, Field(pattern=STORABLE, min_length=1, max_length=4096)]
    """Why they may be trained on again, such as where the new consent is recorded. It is stored and
    never logged."""

    authorised_by: Annotated[str, Field(pattern=STORABLE, min_length=1, max_length=255)]
    """The person who answers for it. It is stored and never logged."""


class LiftRead(Out):
    """A decision that samples may be trained on again."""

    id: UUID
    """The id under which the audit trail mentions it."""

    dataset: str
    """Name of the dataset."""

    samples: int
    """How many samples it lifted the suppression of."""

    still_lifted: int
    """How many of them may still be trained on: a new deletion request suppresses a sample
    again."""

    reason: str
    """Why the samples may be trained on again."""

    authorised_by: str
    """The person who answers for it."""

    lifted_by: str
    """Who sent it; `admin` for whoever holds the key of this installation."""

    lifted_at: Instant
    """When it was stored."""


class Lifted(Out):
    """What came of a wish to lift suppressions."""

    lift: LiftRead | None
    """What was stored; null if there was nothing to lift."""

    already_lifted: list[str]
    """The ids whose suppression had been lifted before. They are in the order in which they were
    sent."""

    not_suppressed: list[str]
    """The ids that no model of the dataset has forgotten, so that nothing suppresses them. Unknown
    ids are among them."""
