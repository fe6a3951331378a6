"""The statements that run for every submission and every poll, built once.

Each does what its operation needs in one round trip; building one takes longer than to run it.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Interval,
    Select,
    String,
    Uuid,
    and_,
    any_,
    bindparam,
    exists,
    func,
    insert,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.types import TypeEngine

from service import audit
from service.states import Split
from service.tables import (
    Dataset,
    DeletionRequest,
    DeletionTarget,
    IdempotencyKey,
    Model,
    RequestSample,
    ReviewDecision,
    Sample,
    Tombstone,
)

IDS = bindparam("ids", type_=ARRAY(String))
"""The named ids. One array: 100,000 of them cross the network at once."""

KEY = bindparam("key", type_=String)
RETENTION = bindparam("retention", type_=Interval)
IS_KEPT = and_(IdempotencyKey.key == KEY, IdempotencyKey.created_at >= func.now() - RETENTION)

REQUEST = (
    "id", "dataset_id", "objective", "exact", "status", "subject_ref", "reason", "samples",
    "duplicates", "received_at", "due_at", "created_at", "finished_at",
)  # fmt: skip
"""What is stored of a request."""

TARGET: dict[str, type[TypeEngine[Any]]] = {
    "model_id": Uuid, "status": String, "already_forgotten": Integer, "not_trained_on": Integer
}  # fmt: skip
"""What is stored of what it asks of each model; arrays, one element for each."""


def naming(models: ColumnElement[bool], *conditions: ColumnElement[bool]) -> Select[Any]:
    """What a demand names: the models chosen, and what the samples `IDS` are to each of them.

    A row for each model; one, without a model, for a dataset that has none.

    Args:
        conditions: without them no sample is looked up.
    """
    asked = (
        select(
            Dataset.id.label("dataset_id"),
            Dataset.name.label("dataset"),
            Model.id.label("model_id"),
            Model.name.label("model"),
            Model.status.label("model_status"),
            Model.recipe,
        )
        .outerjoin_from(Dataset, Model, Model.dataset_id == Dataset.id)
        .where(models)
        .cte("asked")
    )
    named = func.unnest(IDS).table_valued("sample_id", name="named").render_derived()
    dataset_id = select(asked.c.dataset_id).limit(1).scalar_subquery()
    known = (
        select(Sample.sample_id, Sample.split)
        .join_from(named, Sample, Sample.sample_id == named.c.sample_id)
        .where(Sample.dataset_id == dataset_id, *conditions)
        .cte("known")
    )
    is_forgotten = and_(
        Tombstone.model_id == asked.c.model_id, Tombstone.sample_id == known.c.sample_id
    )
    counted = (
        select(
            asked.c.model_id,
            func.count().label("known"),
            func.count(Tombstone.sample_id).label("forgotten"),
            func.count().filter(known.c.split != Split.TRAIN).label("untrained"),
        )
        .join_from(asked, known, true())
        .outerjoin(Tombstone, is_forgotten)
        .group_by(asked.c.model_id)
        .cte("counted")
    )
    return (
        select(asked, counted.c.known, counted.c.forgotten, counted.c.untrained)
        .outerjoin_from(asked, counted, counted.c.model_id == asked.c.model_id)
        .order_by(asked.c.model)
    )


def submission(models: ColumnElement[bool]) -> Select[Any]:
    """All that decides about a submission: whether its key was answered, and what it names.

    Also takes the advisory lock of the key, until the transaction ends. A row for each model
    named, and one where there is none; whose key it is stands in each.
    """
    received_at = func.coalesce(bindparam("received_at", type_=DateTime(timezone=True)), func.now())
    # One calendar month later, whatever time zone the database session is in.
    a_month_later = func.timezone("UTC", received_at) + text("interval '1 month'")
    clock = select(
        func.pg_try_advisory_xact_lock(bindparam("lock", type_=BigInteger)).label("is_alone"),
        func.now().label("now"),
        received_at.label("received_at"),
        func.timezone("UTC", a_month_later).label("due_at"),
    ).cte("clock")
    named = naming(models, ~exists().where(IS_KEPT)).subquery("named")
    answered = (IdempotencyKey.fingerprint, IdempotencyKey.request_id, IdempotencyKey.response)
    return (
        select(clock, named, *answered)
        .outerjoin_from(clock, IdempotencyKey, IS_KEPT)
        .outerjoin(named, true())
        .order_by(named.c.model)
    )


def storing() -> Select[Any]:
    """Stores a request with all that belongs to it, and the answer under its key.

    No row where the key was stored since the transaction looked.
    """
    request_id = bindparam("id", type_=Uuid)
    request = insert(DeletionRequest).values({name: bindparam(name) for name in REQUEST})
    samples = insert(RequestSample).from_select(
        ["request_id", "sample_id"],
        select(request_id, func.unnest(IDS).column_valued("sample_id")).order_by("sample_id"),
    )
    arrays = [bindparam(f"each_{name}", type_=ARRAY(kind)) for name, kind in TARGET.items()]
    each = func.unnest(*arrays).table_valued(*TARGET, name="each").render_derived()
    targets = insert(DeletionTarget).from_select(["request_id", *TARGET], select(request_id, each))
    told = bindparam("told", type_=JSONB)
    event = audit.recording("api", "request.received", request_id, told)
    answer = upsert(IdempotencyKey).values(
        key=KEY,
        fingerprint=bindparam("fingerprint"),
        request_id=request_id,
        response=bindparam("response"),
        created_at=func.now(),
    )
    stored = (
        answer.on_conflict_do_update(
            index_elements=["key"],
            set_=dict(answer.excluded),
            where=IdempotencyKey.created_at < func.now() - RETENTION,
        )
        .returning(IdempotencyKey.key)
        .cte("stored")
    )
    return select(stored.c.key).add_cte(
        request.cte("request"),
        samples.cte("samples"),
        targets.cte("targets"),
        event.cte("event"),
    )


def reading() -> Select[*tuple[Any, ...]]:
    """The requests `ids`: a row for each of their targets, by the names of the models."""
    return (
        select(
            DeletionRequest.id,
            DeletionRequest.status,
            DeletionRequest.objective,
            DeletionRequest.exact,
            DeletionRequest.samples,
            DeletionRequest.duplicates,
            DeletionRequest.subject_ref,
            DeletionRequest.reason,
            DeletionRequest.received_at,
            DeletionRequest.due_at,
            DeletionRequest.created_at,
            DeletionRequest.finished_at,
            Dataset.name.label("dataset"),
            Model.name.label("model"),
            DeletionTarget.status.label("target_status"),
            DeletionTarget.job_id,
            DeletionTarget.already_forgotten,
            DeletionTarget.not_trained_on,
            exists().where(ReviewDecision.request_id == DeletionRequest.id).label("is_decided"),
        )
        .join(Dataset, Dataset.id == DeletionRequest.dataset_id)
        .join(DeletionTarget, DeletionTarget.request_id == DeletionRequest.id)
        .join(Model, Model.id == DeletionTarget.model_id)
        .where(DeletionRequest.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
        .order_by(DeletionRequest.id, Model.name)
    )


BY_MODEL = Model.name == bindparam("name")
BY_DATASET = Dataset.name == bindparam("name")

NAMED_BY_MODEL, NAMED_BY_DATASET = naming(BY_MODEL), naming(BY_DATASET)
SUBMITTED_TO_MODEL, SUBMITTED_TO_DATASET = submission(BY_MODEL), submission(BY_DATASET)
STORED = storing()
READ = reading()
