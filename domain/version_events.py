"""The events about versions that were trained elsewhere, backbones, and what is deleted, apart from
`domain.events` for its length. The same rules hold."""

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


class ModelDeleted(Event, event="model.deleted", about="model"):
    """Somebody deleted the model: none of its versions is served any more, and all are purged."""

    job: UUID
    versions: int
    by: str


class ModelPurged(Event, event="model.purged", about="model"):
    """All that was stored of a deleted model is gone, but for the evidence."""

    job: UUID
    versions: int
    """Whose files are gone, those that were purged before included."""

    rows: dict[str, int]
    """Deleted from each table that held samples' ids or what was learned from samples."""


class DatasetDeleted(Event, event="dataset.deleted", about="dataset"):
    """Somebody deleted the dataset: its index is purged. Its files are not Lethe's to delete."""

    job: UUID
    by: str


class DatasetPurged(Event, event="dataset.purged", about="dataset"):
    """The index of a deleted dataset is gone."""

    job: UUID
    samples: int
    left: int


class DatasetStateOffered(Event, event="dataset.state_registered", about="dataset"):
    """Somebody registered another state of the dataset; a job reads it."""

    state: UUID
    job: UUID


class DatasetStateIndexed(Event, event="dataset.state_indexed", about="dataset"):
    """Another state of the dataset is the one that is indexed."""

    job: UUID
    state: int
    added: int
    removed: int
    changed: int
    """Samples whose input, label or split is another one."""

    unchanged: int
    regrouped: int
    suppressed_returned: int
    """Samples that came back though they may not be trained on."""

    still_known: int
    """Samples that are gone, or were another, and that models still know: one for each model."""


class DatasetStateFailed(Event, event="dataset.state_failed", about="dataset"):
    """Another state of the dataset could not be indexed; the one before still is."""

    state: UUID
    job: UUID


class BackboneChecked(Event, event="backbone.checked", about="model"):
    """All tensors but the head's are, to the last bit, those of a public network. That this network
    was not trained on the dataset is what whoever registered the model declared."""

    job: UUID
    source: str
    sha256: list[str]
    """Of its files."""

    tensors: int
    trained_on_dataset: bool
