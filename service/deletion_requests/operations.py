"""What can be done with deletion requests. One function, one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import (
    ARRAY,
    CTE,
    Insert,
    Row,
    String,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    text,
    true,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from service import audit, outbox
from service.deletion_requests.schemas import (
    DecisionRead,
    DeletionRequestCreate,
    DeletionRequestRead,
    TargetRead,
    TargetResult,
)
from service.dependencies import Sessions, Settings
from service.errors import (
    IdempotencyKeyInFlight,
    IdempotencyKeyReused,
    NoRecipe,
    NotFound,
    NotReady,
    TooManySamples,
    UnknownSamples,
)
from service.fields import MEANING, Failure, Scores
from service.paging import Page, Window
from service.states import RegistrationStatus, RequestStatus, Split
from service.tables import (
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Evaluation,
    IdempotencyKey,
    Job,
    Model,
    ModelVersion,
    RequestSample,
    ReviewDecision,
    Round,
    Sample,
    Tombstone,
)

UNKNOWN_SHOWN = 100
REVIEWED = (RequestStatus.COMPLETED, RequestStatus.NEEDS_REVIEW)
"""Statuses of a target that has a result."""

Before, After = aliased(Evaluation), aliased(Evaluation)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes that answer a submission, today and whenever its key is sent again."""

    request_id: UUID
    body: str
    replayed: bool


async def submit(
    sessions: Sessions, wanted: DeletionRequestCreate, *, key: str, settings: Settings
) -> Answer:
    """Store a deletion request exactly once, however often it is sent.

    Raises:
        TooManySamples: it names more than one request may.
        IdempotencyKeyInFlight: another submission with this key is being answered.
        IdempotencyKeyReused: the key already stands for another body.
        NotFound: there is no such model or dataset.
        NotReady: a model that is to forget is not examined yet.
        NoRecipe: a model that is to be retrained cannot be.
        UnknownSamples: some ids are not in the dataset.
    """
    ids = different_ids(wanted, settings)
    fingerprint = wanted.fingerprint()
    async with sessions.begin() as session:
        stored = await _stored_answer(session, key, fingerprint, settings.idempotency_retention)
        if stored:
            return stored
        dataset_id, models = await who_must_forget(session, wanted)
        received_at: Any = wanted.received_at or func.now()
        request = DeletionRequest(
            dataset_id=dataset_id,
            objective=wanted.objective,
            exact=wanted.exact,
            subject_ref=wanted.subject_ref,
            reason=wanted.reason,
            samples=len(ids),
            duplicates=len(wanted.sample_ids) - len(ids),
            received_at=received_at,
            due_at=_a_month_after(received_at),
        )
        session.add(request)
        await session.flush()
        await _store_samples(session, request, ids, models)
        audit.record(
            session,
            "api",
            "request.received",
            request.id,
            samples=request.samples,
            duplicates=request.duplicates,
            models=[str(model_id) for model_id in models],
        )
        if request.status is RequestStatus.COMPLETED:
            audit.record(session, "api", "request.completed", request.id)
        await session.run_sync(outbox.announce, request.status, [request.id])
        [read] = await _read(session, [request.id])
        answer = Answer(request.id, read.model_dump_json(), replayed=False)
        session.add(
            IdempotencyKey(
                key=key,
                fingerprint=fingerprint,
                request_id=request.id,
                response={"body": answer.body},
            )
        )
    log.info(
        "deletion_request.received",
        request_id=str(request.id),
        status=request.status,
        samples=request.samples,
        duplicates=request.duplicates,
        models=len(models),
    )
    return answer


async def get(sessions: Sessions, request_id: UUID) -> DeletionRequestRead:
    """One deletion request. Raises NotFound when there is none with this id."""
    async with sessions.begin() as session:
        found = await _read(session, [request_id])
    if not found:
        raise NotFound(f"There is no deletion request {request_id}.")
    return found[0]


async def find(
    sessions: Sessions, window: Window, *, status: RequestStatus | None, model: str | None
) -> Page[DeletionRequestRead]:
    """Deletion requests, newest first: all, or those of one status or one model."""
    after = window.after(UUID)
    chosen = select(DeletionRequest.id).order_by(DeletionRequest.id.desc()).limit(window.limit + 1)
    if after is not None:
        chosen = chosen.where(DeletionRequest.id < after)
    if status is not None:
        chosen = chosen.where(DeletionRequest.status == status)
    if model is not None:
        asks_it = and_(
            DeletionTarget.request_id == DeletionRequest.id,
            DeletionTarget.model_id == Model.id,
            Model.name == model,
        )
        chosen = chosen.where(exists().where(asks_it))
    async with sessions.begin() as session:
        ids = (await session.scalars(chosen)).all()
        ids, next_cursor = window.cut(ids, lambda request_id: request_id)
        return Page(items=await _read(session, ids), next_cursor=next_cursor)


