"""What can be done with suppressions. One function, one transaction."""

from functools import partial
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import lifting
from domain.errors import TooManySamples, no_such
from domain.tables import Dataset, LiftedSample, SuppressionLift
from service.deletion_requests.decisions import ADMIN
from service.dependencies import Sessions
from service.paging import Page, Window
from service.suppression.schemas import LiftCreate, Lifted, LiftRead


async def lift(sessions: Sessions, name: str, wanted: LiftCreate, *, limit: int) -> Lifted:
    """Let samples be trained on again; those of which that was said before stay as they are.

    Raises:
        TooManySamples: more are named than may be.
        NotFound: there is no such dataset.
    """
    if len(wanted.sample_ids) > limit:
        raise TooManySamples(
            f"The request names {len(wanted.sample_ids)} ids, and {limit} are allowed at once. "
            "Split it into several requests."
        )
    ids = list(dict.fromkeys(wanted.sample_ids))
    async with sessions.begin() as session:
        return await session.run_sync(partial(_lift, name=name, ids=ids, wanted=wanted))


def _lift(session: Session, name: str, ids: list[str], wanted: LiftCreate) -> Lifted:
    outcome = lifting.lift(
        session,
        name,
        ids,
        reason=wanted.reason,
        authorised_by=wanted.authorised_by,
        lifted_by=ADMIN,
        actor="api",
    )
    stored = outcome.lift
    return Lifted(
        lift=None if stored is None else _read(stored, name, stored.samples),
        already_lifted=outcome.already,
        not_suppressed=outcome.not_suppressed,
    )


async def find(sessions: Sessions, name: str, window: Window) -> Page[LiftRead]:
    """The lifts of a dataset, newest first. Raises NotFound when there is no such dataset."""
    after = window.after(UUID)
    still = select(func.count()).where(LiftedSample.lift_id == SuppressionLift.id).scalar_subquery()
    async with sessions.begin() as session:
        dataset_id = await session.scalar(select(Dataset.id).filter_by(name=name))
        if dataset_id is None:
            raise no_such(f"dataset {name!r}", listed_at="/v1/datasets")
        chosen = select(SuppressionLift, still).filter_by(dataset_id=dataset_id)
        if after is not None:
            chosen = chosen.where(SuppressionLift.id < after)
        newest = chosen.order_by(SuppressionLift.id.desc()).limit(window.limit + 1)
        rows = (await session.execute(newest)).all()
    rows, next_cursor = window.cut(rows, lambda row: row[0].id)
    items = [_read(stored, name, count) for stored, count in rows]
    return Page(items=items, next_cursor=next_cursor)


def _read(stored: SuppressionLift, dataset: str, still_lifted: int) -> LiftRead:
    return LiftRead(
        id=stored.id,
        dataset=dataset,
        samples=stored.samples,
        still_lifted=still_lifted,
        reason=stored.reason,
        authorised_by=stored.authorised_by,
        lifted_by=stored.lifted_by,
        lifted_at=stored.lifted_at,
    )
