"""What goes into and comes out of the routes of a dataset's states."""

from hashlib import sha256
from uuid import UUID

from pydantic import ConfigDict

from domain.states import RegistrationStatus
from service.fields import In, Instant, Out, Uri


class StateCreate(In):
    """Another state of a dataset: what its files are now."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"uri": "file:///data/cifar10-2026-12"}]}
    )

    uri: Uri | None = None
    """Where the files of this state are, as for a new dataset; null if they replaced those that
    were indexed. They are read with the columns, splits and options that the dataset was registered
    with. Another place is better: jobs can go on with the files of the state before until this one
    is indexed."""

    refuse_suppressed: bool = False
    """Whether to refuse the state if samples come back in it that may not be trained on. Otherwise
    they are counted."""

    def fingerprint(self) -> str:
        """SHA-256 of what it means: equal for bodies that differ in form only."""
        return sha256(self.model_dump_json().encode()).hexdigest()


class StateFound(Out):
    """What is different in a state of a dataset. Samples are told apart by their ids, and compared
    by keyed digests of what they consist of."""

    added: int
    """How many samples came."""

    removed: int
    """How many samples are gone."""

    changed: int
    """How many samples have another input, label or split."""

    unchanged: int
    """How many samples are as they were. Nothing was stored of them again."""

    unknown: int
    """How many samples an older release indexed, without digests of their inputs. They count as
    unchanged if label and split are the same."""

    regrouped: int
    """How many samples are in another group, such as after a group was renamed or two were merged.
    What the file says holds."""

    suppressed_returned: int
    """How many of the added samples may not be trained on, because a model of the dataset has
    forgotten them."""

    suppressed_still_there: int
    """How many other samples may not be trained on."""

    still_known: dict[str, int]
    """By the name of each model that knows some: how many samples it was trained on that are gone,
    or were another, and that it has not forgotten. A request for them waits for a version of the
    model that was trained on this state."""


class StateRead(Out):
    """A state of a dataset that was registered after the first one."""

    id: UUID
    """The state's id, used in its URL."""

    dataset: str
    """The name of the dataset."""

    status: RegistrationStatus
    """Whether it is being read (`pending`), is or was the one that is indexed (`ready`), or could
    not be indexed (`failed`). Then the state before still is."""

    job_id: UUID
    """The job that reads it; follow it at `/v1/jobs/{job_id}`."""

    uri: str
    """Where its files are."""

    refuse_suppressed: bool
    """Whether it was to be refused if samples came back that may not be trained on."""

    number: int | None
    """The number of the state, from 2; the first one was registered with the dataset. Null until it
    is `ready`."""

    found: StateFound | None
    """What is different in it; null until it is `ready`."""

    failure: str | None
    """Why it could not be indexed; null if it could."""

    created_at: Instant
    """When it was registered."""

    ready_at: Instant | None
    """When it was indexed; null until then."""
