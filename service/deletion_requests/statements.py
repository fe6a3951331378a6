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
    LargeBinary,
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

from service import audit, tombstones
from service.states import Split, WebhookStatus
from service.tables import Base

datasets = Base.metadata.tables["datasets"]
decisions = Base.metadata.tables["decisions"]
endpoints = Base.metadata.tables["webhook_endpoints"]
keys = Base.metadata.tables["idempotency_keys"]
models = Base.metadata.tables["models"]
request_samples = Base.metadata.tables["request_samples"]
request_keys = Base.metadata.tables["request_keys"]
requests = Base.metadata.tables["deletion_requests"]
samples = Base.metadata.tables["samples"]
targets = Base.metadata.tables["deletion_targets"]
graves = Base.metadata.tables["tombstones"]

IDS = bindparam("ids", type_=ARRAY(String))
"""The named ids. One array: 100,000 of them cross the network at once."""

KEY = bindparam("key", type_=String)
RETENTION = bindparam("retention", type_=Interval)
IS_KEPT = and_(keys.c.key == KEY, keys.c.created_at >= func.now() - RETENTION)

REQUEST = (
    "id", "dataset_id", "objective", "exact", "status", "subject_ref", "reason", "samples",
    "duplicates", "commitment", "received_at", "due_at", "created_at", "finished_at",
)  # fmt: skip
"""What is stored of a request."""

TARGET: dict[str, type[TypeEngine[Any]]] = {
    "model_id": Uuid, "status": String, "already_forgotten": Integer, "not_trained_on": Integer
}  # fmt: skip
"""What is stored of what it asks of each model; arrays, one element for each."""


def naming(asked_for: ColumnElement[bool], *conditions: ColumnElement[bool]) -> Select[Any]:
    """What a demand names: the models chosen, and what the samples `IDS` are to each of them.

    A row for each model; one, without a model, for a dataset that has none.

    Args:
        conditions: without them no sample is looked up.
    """
    asked = (
        select(
            datasets.c.id.label("dataset_id"),
            datasets.c.name.label("dataset"),
            models.c.id.label("model_id"),
            models.c.name.label("model"),
            models.c.status.label("model_status"),
            models.c.recipe,
        )
        .outerjoin_from(datasets, models, models.c.dataset_id == datasets.c.id)
        .where(asked_for)
        .cte("asked")
    )
    named = func.unnest(IDS).table_valued("sample_id", name="named").render_derived()
    dataset_id = select(asked.c.dataset_id).limit(1).scalar_subquery()
    digest = tombstones.digest(datasets.c.tombstone_key, samples.c.sample_id).label("digest")
    known = (
        select(samples.c.split, digest)
        .join_from(named, samples, samples.c.sample_id == named.c.sample_id)
        .join(datasets, datasets.c.id == samples.c.dataset_id)
        .where(samples.c.dataset_id == dataset_id, *conditions)
        .cte("known")
        .prefix_with("MATERIALIZED")  # one digest for each id, however many models are asked
    )
    is_forgotten = and_(graves.c.model_id == asked.c.model_id, graves.c.digest == known.c.digest)
    counted = (
        select(
            asked.c.model_id,
            func.count().label("known"),
            func.count(graves.c.digest).label("forgotten"),
            func.count().filter(known.c.split != Split.TRAIN).label("untrained"),
        )
        .join_from(asked, known, true())
        .outerjoin(graves, is_forgotten)
        .group_by(asked.c.model_id)
        .cte("counted")
    )
    return (
        select(asked, counted.c.known, counted.c.forgotten, counted.c.untrained)
        .outerjoin_from(asked, counted, counted.c.model_id == asked.c.model_id)
        .order_by(asked.c.model)
    )


def submission(asked_for: ColumnElement[bool]) -> Select[Any]:
    """All that decides about a submission: whether its key was answered, what it names, and
    whether a webhook may have to be told.

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
        exists().where(endpoints.c.status == WebhookStatus.ENABLED).label("is_watched"),
    ).cte("clock")
    named = naming(asked_for, ~exists().where(IS_KEPT)).subquery("named")
    answered = (keys.c.fingerprint, keys.c.request_id, keys.c.response)
    return (
        select(clock, named, *answered)
        .outerjoin_from(clock, keys, IS_KEPT)
        .outerjoin(named, true())
        .order_by(named.c.model)
    )


def storing() -> Select[Any]:
    """Stores a request with all that belongs to it, and the answer under its key.

    No row where the key was stored since the transaction looked.
    """
    request_id = bindparam("id", type_=Uuid)
    request = insert(requests).values({name: bindparam(name) for name in REQUEST})
    named = insert(request_samples).from_select(
        ["request_id", "sample_id"],
        select(request_id, func.unnest(IDS).column_valued("sample_id")).order_by("sample_id"),
    )
    key = insert(request_keys).values(
        request_id=request_id,
        key=bindparam("secret", type_=LargeBinary),
        entries=bindparam("entries", type_=LargeBinary),
    )
    arrays = [bindparam(f"each_{name}", type_=ARRAY(kind)) for name, kind in TARGET.items()]
    each = func.unnest(*arrays).table_valued(*TARGET, name="each").render_derived()
    asked = insert(targets).from_select(["request_id", *TARGET], select(request_id, each))
    told = bindparam("told", type_=JSONB)
    event = audit.recording("api", "request.received", request_id, told)
    answer = upsert(keys).values(
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
            where=keys.c.created_at < func.now() - RETENTION,
        )
        .returning(keys.c.key)
        .cte("stored")
    )
    return select(stored.c.key).add_cte(
        request.cte("request"),
        key.cte("key"),
        named.cte("named"),
        asked.cte("asked"),
        event.cte("event"),
    )


def reading(wanted: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Requests as they are: a row for each of their targets, by the names of the models."""
    return (
        select(
            requests.c.id,
            requests.c.status,
            requests.c.objective,
            requests.c.exact,
            requests.c.samples,
            requests.c.duplicates,
            requests.c.commitment,
            requests.c.subject_ref,
            requests.c.reason,
            requests.c.received_at,
            requests.c.due_at,
            requests.c.created_at,
            requests.c.finished_at,
            requests.c.overdue_at,
            requests.c.shredded_at,
            datasets.c.name.label("dataset"),
            models.c.name.label("model"),
            targets.c.status.label("target_status"),
            targets.c.job_id,
            targets.c.already_forgotten,
            targets.c.not_trained_on,
            exists().where(decisions.c.request_id == requests.c.id).label("is_decided"),
        )
        .join(datasets, datasets.c.id == requests.c.dataset_id)
        .join(targets, targets.c.request_id == requests.c.id)
        .join(models, models.c.id == targets.c.model_id)
        .where(wanted)
        .order_by(requests.c.id.desc(), models.c.name)
    )


BY_MODEL = models.c.name == bindparam("name")
BY_DATASET = datasets.c.name == bindparam("name")

NAMED_BY_MODEL, NAMED_BY_DATASET = naming(BY_MODEL), naming(BY_DATASET)
SUBMITTED_TO_MODEL, SUBMITTED_TO_DATASET = submission(BY_MODEL), submission(BY_DATASET)
STORED = storing()

# One of its own: an array would be planned anew each time.
READ_ONE = reading(requests.c.id == bindparam("id"))
READ_MANY = reading(requests.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
