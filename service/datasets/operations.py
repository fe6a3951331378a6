"""What can be done with datasets. One function, one transaction."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from domain import jobs, suppression, trail
from domain.errors import NameTaken, NotFound, TooManySamples, no_such
from domain.events import DatasetRegistered
from domain.locations import allowed_path
from domain.states import JobKind, RegistrationStatus
from domain.tables import Dataset, DatasetCheck, Job
from service import deletion
from service.datasets.schemas import (
    Checked,
    CheckFile,
    CheckRead,
    DatasetCreate,
    DatasetRead,
)
from service.dependencies import Sessions
from service.fields import Failure
from service.paging import Page, Window


async def register(
    sessions: Sessions, wanted: DatasetCreate, *, data_roots: Sequence[Path]
) -> DatasetRead:
    """Store a dataset and the job that indexes it; once, however often it is sent.

    A dataset whose registration failed may be defined anew under its name.

    Raises:
        LocationRefused: the URI lies outside the allowed directories.
        NameTaken: the name already stands for another dataset.
    """
    allowed_path(wanted.uri, data_roots)
    values = {"uri": wanted.uri, "definition": wanted.definition()}
    async with sessions.begin() as session:
        inserted = await session.scalar(
            insert(Dataset)
            .values(name=wanted.name, **values)
            .on_conflict_do_nothing(index_elements=["name"])
            .returning(Dataset.id)
        )
        dataset = (
            await session.scalars(select(Dataset).filter_by(name=wanted.name).with_for_update())
        ).one()
        if not inserted:
            deletion.require_free(dataset)
        if not inserted and dataset.status is not RegistrationStatus.FAILED:
            if (dataset.uri, dataset.definition) != (values["uri"], values["definition"]):
                raise NameTaken(
                    f"A dataset {wanted.name!r} with another definition exists; choose another "
                    "name."
                )
            return await _one(session, wanted.name)
        if not inserted:
            dataset.uri, dataset.definition = wanted.uri, wanted.definition()
            dataset.status, dataset.failure = RegistrationStatus.PENDING, None
            dataset.report = None
        trail.record(session, "api", dataset.id, DatasetRegistered(name=wanted.name))
        await session.run_sync(
            jobs.queue, JobKind.INDEX_DATASET, actor="api", dataset_id=dataset.id
        )
        return await _one(session, wanted.name)


async def get(sessions: Sessions, name: str) -> DatasetRead:
    """One dataset. Raises NotFound when there is none of this name."""
    async with sessions.begin() as session:
        return await _one(session, name)


async def check(sessions: Sessions, name: str, sample_ids: Sequence[str], *, limit: int) -> Checked:
    """Which of these samples may not be trained on again.

    Raises:
        TooManySamples: more are named than may be.
        NotFound: there is no such dataset.
    """
    if len(sample_ids) > limit:
        raise TooManySamples(
            f"The request names {len(sample_ids)} ids, and {limit} are allowed at once. Split it "
            "into several requests."
        )
    ids = list(dict.fromkeys(sample_ids))
    async with sessions.begin() as session:
        gone = await session.run_sync(suppression.suppressed, name, ids)
    return Checked(checked=len(ids), suppressed=[each for each in ids if each in gone])


async def check_file(
    sessions: Sessions, name: str, wanted: CheckFile, *, data_roots: Sequence[Path]
) -> CheckRead:
    """Store the question which rows of a file may not be trained on, and the job that answers it.

    Raises:
        LocationRefused: the URI lies outside the allowed directories.
        NotFound: there is no such dataset.
    """
    allowed_path(wanted.uri, data_roots)
    async with sessions.begin() as session:
        dataset_id = await session.scalar(select(Dataset.id).filter_by(name=name))
        if dataset_id is None:
            raise no_such(f"dataset {name!r}", listed_at="/v1/datasets")
        job = await session.run_sync(
            jobs.queue, JobKind.CHECK_DATASET, actor="api", dataset_id=dataset_id
        )
        check = DatasetCheck(
            dataset_id=dataset_id, job_id=job.id, uri=wanted.uri, column=wanted.column
        )
        session.add(check)
        await session.flush()
    return _read_check(name, check, job)


async def get_check(sessions: Sessions, name: str, check_id: UUID) -> CheckRead:
    """One check of a file. Raises NotFound when the dataset has none with this id."""
    chosen = (
        select(DatasetCheck, Job)
        .join(Job, Job.id == DatasetCheck.job_id)
        .join(Dataset, Dataset.id == DatasetCheck.dataset_id)
        .where(DatasetCheck.id == check_id, Dataset.name == name)
    )
    async with sessions.begin() as session:
        row = (await session.execute(chosen)).one_or_none()
    if row is None:
        raise NotFound(
            f"The dataset {name!r} has no check {check_id}. Start one with "
            f"`POST /v1/datasets/{name}/check`."
        )
    return _read_check(name, *row)


async def find(sessions: Sessions, window: Window) -> Page[DatasetRead]:
    """Datasets, newest first."""
    after = window.after(UUID)
    chosen = _datasets().order_by(Dataset.id.desc()).limit(window.limit + 1)
    if after is not None:
        chosen = chosen.where(Dataset.id < after)
    async with sessions.begin() as session:
        rows = (await session.execute(chosen)).all()
    rows, next_cursor = window.cut(rows, lambda row: row[0].id)
    return Page(items=[_read(*row) for row in rows], next_cursor=next_cursor)


def _datasets() -> Select[Dataset, UUID]:
    """Every dataset with the newest job that indexes it."""
    newest_job = (
        select(Job.id)
        .where(
            Job.dataset_id == Dataset.id,
            Job.kind == deletion.kind_of_job(Dataset, JobKind.INDEX_DATASET),
        )
        .order_by(Job.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return select(Dataset, newest_job)


async def _one(session: AsyncSession, name: str) -> DatasetRead:
    row = (await session.execute(_datasets().where(Dataset.name == name))).one_or_none()
    if row is None:
        raise no_such(f"dataset {name!r}", listed_at="/v1/datasets")
    return _read(*row)


def _read(dataset: Dataset, job_id: UUID) -> DatasetRead:
    columns: dict[str, Any] = {
        "id": dataset.id,
        "name": dataset.name,
        "uri": dataset.uri,
        "status": dataset.status,
        "state": dataset.state,
        "report": dataset.report,
        "failure": dataset.failure,
        "job_id": job_id,
        "created_at": dataset.created_at,
        "ready_at": dataset.ready_at,
        "deleted_at": dataset.deleted_at,
        "purged_at": dataset.purged_at,
    }
    return DatasetRead.model_validate({**dataset.definition, **columns, **_classes(dataset)})


def _classes(dataset: Dataset) -> dict[str, Any]:
    """The names of the classes, and where they are from; what was found once it was indexed."""
    declared = dataset.definition.get("classes")
    if declared is not None:
        return {"classes": declared, "classes_source": "declared"}
    found = (dataset.report or {}).get("class_names")
    return {"classes": found, "classes_source": "huggingface" if found else None}


def _read_check(dataset: str, check: DatasetCheck, job: Job) -> CheckRead:
    return CheckRead(
        id=check.id,
        dataset=dataset,
        status=job.status,
        job_id=job.id,
        uri=check.uri,
        column=check.column,
        rows=check.rows,
        suppressed=check.suppressed,
        positions=check.positions,
        failure=Failure.model_validate(job.failure) if job.failure else None,
        created_at=check.created_at,
    )
