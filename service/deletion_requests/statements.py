"""The statements that read requests as they are, built once: building one takes longer than to run
it."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Uuid,
    any_,
    bindparam,
    exists,
    select,
)

from domain import batching
from domain.tables import Base

datasets = Base.metadata.tables["datasets"]
decisions = Base.metadata.tables["decisions"]
models = Base.metadata.tables["models"]
requests = Base.metadata.tables["deletion_requests"]
targets = Base.metadata.tables["deletion_targets"]


def reading(wanted: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Requests as they are: a row for each of their targets, by the names of the models."""
    return (
        select(
            requests.c.id,
            requests.c.status,
            requests.c.objective,
            requests.c.exact,
            requests.c.urgent,
            requests.c.samples,
            requests.c.subjects,
            requests.c.unknown_subjects,
            requests.c.subject_samples,
            requests.c.duplicates,
            requests.c.commitment,
            requests.c.subject_ref,
            requests.c.reason,
            requests.c.received_at,
            requests.c.time_zone,
            requests.c.due_at,
            requests.c.created_at,
            requests.c.finished_at,
            requests.c.overdue_at,
            requests.c.shredded_at,
            requests.c.rows_status,
            requests.c.rows_left,
            requests.c.rows_job_id,
            requests.c.rows_at,
            datasets.c.name.label("dataset"),
            models.c.name.label("model"),
            targets.c.status.label("target_status"),
            targets.c.job_id,
            targets.c.accepted_job_id,
            batching.planned_for().label("planned_for"),
            targets.c.already_forgotten,
            targets.c.not_trained_on,
            targets.c.former,
            exists().where(decisions.c.request_id == requests.c.id).label("is_decided"),
        )
        .join(datasets, datasets.c.id == requests.c.dataset_id)
        .join(targets, targets.c.request_id == requests.c.id)
        .join(models, models.c.id == targets.c.model_id)
        .where(wanted)
        .order_by(requests.c.id.desc(), models.c.name)
    )


# One of its own: an array would be planned anew each time.
READ_ONE = reading(requests.c.id == bindparam("id"))
READ_MANY = reading(requests.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