async def _stored_answer(
    session: AsyncSession, key: str, fingerprint: str, retention: timedelta
) -> Answer | None:
    """What this key was answered before; until the transaction ends, nobody else may ask."""
    digest = sha256(f"lethe idempotency key {key}".encode()).digest()
    lock = int.from_bytes(digest[:8], signed=True)
    if not await session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise IdempotencyKeyInFlight("The first request with this key is being answered; wait.")
    too_old = and_(IdempotencyKey.key == key, IdempotencyKey.created_at < func.now() - retention)
    await session.execute(delete(IdempotencyKey).where(too_old))
    known = await session.get(IdempotencyKey, key)
    if known is None:
        return None
    if known.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            "This key was sent before with another body; take a new key for a new request."
        )
    return Answer(known.request_id, known.response["body"], replayed=True)


def different_ids(wanted: DeletionRequestCreate, settings: Settings) -> list[str]:
    """The named ids, each once. Raises TooManySamples when more are named than may be."""
    named = len(wanted.sample_ids)
    if named > settings.max_samples_per_request:
        raise TooManySamples(
            f"{named} ids are named; {settings.max_samples_per_request} are allowed in one "
            "request. Send several."
        )
    return list(dict.fromkeys(wanted.sample_ids))


async def who_must_forget(
    session: AsyncSession, wanted: DeletionRequestCreate
) -> tuple[UUID, list[UUID]]:
    """The dataset whose samples are named, and the models that are to forget them."""
    if wanted.model is not None:
        model = await session.scalar(select(Model).filter_by(name=wanted.model))
        if model is None:
            raise NotFound(f"There is no model {wanted.model!r}.")
        if model.status is not RegistrationStatus.READY:
            raise NotReady(
                f"The model {wanted.model!r} is {model.status}; wait until "
                f"`GET /v1/models/{wanted.model}` says `ready`."
            )
        _require_recipes(wanted, [model])
        return model.dataset_id, [model.id]

    dataset_id = await session.scalar(select(Dataset.id).filter_by(name=wanted.dataset))
    if dataset_id is None:
        raise NotFound(f"There is no dataset {wanted.dataset!r}.")
    models = (
        await session.scalars(select(Model).filter_by(dataset_id=dataset_id).order_by(Model.id))
    ).all()
    waiting = [model.name for model in models if model.status is RegistrationStatus.PENDING]
    if waiting:
        raise NotReady(f"Models of this dataset are not ready yet: {', '.join(waiting)}.")
    ready = [model for model in models if model.status is RegistrationStatus.READY]
    if not ready:
        raise NotReady(f"No model of the dataset {wanted.dataset!r} is ready: nothing can forget.")
    _require_recipes(wanted, ready)
    return dataset_id, [model.id for model in ready]


def _require_recipes(wanted: DeletionRequestCreate, models: Sequence[Model]) -> None:
    lacking = [model.name for model in models if model.recipe is None]
    if wanted.exact and lacking:
        raise NoRecipe(
            f"`exact` needs a recipe, which these models lack: {', '.join(lacking)}. Leave out "
            "`exact`, or register the model with a `recipe` under another name."
        )


def _a_month_after(received_at: Any) -> Any:
    """One calendar month later, whatever time zone the database session is in."""
    return func.timezone("UTC", func.timezone("UTC", received_at) + text("interval '1 month'"))


async def store_named(
    session: AsyncSession,
    dataset_id: UUID,
    ids: list[str],
    models: Sequence[UUID],
    store: Callable[[CTE], Insert],
) -> Sequence[Row[UUID, int, int, int, bool]]:
    """Store the named ids, and count what they are to each model.

    One array and one statement: 100,000 ids are looked up once and cross the network once.

    Args:
        store: the statement that stores them, given what they are in the dataset.

    Raises:
        UnknownSamples: some are not in the dataset.
    """
    named = (
        func.unnest(literal(ids, ARRAY(String)))
        .table_valued("sample_id", with_ordinality="position", name="named")
        .render_derived()
    )
    is_known = and_(Sample.dataset_id == dataset_id, Sample.sample_id == named.c.sample_id)
    known = select(named.c.sample_id, Sample.split).join_from(named, Sample, is_known).cte("known")
    has_forgotten = and_(Tombstone.model_id == Model.id, Tombstone.sample_id == known.c.sample_id)
    was_forgotten = Tombstone.sample_id.is_not(None)
    was_trained_on = known.c.split == Split.TRAIN
    counting = (
        select(
            Model.id,
            func.count().label("known"),
            func.count().filter(was_forgotten).label("forgotten"),
            func.count().filter(~was_trained_on).label("untrained"),
            func.bool_or(~was_forgotten).label("something_left"),
        )
        .select_from(Model)
        .join(known, true())
        .outerjoin(Tombstone, has_forgotten)
        .where(Model.id.in_(models))
        .group_by(Model.id)
        .add_cte(store(known).cte("stored"))
    )
    counts = (await session.execute(counting)).all()
    unknown = len(ids) - (counts[0].known if counts else 0)
    if unknown:
        first = select(named.c.sample_id).where(~exists().where(is_known))
        first = first.order_by(named.c.position).limit(UNKNOWN_SHOWN)
        raise UnknownSamples(
            f"{unknown} of {len(ids)} ids are not in the dataset; nothing was stored.",
            unknown_count=unknown,
            unknown_ids=list(await session.scalars(first)),
        )
    return counts


