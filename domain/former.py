"""Samples that left a dataset, or changed, though models know what they were.

A model knows a sample that is gone if it was there when the model was trained and left afterwards.
No job can forget it: what it was is nowhere any more. A request for it waits for a version that was
trained on a later state of the dataset.
"""

from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.orm import Session

from domain import requests, tombstones
from domain.states import OPEN_REQUESTS, WITHOUT_VERSIONS, RequestStatus
from domain.tables import DeletionTarget, FormerSample, Model, RequestSample

WAITING = (RequestStatus.SCHEDULED, RequestStatus.RUNNING)


def is_known(state: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether a model that was trained on this state has learned from the former sample."""
    return (FormerSample.since <= state) & (FormerSample.removed_in > state)


def settle(session: Session, dataset_id: UUID) -> dict[str, int]:
    """Bring what depends on former samples to what it is now that another state is indexed, or that
    a model was trained on it: which requests wait for a version, and which rows are still needed.
    The planner must be held off.

    Returns:
        By the name of each model: how many former samples it knows and has not forgotten.
    """
    models = session.scalars(
        select(Model)
        .where(Model.dataset_id == dataset_id, Model.status.not_in(WITHOUT_VERSIONS))
        .order_by(Model.name)
    ).all()
    known = {}
    for model in models:
        _hold_back(session, model)
        left = session.scalars(
            select(func.count())
            .select_from(FormerSample)
            .where(
                FormerSample.dataset_id == dataset_id,
                is_known(model.state),  # type: ignore[arg-type]  # a number compares as well
                ~tombstones.has(model.id, FormerSample.sample_id),
            )
        ).one()
        if left:
            known[model.name] = left
    clean(session, dataset_id)
    return known


def clean(session: Session, dataset_id: UUID) -> None:
    """Delete what no model of the dataset knows any more."""
    oldest = (
        select(func.min(Model.state))
        .where(Model.dataset_id == dataset_id, Model.status.not_in(WITHOUT_VERSIONS))
        .scalar_subquery()
    )
    session.execute(
        delete(FormerSample).where(
            FormerSample.dataset_id == dataset_id,
            FormerSample.removed_in <= func.coalesce(oldest, FormerSample.removed_in),
        )
    )


def _hold_back(session: Session, model: Model) -> None:
    """Count for each open request how many of its samples the model knows and no job could show it;
    one that has any leaves its job."""
    mine = (
        select(func.count())
        .select_from(RequestSample)
        .join(FormerSample, FormerSample.sample_id == RequestSample.sample_id)
        .where(
            RequestSample.request_id == DeletionTarget.request_id,
            FormerSample.dataset_id == model.dataset_id,
            is_known(model.state),  # type: ignore[arg-type]
            ~tombstones.has(model.id, RequestSample.sample_id),
        )
        .scalar_subquery()
    )
    of_model = DeletionTarget.model_id == model.id
    waits = DeletionTarget.status.in_([*OPEN_REQUESTS, RequestStatus.FAILED])
    session.execute(
        update(DeletionTarget)
        .where(of_model, waits)
        .values(former=mine)
        .execution_options(synchronize_session=False)
    )
    at_work = DeletionTarget.status.in_(WAITING)
    held = of_model & at_work & (DeletionTarget.former > 0)
    if session.scalar(select(exists().where(held))):
        requests.move(session, RequestStatus.PENDING, held, actor="worker", job_id=None)
