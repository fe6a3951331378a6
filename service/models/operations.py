"""What can be done with models. One function, one transaction."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from domain import drift, functions, jobs, preprocessing, suppression, trail
from domain.errors import (
    FactoryRefused,
    NameTaken,
    NotReady,
    PreprocessingRefused,
    RecipeRefused,
    no_such,
)
from domain.events import ModelRegistered
from domain.locations import allowed_path
from domain.policy import Policy
from domain.states import JobKind, RegistrationStatus, VersionStatus
from domain.tables import Dataset, Job, Model, ModelVersion
from service import deletion, paging
from service.dependencies import Sessions, Settings
from service.models import beside, near_duplicates, recipes, retraining
from service.models.accuracy import found_at_registration
from service.models.schemas import (
    Drift,
    ModelCreate,
    ModelRead,
    Preprocessing,
    PythonArchitecture,
    References,
)
from service.models.version_schemas import VersionRead
from service.paging import Page, Window

Parent, Training = aliased(ModelVersion), aliased(Job)

NO_WINDOW = "PT0S"
"""How the policies of models are stored that an earlier release registered without a window."""


async def register(sessions: Sessions, wanted: ModelCreate, *, settings: Settings) -> ModelRead:
    """Store a model and the job that examines it; once, however often it is sent.

    A model whose registration failed may be defined anew under its name.

    Raises:
        LocationRefused: the weights, or the backbone's, lie outside the allowed directories.
        WeightsRefused: they are not safetensors.
        FactoryRefused: the architecture's factory is not on the allow-list.
        RecipeRefused: the recipe is not on the allow-list.
        NotFound: there is no such dataset.
        NotReady: the dataset is not indexed yet.
        PreprocessingRefused: an option does not fit the dataset's inputs, or one is missing.
        NameTaken: the name already stands for another model, or did until that was deleted.
        Deleted: the dataset was.
    """
    beside.check_weights(
        wanted.architecture.kind, allowed_path(wanted.weights, settings.data_roots)
    )
    _check_factory(wanted, settings.factories)
    _check_recipe(wanted, settings.recipes)
    if wanted.backbone is not None:
        recipes.check_backbone(allowed_path(wanted.backbone.weights, settings.data_roots))
    async with sessions.begin() as session:
        dataset = await _ready_dataset(session, wanted.dataset)
        _check_preprocessing(wanted, dataset)
        chosen = wanted.preprocessing.model_dump(mode="json", exclude_unset=True)
        values: dict[str, Any] = {
            "dataset_id": dataset.id,
            "weights_uri": wanted.weights,
            **wanted.model_dump(
                mode="json",
                include={
                    "architecture",
                    "head",
                    "recipe",
                    "backbone",
                    "policy",
                    "expected_accuracy",
                    "accept_accuracy",
                },
            ),
            "preprocessing": chosen,
            "declared": beside.declared(wanted, chosen),
        }
        inserted = await session.scalar(
            insert(Model)
            .values(name=wanted.name, **values)
            .on_conflict_do_nothing(index_elements=["name"])
            .returning(Model.id)
        )
        model = (
            await session.scalars(select(Model).filter_by(name=wanted.name).with_for_update())
        ).one()
        if not inserted:
            deletion.require_free(model)
        if not inserted and model.status is not RegistrationStatus.FAILED:
            stored = {column: getattr(model, column) for column in values}
            stored["architecture"] = _as_sent(model.architecture)
            stored["declared"] = model.declared or beside.declared_before(model.preprocessing)
            stored["preprocessing"] = stored["declared"]["preprocessing"]
            if _with_defaults(stored) != _as_before(wanted, _with_defaults(values), stored):
                raise NameTaken(
                    f"A model {wanted.name!r} with another definition exists; choose another name."
                )
            return await _one(session, wanted.name)
        if not inserted:
            for column, value in values.items():
                setattr(model, column, value)
            model.status, model.failure = RegistrationStatus.PENDING, None
            model.found = None
        model.suppressed_samples = await session.run_sync(suppression.count, dataset.id)
        trail.record(
            session, "api", model.id,
            ModelRegistered(
                name=model.name, dataset=dataset.id, suppressed_samples=model.suppressed_samples,
                accept_accuracy=model.accept_accuracy or None,
            ),
        )  # fmt: skip
        await session.run_sync(jobs.queue, JobKind.REGISTER_MODEL, actor="api", model_id=model.id)
        return await _one(session, wanted.name)


async def get(sessions: Sessions, name: str) -> ModelRead:
    """One model. Raises NotFound when there is none of this name."""
    async with sessions.begin() as session:
        return await _one(session, name)


async def find(sessions: Sessions, window: Window) -> Page[ModelRead]:
    """Models, newest first."""
    after = window.after(UUID)
    chosen = _models().order_by(Model.id.desc()).limit(window.limit + 1)
    if after is not None:
        chosen = chosen.where(Model.id < after)
    async with sessions.begin() as session:
        rows = (await session.execute(chosen)).all()
    rows, next_cursor = window.cut(rows, lambda row: row[0].id)
    return Page(items=[_read(*row) for row in rows], next_cursor=next_cursor)


async def find_versions(sessions: Sessions, name: str, window: Window) -> Page[VersionRead]:
    """Versions of a model, newest first. Raises NotFound when there is no such model."""
    after = window.after(paging.number)
    chosen = _versions(name).order_by(ModelVersion.number.desc()).limit(window.limit + 1)
    if after is not None:
        chosen = chosen.where(ModelVersion.number < after)
    async with sessions.begin() as session:
        await _one(session, name)
        rows = (await session.execute(chosen)).all()
    rows, next_cursor = window.cut(rows, lambda row: row[0].number)
    return Page(items=[_read_version(*row) for row in rows], next_cursor=next_cursor)


async def get_version(sessions: Sessions, name: str, number: int) -> VersionRead:
    """One version of a model. Raises NotFound when there is none."""
    async with sessions.begin() as session:
        found = await session.execute(_versions(name).where(ModelVersion.number == number))
        row = found.one_or_none()
    if row is None:
        raise no_such(
            f"version {number} of a model {name!r}", listed_at=f"/v1/models/{name}/versions"
        )
    return _read_version(*row)


def _check_factory(wanted: ModelCreate, allowed: list[str]) -> None:
    if isinstance(wanted.architecture, PythonArchitecture):
        factory = wanted.architecture.factory
        if not functions.is_allowed(factory, allowed):
            raise FactoryRefused(
                f"The factory {factory!r} is not on the allow-list. Ask your administrator to add "
                "it to LETHE_FACTORIES."
            )


def _check_preprocessing(wanted: ModelCreate, dataset: Dataset) -> None:
    chosen = wanted.preprocessing.model_dump(mode="json", exclude_unset=True)
    complete = isinstance(wanted.architecture, PythonArchitecture)
    problem = preprocessing.refusal(dataset.definition, dataset.report, chosen, complete=complete)
    if problem is not None:
        raise PreprocessingRefused(problem)


def _with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """The same with every option of preprocessing and policy, whether it was sent or not."""
    whole = Preprocessing.model_validate(values["preprocessing"]).model_dump(mode="json")
    declared = {**values["declared"], "preprocessing": whole}
    policy = Policy.model_validate(values["policy"]).model_dump(mode="json")
    return {**values, "preprocessing": whole, "declared": declared, "policy": policy}


def _as_before(
    wanted: ModelCreate, values: dict[str, Any], stored: dict[str, Any]
) -> dict[str, Any]:
    """What a definition meant to an earlier release: no window, if it named none."""
    was_none = stored["policy"].get("batch", {}).get("window") == NO_WINDOW
    if was_none and "window" not in wanted.policy.batch.model_fields_set:
        batch = {**values["policy"]["batch"], "window": NO_WINDOW}
        return {**values, "policy": {**values["policy"], "batch": batch}}
    return values


def _check_recipe(wanted: ModelCreate, allowed: list[str]) -> None:
    if wanted.recipe is not None and not functions.is_allowed(
        wanted.recipe, [*allowed, functions.HEAD]
    ):
        raise RecipeRefused(
            f"The recipe {wanted.recipe!r} is not on the allow-list. Ask your administrator to "
            "add it to LETHE_RECIPES."
        )


async def _ready_dataset(session: AsyncSession, name: str) -> Dataset:
    # Locked, so that it is not deleted meanwhile.
    chosen = select(Dataset).filter_by(name=name).with_for_update(read=True, key_share=True)
    dataset = await session.scalar(chosen)
    if dataset is None:
        raise no_such(f"dataset {name!r}", listed_at="/v1/datasets")
    deletion.require_there(dataset)
    if dataset.status is RegistrationStatus.PENDING:
        raise NotReady(
            f"The dataset {name!r} is still being indexed; wait until "
            f"`GET /v1/datasets/{name}` says `ready`."
        )
    if dataset.status is RegistrationStatus.FAILED:
        raise NotReady(
            f"The dataset {name!r} could not be indexed. Register it again first; "
            f"`GET /v1/datasets/{name}` says what went wrong."
        )
    return dataset


def _newest(kind: JobKind | ColumnElement[Any]) -> ScalarSelect[UUID]:
    """The newest job of this kind that the model had."""
    of_model = select(Job.id).where(Job.model_id == Model.id, Job.kind == kind)
    return of_model.order_by(Job.id.desc()).limit(1).scalar_subquery()


def _models() -> Select[Model, str, UUID, ModelVersion, int, Job]:
    """Every model with its dataset's name, newest jobs and champion."""
    is_champion = and_(
        ModelVersion.model_id == Model.id, ModelVersion.status == VersionStatus.CHAMPION
    )
    return (
        select(
            Model,
            Dataset.name,
            _newest(deletion.kind_of_job(Model, JobKind.REGISTER_MODEL)),
            ModelVersion,
            Parent.number,
            Training,
        )
        .join(Dataset, Dataset.id == Model.dataset_id)
        .outerjoin(ModelVersion, is_champion)
        .outerjoin(Parent, Parent.id == ModelVersion.parent_id)
        .outerjoin(Training, Training.id == _newest(JobKind.TRAIN_REFERENCES))
    )


