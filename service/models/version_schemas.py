"""What goes into and comes out of the routes of versions, those that were trained elsewhere too."""

from hashlib import sha256
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Discriminator, Tag

from domain.states import Mode, RegistrationStatus, Verdict, VersionStatus
from service.fields import In, Instant, Label, Out, Uri
from service.models.accuracy import ExpectedAccuracy


class TrainedOnFile(In):
    """A Parquet file with the ids of exactly the samples that the weights were trained on."""

    uri: Uri
    """The path or `file:` URI of the file, or of a directory of them. It must lie inside one of the
    directories in LETHE_DATA_ROOTS. It may have other columns, such as those of the training data
    itself."""

    column: Label = "sample_id"
    """The name of the column with the sample ids. An id may occur several times."""


class TrainedOnSplit(In):
    """The dataset's training split as it was at some time."""

    split_read_at: Instant
    """When the training data was read: the weights were trained on the training split as it was
    then, on all of it but the samples that were suppressed at that time, and on no other sample.
    Give the time before the first row was read. If anything was forgotten since, the registration
    fails."""


def _form(body: object) -> str | None:
    """Which of the two is meant, by its member; none where both are there, or neither."""
    forms = [form for form in ("uri", "split_read_at") if isinstance(body, dict) and form in body]
    if isinstance(body, TrainedOnFile | TrainedOnSplit):
        forms = ["uri" if isinstance(body, TrainedOnFile) else "split_read_at"]
    return forms[0] if len(forms) == 1 else None


TrainedOn = Annotated[
    Annotated[TrainedOnFile, Tag("uri")] | Annotated[TrainedOnSplit, Tag("split_read_at")],
    Discriminator(
        _form,
        custom_error_type="trained_on_form",
        custom_error_message="Give exactly one of `uri` and `split_read_at`: a file with the ids "
        "of the training samples, or when the dataset's training split was read",
    ),
]


class _Offered(In):
    weights: Uri
    """The path or `file:` URI of the weights, as for a new model. They must be of the architecture
    that the model was registered with, and fit its preprocessing and classes."""

    trained_on: TrainedOn
    """What the weights were trained on. This is your declaration: the service compares the ids with
    what is forgotten, and measures what it can; it did not see the training."""

    expected_accuracy: ExpectedAccuracy | None = None
    """The network's accuracy as you measured it, as for a new model."""

    accept_accuracy: bool = False
    """Whether to register the weights even if the coarse check of their accuracy objects, as for a
    new model."""

    accept_memory: bool = False
    """Whether to register the weights even if they can tell samples that they were declared not to
    be trained on from samples nobody was trained on. Set it only if you know the cause; the audit
    trail and the certificates will say so."""


class VersionCreate(_Offered):
    """Weights of a registered model that were trained elsewhere, to be served from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "weights": "file:///data/cifar10-cnn-2026-12.safetensors",
                    "trained_on": {"uri": "file:///data/train-2026-12.parquet", "column": "id"},
                }
            ]
        }
    )

    def fingerprint(self) -> str:
        """SHA-256 of what it means: equal for bodies that differ in form only."""
        return sha256(self.model_dump_json().encode()).hexdigest()


class DeclaredRead(Out):
    """What was declared of the training of a version, as the audit trail has it."""

    trained_on: int
    """How many samples of the dataset's training split the weights were trained on."""

    trained_on_sha256: str
    """SHA-256 of the keyed digests of their ids, sorted and joined, in hex."""

    left_out: int
    """How many samples of the training split, not forgotten before, they were trained without.
    These count as forgotten since then."""

    accepted: list[Literal["no_better_than_chance", "worse_than_holdout", "memory"]]
    """What was objected to the weights, and had been accepted beforehand."""


class FoundInVersion(DeclaredRead):
    """What the registration of a version found."""

    requests: int
    """How many deletion requests the version answered, because it was trained on none of what they
    name. Others that were open go on with this version."""

    remeasured: int
    """How many samples the model has forgotten, or was trained without, whose rows are still there,
    so that it was measured in this version whether it knows them. 0 says that nothing was."""

    memory: Verdict | None
    """What these measurements say together: `pass` if such samples cannot be told from unseen ones,
    `no_power` if the tests would not have told them in the versions that knew them either, `fail`
    if they can be told apart, which `accept_memory` allowed. Null if nothing could be compared."""


class VersionRegistrationRead(_Offered, Out):
    """Weights that were offered as a version of a model, and what came of it."""

    model_config = ConfigDict(extra="ignore")

    id: UUID
    """The registration's id, used in its URL."""

    model: str
    """The name of the model."""

    status: RegistrationStatus
    """Whether the weights are being examined (`pending`), are served (`ready`), or were refused
    (`failed`). Then the version that was served before still is."""

    job_id: UUID
    """The job that examines them; follow it at `/v1/jobs/{job_id}`."""

    version: int | None
    """The number of the version; null until they are served."""

    found: FoundInVersion | None
    """What was found; null until they are served."""

    failure: str | None
    """Why they were refused, with counts and what to do; null if they were not."""

    created_at: Instant
    """When they were offered."""

    ready_at: Instant | None
    """When they began to be served; null until then."""


class VersionRead(Out):
    """A version of a model: weights that never change."""

    number: int
    """The version's number, counted from 1 within its model."""

    status: VersionStatus
    """Whether the version is served (`champion`), awaits a person's decision (`candidate`), or is
    never served again because it holds forgotten data (`superseded`)."""

    mode: Mode
    """How the version was made: `exact` if it was trained without the samples, `approximate` if it
    was changed to forget them. Versions that were registered are `exact`: the first one, and those
    that `declared` says more of."""

    parent: int | None
    """The number of the version it was made from; null for one that was registered."""

    weights_sha256: str
    """SHA-256 of the version's safetensors file, in hex."""

    job_id: UUID
    """The job that made the version."""

    declared: DeclaredRead | None = None
    """What was declared of its training, if it was trained elsewhere and registered as a version of
    a model that there was; else null."""

    figures: dict[str, Any]
    """What was measured when the version was made, by name: accuracies, the number of features, and
    counts of samples."""

    created_at: Instant
    """When the version was stored."""

    superseded_at: Instant | None
    """When another version took its place, or a person refused it; null until then."""

    purge_after: Instant | None
    """When its files are due to be deleted, which is the policy's `grace` after it was superseded;
    null until it is superseded."""

    purged_at: Instant | None
    """When its files were deleted and the store was listed to confirm that they are gone; null
    until then."""
