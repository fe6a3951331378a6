"""The routes of models and their versions."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

from lethe.calls import Call, Listed, members
from lethe.routes.building import delete, get, next_page, pages, post
from lethe.routing import listing, route
from lethe.schemas.backbones import Backbone
from lethe.schemas.common import Page, Settings
from lethe.schemas.models import (
    ExpectedAccuracy,
    Lineage,
    Model,
    Policy,
    Preprocessing,
    Preview,
    PythonArchitecture,
    TransformersArchitecture,
)
from lethe.schemas.pooled_audit import PooledAudit
from lethe.schemas.registrations import TrainedOnFile, TrainedOnSplit, VersionRegistration
from lethe.schemas.versions import Version


class Models:
    """Neural networks, their versions, and what was made from their data."""

    @route
    def register_model(
        self,
        name: str,
        *,
        dataset: str,
        weights: str,
        architecture: PythonArchitecture | TransformersArchitecture | Settings,
        head: str,
        preprocessing: Preprocessing | Settings | None = None,
        preprocessing_source: str | None = None,
        classes: Sequence[str] | None = None,
        map_classes: bool | None = None,
        recipe: str | None = None,
        backbone: Backbone | Settings | None = None,
        policy: Policy | Settings | None = None,
        expected_accuracy: ExpectedAccuracy | Settings | None = None,
        accept_accuracy: bool | None = None,
    ) -> Call[Model]:
        """Register a trained classifier. A job examines it: `wait` until it is `ready`.

        The same definition sent again gets the same answer. When the registration has failed, send
        it again, mended, under the same name.

        Args:
            dataset: what it was trained on.
            weights: URI of a `.safetensors` file, where the service may read; for Transformers of
                the directory with `model.safetensors`.
            head: name of the module whose input are the features: the classification head.
            preprocessing: what is left out is read from the files beside the weights.
            preprocessing_source: `declared` if those files are wrong, so that they are not read.
            classes: names of the outputs in their order, where `config.json` does not say them.
            map_classes: translate the dataset's labels where it has these names in another order.
            recipe: `package.module:function` that trains the network again; without one the model
                cannot be retrained.
            backbone: for the recipe `worker.recipes:head`: the public network that the head was
                trained on. Jobs then fit nothing but the head, exactly and in seconds.
            policy: only what is set is sent; for the rest the service's defaults hold.
            expected_accuracy: what you measured, of training samples, hold-out or both; the
                registration fails if it measures something else.
            accept_accuracy: register it even if it answers as no trained network does. Every
                certificate of the model will say so.
        """
        body = {
            "name": name,
            "dataset": dataset,
            "weights": weights,
            "architecture": _with_kind(architecture),
            "head": head,
            "preprocessing": members(preprocessing),
            "preprocessing_source": preprocessing_source,
            "classes": None if classes is None else list(classes),
            "map_classes": map_classes,
            "recipe": recipe,
            "backbone": members(backbone),
            "policy": members(policy),
            "expected_accuracy": members(expected_accuracy),
            "accept_accuracy": accept_accuracy,
        }
        return post("/v1/models", Model, body, harmless=True)

    @listing
    def list_models(self) -> Listed[Page[Model], Model]:
        """All models, newest first."""
        return pages("/v1/models", Page[Model])

    @route
    def read_model(self, name: str) -> Call[Model]:
        """One model: its status, and the version to serve."""
        return get("/v1/models/{name}", Model, name=name)

    @route
    def delete_model(self, name: str) -> Call[Model]:
        """Delete a model with all its versions; refused while a request or a job needs it. `wait`
        until everything is purged. Its name stays taken."""
        return delete("/v1/models/{name}", Model, name=name)

    @route
    def read_preview(self, name: str) -> Call[Preview]:
        """Ten samples as the champion's network gets them, and its answers. The audit trail notes
        that you looked."""
        return get("/v1/models/{name}/preview", Preview, name=name)

    @route
    def read_preview_picture(self, name: str) -> Call[bytes]:
        """The same as a picture in PNG, for models that take images."""
        return Call(
            method="GET",
            path="/v1/models/{name}/preview",
            reads=bytes,
            places={"name": name},
            accept="image/png",
        )

    @route
    def register_version(
        self,
        name: str,
        *,
        weights: str,
        trained_on: TrainedOnFile | TrainedOnSplit | Settings,
        expected_accuracy: ExpectedAccuracy | Settings | None = None,
        accept_accuracy: bool | None = None,
        accept_memory: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Call[VersionRegistration]:
        """Register weights of the same architecture that you trained elsewhere, to be served from
        now on. A job examines them: `wait` until they are `ready`.

        Weights that were trained on what is forgotten are refused; `failure` says what to do.

        Args:
            weights: URI, as for a new model.
            trained_on: a file with the ids of the training samples, or when the dataset's training
                split was read. It is your declaration, and certificates will call it so.
            expected_accuracy: as for a new model.
            accept_accuracy: as for a new model.
            accept_memory: even if they can tell what they were declared not to be trained on.
            idempotency_key: names this registration, so that sending it again changes nothing. A
                new one unless given.
        """
        body = {
            "weights": weights,
            "trained_on": _plain(trained_on),
            "expected_accuracy": members(expected_accuracy),
            "accept_accuracy": accept_accuracy,
            "accept_memory": accept_memory,
        }
        call = post("/v1/models/{name}/versions", VersionRegistration, body, name=name)
        return replace(call, idempotency_key=idempotency_key or str(uuid4()))

    @route
    def read_registration(
        self, name: str, registration_id: UUID | str
    ) -> Call[VersionRegistration]:
        """What became of weights that were registered as a version: served, or why not."""
        path = "/v1/models/{name}/registrations/{registration_id}"
        return get(path, VersionRegistration, name=name, registration_id=registration_id)

    @listing
    def list_versions(self, name: str) -> Listed[Page[Version], Version]:
        """The versions of a model, newest first."""
        return pages("/v1/models/{name}/versions", Page[Version], name=name)

    @route
    def read_version(self, name: str, number: int) -> Call[Version]:
        """One version of a model: the digest of its weights, and whether it may be served."""
        path = "/v1/models/{name}/versions/{number}"
        return get(path, Version, name=name, number=number)

    @listing
    def read_lineage(self, name: str) -> Listed[Lineage, Lineage]:
        """Everything that was made from the model's data, page by page."""
        first = get("/v1/models/{name}/lineage", Lineage, {"limit": 200}, name=name)
        return Listed(first, lambda page: [page], next_page)

    @route
    def read_pooled_audit(self, name: str) -> Call[PooledAudit]:
        """What the samples that the model has forgotten lately say together."""
        return get("/v1/models/{name}/pooled-audit", PooledAudit, name=name)


def _plain(trained_on: TrainedOnFile | TrainedOnSplit | Settings) -> dict[str, object] | None:
    """As it is sent: a file with its column, though that has a default here too."""
    if isinstance(trained_on, TrainedOnFile | TrainedOnSplit):
        return trained_on.model_dump(mode="json")
    return members(trained_on)


def _with_kind(
    architecture: PythonArchitecture | TransformersArchitecture | Settings,
) -> dict[str, object] | None:
    """An architecture with its `kind`, which is a default here and a must for the service."""
    if isinstance(architecture, PythonArchitecture | TransformersArchitecture):
        return {"kind": architecture.kind, **(members(architecture) or {})}
    return members(architecture)