def _versions(name: str) -> Select[ModelVersion, int]:
    """The versions of a model, each with the number of its parent."""
    return (
        select(ModelVersion, Parent.number)
        .join(Model, Model.id == ModelVersion.model_id)
        .outerjoin(Parent, Parent.id == ModelVersion.parent_id)
        .where(Model.name == name)
    )


async def _one(session: AsyncSession, name: str) -> ModelRead:
    row = (await session.execute(_models().where(Model.name == name))).one_or_none()
    if row is None:
        raise no_such(f"model {name!r}", listed_at="/v1/models")
    return _read(*row)


def _read(
    model: Model,
    dataset: str,
    job_id: UUID,
    champion: ModelVersion | None,
    parent: int | None,
    training: Job | None,
) -> ModelRead:
    return ModelRead.model_validate(
        {
            "id": model.id,
            "name": model.name,
            "dataset": dataset,
            "dataset_state": model.state,
            "weights": model.weights_uri,
            "architecture": _as_sent(model.architecture),
            "head": model.head,
            "preprocessing": beside.options(model.preprocessing),
            **beside.answer(model),
            "recipe": model.recipe,
            "backbone": recipes.backbone(model.backbone, champion),
            "policy": model.policy,
            "expected_accuracy": model.expected_accuracy,
            "accept_accuracy": model.accept_accuracy,
            "accuracy": found_at_registration(champion),
            "suppressed_samples": model.suppressed_samples,
            "warning": _warning(model, dataset),
            "status": model.status,
            "failure": model.failure,
            "job_id": job_id,
            "champion": _read_version(champion, parent) if champion else None,
            "drift": _read_drift(model, champion) if champion else None,
            "references": _read_references(model, training),
            "retraining": retraining.read(model),
            "near_duplicates": near_duplicates.read(model),
            "created_at": model.created_at,
            "ready_at": model.ready_at,
            "deleted_at": model.deleted_at,
            "purged_at": model.purged_at,
        }
    )


