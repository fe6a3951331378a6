"""What there is of a model that was made from data, and what it holds that is forgotten."""

from uuid import UUID

from sqlalchemy import false, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from domain.errors import no_such
from domain.tables import DeletionRequest, DeletionTarget, Job, Model, ModelVersion, derived_data
from service import paging
from service.dependencies import Sessions
from service.models.schemas import DerivedRead, ForgettingRead, LineageRead
from service.paging import Window

REQUESTS_SHOWN = 100


async def read(sessions: Sessions, name: str, window: Window) -> LineageRead:
    """The model's versions, newest first, with their files; before them what belongs to none.

    Raises:
        NotFound: there is no such model.
        InvalidCursor: this list never gave it out.
    """
    after = window.after(paging.number)
    async with sessions.begin() as session:
        model_id = await session.scalar(select(Model.id).filter_by(name=name))
        if model_id is None:
            raise no_such(f"model {name!r}", listed_at="/v1/models")
        numbers = select(ModelVersion.number).filter_by(model_id=model_id)
        if after is not None:
            numbers = numbers.where(ModelVersion.number < after)
        found = await session.scalars(
            numbers.order_by(ModelVersion.number.desc()).limit(window.limit + 1)
        )
        shown, next_cursor = window.cut(found.all(), lambda number: number)
        of_none = derived_data.c.version.is_(None) if after is None else false()
        derived = (
            await session.execute(
                select(derived_data)
                .where(
                    derived_data.c.model_id == model_id,
                    or_(derived_data.c.version.in_(shown), of_none),
                )
                .order_by(
                    derived_data.c.version.desc().nulls_first(),
                    derived_data.c.created_at,
                    derived_data.c.kind.desc(),
                )
            )
        ).all()
        jobs = await _forgetting(session, {job for row in derived for job in row.tainted_by})
    items = [DerivedRead.model_validate(row) for row in derived]
    return LineageRead(model=name, items=items, jobs=jobs, next_cursor=next_cursor)


async def _forgetting(session: AsyncSession, jobs: set[UUID]) -> list[ForgettingRead]:
    """What these jobs were asked to make forgotten, the first first."""
    request_id = DeletionTarget.request_id
    asked = (
        select(
            Job.id.label("job_id"),
            Job.forgotten_at,
            func.count(request_id).label("requests"),
            func.array_remove(func.array_agg(request_id), None).label("request_ids"),
            func.coalesce(func.sum(DeletionRequest.samples), 0).label("samples"),
        )
        .outerjoin(DeletionTarget, DeletionTarget.job_id == Job.id)
        .outerjoin(DeletionRequest, DeletionRequest.id == request_id)
        .where(Job.id.in_(jobs))
        .group_by(Job.id)
        .order_by(Job.forgotten_at.nulls_last(), Job.id)
    )
    return [
        ForgettingRead(
            job_id=row.job_id,
            forgotten_at=row.forgotten_at,
            requests=row.requests,
            request_ids=sorted(row.request_ids)[:REQUESTS_SHOWN],
            samples=row.samples,
        )
        for row in await session.execute(asked)
    ]