async def _store_samples(
    session: AsyncSession, request: DeletionRequest, ids: list[str], models: Sequence[UUID]
) -> None:
    """Store which samples are named, and what that asks of each model.

    Where nothing is left to forget, the target is completed already.

    Raises:
        UnknownSamples: some are not in the dataset.
    """

    def store(known: CTE) -> Insert:
        named = select(literal(request.id), known.c.sample_id).order_by(known.c.sample_id)
        return insert(RequestSample).from_select(["request_id", "sample_id"], named)

    counts = await store_named(session, request.dataset_id, ids, models, store)
    for row in counts:
        session.add(
            DeletionTarget(
                request_id=request.id,
                model_id=row.id,
                status=RequestStatus.PENDING if row.something_left else RequestStatus.COMPLETED,
                already_forgotten=row.forgotten,
                not_trained_on=row.untrained,
            )
        )
    if not any(row.something_left for row in counts):
        request.status, request.finished_at = RequestStatus.COMPLETED, func.now()
    await session.flush()


async def _read(session: AsyncSession, ids: Sequence[UUID]) -> list[DeletionRequestRead]:
    """Requests in the order of `ids`, without those that do not exist.

    Requests are read before their targets: one that is seen completed is seen with its results.
    """
    requests = await session.execute(
        select(DeletionRequest, Dataset.name)
        .join(Dataset, Dataset.id == DeletionRequest.dataset_id)
        .where(DeletionRequest.id.in_(ids))
        .execution_options(populate_existing=True)
    )
    by_id = {request.id: (request, dataset) for request, dataset in requests}
    targets = await _read_targets(session, ids)
    decisions = await _read_decisions(session, ids)
    return [
        DeletionRequestRead(
            id=request.id,
            status=request.status,
            objective=request.objective,
            exact=request.exact,
            dataset=dataset,
            samples=request.samples,
            duplicates=request.duplicates,
            subject_ref=request.subject_ref,
            reason=request.reason,
            received_at=request.received_at,
            due_at=request.due_at,
            created_at=request.created_at,
            finished_at=request.finished_at,
            targets=targets[request.id],
            decisions=decisions[request.id],
        )
        for request, dataset in (by_id[request_id] for request_id in ids if request_id in by_id)
    ]


async def _read_targets(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, list[TargetRead]]:
    """The targets of each request, by the names of their models."""
    rows = await session.execute(
        select(DeletionTarget, Model.name, Job, ModelVersion, Round.reason, Before, After)
        .join(Model, Model.id == DeletionTarget.model_id)
        .outerjoin(Job, Job.id == DeletionTarget.job_id)
        .outerjoin(ModelVersion, ModelVersion.job_id == Job.id)
        .outerjoin(Round, and_(Round.job_id == Job.id, Round.kept))
        .outerjoin(Before, and_(Before.job_id == Job.id, Before.moment == "before"))
        .outerjoin(After, and_(After.job_id == Job.id, After.moment == "after"))
        .where(DeletionTarget.request_id.in_(ids))
        .order_by(Model.name)
    )
    targets: dict[UUID, list[TargetRead]] = {request_id: [] for request_id in ids}
    for target, model, job, version, reason, before, after in rows:
        targets[target.request_id].append(
            TargetRead(
                model=model,
                status=target.status,
                job_id=target.job_id,
                already_forgotten=target.already_forgotten,
                not_trained_on=target.not_trained_on,
                result=_result(target, job, version, reason, before, after),
                failure=Failure.model_validate(job.failure) if job and job.failure else None,
            )
        )
    return targets


async def _read_decisions(
    session: AsyncSession, ids: Sequence[UUID]
) -> dict[UUID, list[DecisionRead]]:
    rows = await session.scalars(
        select(ReviewDecision).where(ReviewDecision.request_id.in_(ids)).order_by(ReviewDecision.id)
    )
    decisions: dict[UUID, list[DecisionRead]] = {request_id: [] for request_id in ids}
    for row in rows:
        decisions[row.request_id].append(DecisionRead.model_validate(row))
    return decisions


def _result(
    target: DeletionTarget,
    job: Job | None,
    version: ModelVersion | None,
    reason: str | None,
    before: Evaluation | None,
    after: Evaluation | None,
) -> TargetResult | None:
    if target.status not in REVIEWED or job is None or version is None:
        return None
    return TargetResult(
        version=version.number,
        weights_sha256=version.weights_sha256,
        mode=version.mode,
        mode_reason=job.mode_reason,
        verdict=job.verdict,
        verdict_reason=reason,
        meaning=MEANING[job.verdict] if job.verdict else None,
        before=Scores.model_validate(before) if before else None,
        after=Scores.model_validate(after) if after else None,
    )
