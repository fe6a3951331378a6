"""The events about versions that were trained elsewhere, apart from `domain.events` for its length.
The same rules hold."""

from uuid import UUID

from domain.event import Event


class VersionOffered(Event, event="version.offered", about="model"):
    """Somebody registered weights that were trained elsewhere; a job examines them."""

    registration: UUID
    job: UUID
    declared: str
    """How it was said what they were trained on: `file` or `split`."""

    accept_accuracy: bool | None = None
    accept_memory: bool | None = None


class VersionDeclared(Event, event="version.declared", about="version"):
    """A version that was trained elsewhere is served: what was declared of its training."""

    registration: UUID
    model: UUID
    number: int
    job: UUID
    declared: str
    trained_on: int
    """Samples of the dataset's training split."""

    trained_on_sha256: str
    """Of their digests under the key of the dataset, sorted and joined."""

    left_out: int
    """Samples of the training split that count as forgotten from here on."""

    requests: int
    """Deletion requests that are answered by it, since it was trained without their samples."""

    remeasured: int
    """Samples forgotten earlier whose membership was measured in it."""

    accepted: list[str] | None = None
    """What was objected to it, where that was accepted beforehand."""


class VersionFailed(Event, event="version.failed", about="model"):
    """Weights that were trained elsewhere were refused, or could not be registered."""

    registration: UUID
    job: UUID
