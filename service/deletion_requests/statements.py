"""The statements that run for every submission and every poll, built once.

Each does what its operation needs in one round trip; building one takes longer than to run it.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnClause,
    ColumnElement,
    DateTime,
    FunctionElement,
    Integer,
    Interval,
    LargeBinary,
    Select,
    String,
    TableValuedAlias,
    Uuid,
    and_,
    any_,
    bindparam,
    column,
    exists,
    func,
    insert,
    literal_column,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

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

IDS = bindparam("ids", type_=JSONB)
"""The named ids. One document: 100,000 of them cross the network at once, and it is written faster
than an array."""

ONE = literal_column("1", Integer)
"""Written out: of a parameter the planner could not know how little is read."""

KEY = bindparam("key", type_=String)
RETENTION = bindparam("retention", type_=Interval)
IS_KEPT = and_(keys.c.key == KEY, keys.c.created_at >= func.now() - RETENTION)

REQUEST = (
    "id", "dataset_id", "objective", "exact", "status", "subject_ref", "reason", "samples",
    "duplicates", "commitment", "received_at", "due_at", "created_at", "finished_at",
)  # fmt: skip
"""What is stored of a request."""

TARGET = ("model_id", "status", "already_forgotten", "not_trained_on")
"""What is stored of what it asks of each model."""


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
    named = _each_of(IDS)
    dataset_id = select(asked.c.dataset_id).limit(ONE).scalar_subquery()
    digest = tombstones.digest(datasets.c.tombstone_key, samples.c.sample_id).label("digest")
    known = (
        select(samples.c.split, digest)
        .join_from(named, samples, samples.c.sample_id == named.c.sample_id)
        .join(datasets, datasets.c.id == samples.c.dataset_id)
        .where(samples.c.dataset_id == dataset_id, *conditions)
        .cte("known")
        .prefix_with("MATERIALIZED")  # one digest for each id, however many models are asked
    )
    # Looked up for each sample, however many there are: a join may read every tombstone.
    grave = (
        select(graves.c.digest)
        .where(graves.c.model_id == asked.c.model_id, graves.c.digest == known.c.digest)
        .limit(ONE)
        .lateral("grave")
    )
    counted = (
        select(
            asked.c.model_id,
            func.count().label("known"),
            func.count(grave.c.digest).label("forgotten"),
            func.count().filter(known.c.split != Split.TRAIN).label("untrained"),
        )
        .join_from(asked, known, true())
        .outerjoin(grave, true())
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

    Nearly all of it comes in one document, which is written faster than many parameters. No row
    where the key was stored since the transaction looked.
    """
    document = _record(
        func.jsonb_to_record(bindparam("given", type_=JSONB)),
        *(requests.c[name] for name in REQUEST),
        *(keys.c[name] for name in ("key", "fingerprint", "response")),
        *(column(name, JSONB) for name in ("ids", "targets", "told")),
    )
    given = select(document).cte("given")
    target = _record(
        func.jsonb_to_recordset(given.c.targets), *(targets.c[name] for name in TARGET)
    )
    request = insert(requests).from_select(REQUEST, select(*(given.c[name] for name in REQUEST)))
    each = _each_of(given.c.ids)
    named = insert(request_samples).from_select(
        ["request_id", "sample_id"],
        select(given.c.id, each.c.sample_id).order_by(each.c.sample_id),
    )
    key = insert(request_keys).from_select(
        ["request_id", "key", "entries"],
        select(
            given.c.id,
            bindparam("secret", type_=LargeBinary),
            bindparam("entries", type_=LargeBinary),
        ),
    )
    asked = insert(targets).from_select(["request_id", *TARGET], select(given.c.id, *target.c))
    event = audit.recording("api", "request.received", given.c.id, given.c.told)
    answer = upsert(keys).from_select(
        ["key", "fingerprint", "request_id", "response", "created_at"],
        select(given.c.key, given.c.fingerprint, given.c.id, given.c.response, func.now()),
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


def _each_of(ids: ColumnElement[Any]) -> TableValuedAlias:
    """The ids in such a document, a row for each."""
    each = func.jsonb_array_elements_text(ids)
    return each.table_valued("sample_id", name="named", joins_implicitly=True).render_derived()


def _record(function: FunctionElement[Any], *columns: ColumnClause[Any]) -> TableValuedAlias:
    """What a function makes of JSON, with the names and types of these columns."""
    typed = (column(each.name, each.type) for each in columns)
    record = function.table_valued(*typed, joins_implicitly=True)
    return record.render_derived(with_types=True)


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
