"""What can be done with estimates. One function, one transaction."""

from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    String,
    TableValuedAlias,
    Uuid,
    func,
    insert,
    literal,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from domain import jobs
from domain.errors import NotFound
from domain.states import OPEN_JOBS, JobKind, JobStatus
from domain.tables import Dataset, Estimate, EstimateSample, EstimateTarget, Job, Model
from service.deletion_requests import operations as requests
from service.deletion_requests import resolution, submission
from service.deletion_requests.demands import DeletionRequestCreate
from service.dependencies import Sessions, Settings
from service.estimates.schemas import EstimateRead, EstimateResult, EstimateTargetRead
from service.fields import Failure


async def ask(
    sessions: Sessions, wanted: DeletionRequestCreate, *, settings: Settings
) -> EstimateRead:
    """Store the question and a job for each model. No request, model or tombstone changes.

    The named ids are kept for the jobs alone, and go with them.

    Raises:
        TooManySamples: more are named than one request may.
        NotFound: there is no such model or dataset.
        NotReady: a model is not examined yet.
        NoRecipe: a model that is to be retrained cannot be.
        NoGroups: subjects are named, and nobody knows which samples are theirs.
        UnknownSamples, UnknownSubjects: some are not in the dataset.
    """
    most = settings.max_samples_per_request
    names = resolution.named(wanted, most)
    naming = submission.NAMED_BY_MODEL if wanted.model else submission.NAMED_BY_DATASET
    async with sessions.begin() as session:
        connection = await session.connection()
        found = await resolution.look(connection, wanted, names, most)
        ids = resolution.all_ids(names, found)
        asked = {"name": wanted.model or wanted.dataset, "ids": Jsonb(ids)}
        named = await submission.rows_of(connection, naming, **asked)
        models = await requests.must_forget(connection, wanted, ids, named)
        if found.refusal is not None:
            raise found.refusal
        estimate = Estimate(
            id=uuid7(),
            dataset_id=models[0].dataset_id,
            objective=wanted.objective,
            exact=wanted.exact,
            samples=len(ids),
            duplicates=names.duplicates,
            **resolution.counts(names, found),
        )
        session.add(estimate)
        asked_of = [
            await session.run_sync(
                jobs.queue,
                JobKind.ESTIMATE,
                actor="api",
                model_id=row.model_id,
                objective=wanted.objective,
            )
            for row in models
        ]
        theirs = _each("job_id", literal([job.id for job in asked_of], ARRAY(Uuid)))
        each = _each("sample_id", literal(ids, ARRAY(String)))
        pairs = select(theirs.c.job_id, each.c.sample_id).join_from(theirs, each, true())
        await session.execute(insert(EstimateSample).from_select(["job_id", "sample_id"], pairs))
        for row, job in zip(models, asked_of, strict=True):
            session.add(
                EstimateTarget(
                    estimate_id=estimate.id,
                    model_id=row.model_id,
                    job_id=job.id,
                    already_forgotten=row.forgotten,
                    not_trained_on=row.untrained,
                    former=row.former,
                )
            )
        await session.flush()
        return await _one(session, estimate.id)


def _each(name: str, values: ColumnElement[Any]) -> TableValuedAlias:
    """The elements of an array, as rows of one column."""
    return func.unnest(values).table_valued(name, name=name).render_derived()


async def get(sessions: Sessions, estimate_id: UUID) -> EstimateRead:
    """One estimate. Raises NotFound when there is none with this id."""
    async with sessions.begin() as session:
        return await _one(session, estimate_id)


async def _one(session: AsyncSession, estimate_id: UUID) -> EstimateRead:
    row = (
        await session.execute(
            select(Estimate, Dataset.name)
            .join(Dataset, Dataset.id == Estimate.dataset_id)
            .where(Estimate.id == estimate_id)
        )
    ).one_or_none()
    if row is None:
        raise NotFound(
            f"There is no estimate {estimate_id}. Ask for one with "
            "`POST /v1/deletion-requests/estimate`."
        )
    estimate, dataset = row
    rows = await session.execute(
        select(EstimateTarget, Model.name, Job)
        .join(Model, Model.id == EstimateTarget.model_id)
        .join(Job, Job.id == EstimateTarget.job_id)
        .where(EstimateTarget.estimate_id == estimate_id)
        .order_by(Model.name)
    )
    targets = [_target(target, model, job) for target, model, job in rows]
    return EstimateRead(
        id=estimate.id,
        status=_sum({target.status for target in targets}),
        objective=estimate.objective,
        exact=estimate.exact,
        dataset=dataset,
        samples=estimate.samples,
        subjects=estimate.subjects,
        resolved=resolution.read(
            {
                "subjects": estimate.subjects,
                "unknown_subjects": estimate.unknown_subjects,
                "subject_samples": estimate.subject_samples,
                "dataset": dataset,
            },
            models=len(targets),
        ),
        duplicates=estimate.duplicates,
        created_at=estimate.created_at,
        targets=targets,
    )


def _target(target: EstimateTarget, model: str, job: Job) -> EstimateTargetRead:
    return EstimateTargetRead(
        model=model,
        status=job.status,
        job_id=job.id,
        already_forgotten=target.already_forgotten,
        not_trained_on=target.not_trained_on,
        former=target.former,
        result=EstimateResult.model_validate(target.result) if target.result else None,
        failure=Failure.model_validate(job.failure) if job.failure else None,
    )


def _sum(statuses: set[JobStatus]) -> JobStatus:
    """What the jobs' statuses add up to."""
    if len(statuses) == 1:
        return next(iter(statuses))
    if statuses & OPEN_JOBS:
        return JobStatus.RUNNING
    return JobStatus.FAILED