def _warning(model: Model, dataset: str) -> str | None:
    """What whoever registers a model should know of the samples it may have been trained on."""
    if not model.suppressed_samples:
        return None
    return (
        f"Other models had already forgotten {model.suppressed_samples} samples of the dataset "
        f"{dataset!r} when this one was registered. `POST /v1/datasets/{dataset}/check` tells you "
        "which of your training samples are among them. If this model was trained on any, submit a "
        "deletion request for them."
    )


def _as_sent(architecture: dict[str, Any]) -> dict[str, Any]:
    """The architecture without what registration added: the config that it read beside the weights,
    and the names of the dataset's inputs."""
    added = ("config", "inputs")
    return {name: value for name, value in architecture.items() if name not in added}


def _read_drift(model: Model, champion: ModelVersion) -> Drift:
    limits = Policy.model_validate(model.policy).drift
    known = drift.of_version(champion.number, champion.figures)
    return Drift(
        since_version=known.since_version,
        forgotten_share=known.forgotten_share,
        accuracy_change=known.accuracy_change,
        limits=limits,
        exceeded=known.exceeds(limits),
    )


def _read_references(model: Model, training: Job | None) -> References | None:
    """How far the reference models are, by the newest job that trains them."""
    count = Policy.model_validate(model.policy).reference_models
    if not count:
        return None
    read = References(models=count, status=RegistrationStatus.PENDING)
    if training is None:
        return read
    if training.failure is not None:
        read.status, read.failure = RegistrationStatus.FAILED, training.failure["reason"]
    elif training.started_at and training.finished_at:
        read.status, read.completed_at = RegistrationStatus.READY, training.finished_at
        read.seconds = (training.finished_at - training.started_at).total_seconds()
    return read


def _read_version(version: ModelVersion, parent: int | None) -> VersionRead:
    return VersionRead(
        number=version.number,
        status=version.status,
        mode=version.mode,
        parent=parent,
        weights_sha256=version.weights_sha256,
        job_id=version.job_id,
        declared=version.figures.get("declared"),
        figures=version.figures,
        created_at=version.created_at,
        superseded_at=version.superseded_at,
        purge_after=version.purge_after,
        purged_at=version.purged_at,
    )
