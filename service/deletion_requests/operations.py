"""Takes a deletion request in, exactly once. One function, one transaction."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import structlog
from psycopg.errors import ObjectNotInPrerequisiteState
from psycopg.types.json import Jsonb
from sqlalchemy import ARRAY, String, and_, exists, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from uuid_utils.compat import uuid7

from domain import batching, erasure, outbox, trail
from domain.errors import (
    Deleted,
    IdempotencyKeyInFlight,
    IdempotencyKeyReused,
    NoRecipe,
    NotReady,
    UnknownSamples,
    no_such,
)
from domain.events import RequestCompleted
from domain.states import RegistrationStatus, RequestStatus
from domain.tables import FormerSample, Sample
from evidence import commitments
from evidence.commitments import Commitment
from service.deletion_requests import resolution, statements, submission
from service.deletion_requests.demands import Clock, DeletionRequestCreate
from service.deletion_requests.resolution import Found, Named
from service.deletion_requests.schemas import (
    DeletionRequestRead,
    TargetRead,
    planned,
)
from service.dependencies import Settings, Transactions

UNKNOWN_SHOWN = 100
AS_GIVEN = (
    "id", "objective", "exact", "urgent", "dataset", "samples", "subjects", "duplicates",
    "commitment", "subject_ref", "reason", "received_at", "time_zone", "due_at", "created_at",
)  # fmt: skip
"""What stays of a request as it was given, unless it is shredded."""

COMMITTED_AT_ONCE = 2_000
"""So many ids take some ten milliseconds."""

IN_FLIGHT = "The first request with this key is still being answered; send it again in a second."
DELETED_MEANWHILE = (
    "A model that is asked was deleted at this moment. Send the request again, with the same "
    "`Idempotency-Key`."
)
GONE = (
    "The model {model!r} was deleted: all its versions are purged, so nothing can be forgotten by "
    "it. To ask every model of its dataset that there is, name the `dataset`."
)
Asked = Sequence[Any]
"""A model that is to forget; how many of the samples it had forgotten, and how many it was not
trained on; how many no job could show it, where the dataset is in a later state; and until when the
request may wait there. Older keys have not the last two."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer:
    """What answers a submission, today and whenever its key is sent again."""

    request: DeletionRequestRead
    """As it began."""

    replayed: bool


async def submit(
    transactions: Transactions, wanted: DeletionRequestCreate, *, key: str, settings: Settings
) -> Answer:
    """Store a deletion request exactly once, however often it is sent.

    Raises:
        TooManySamples: it names more than one request may.
        IdempotencyKeyInFlight: another submission with this key is being answered.
        IdempotencyKeyReused: the key already stands for another body.
        NotFound: there is no such model or dataset.
        NotReady: a model that is to forget is not examined yet, or the index keeps changing.
        Deleted: the model was.
        NoRecipe: a model that is to be retrained cannot be.
        NoGroups: it names subjects, and nobody knows which samples are theirs.
        UnknownSamples, UnknownSubjects: some are not in the dataset.
    """
    most = settings.max_samples_per_request
    names = resolution.named(wanted, most)
    for _ in range(resolution.TRIES):
        found = Found()
        if names.subjects:
            async with transactions() as connection:
                found = await resolution.look(connection, wanted, names, most)
        commitment = await _committed([*resolution.all_ids(names, found), *found.leaves])
        try:
            async with transactions() as connection:
                answer = await _take(
                    connection, wanted, names, found, commitment, key=key, settings=settings
                )
        except ObjectNotInPrerequisiteState as error:  # as the trigger `of_a_model` says
            raise NotReady(DELETED_MEANWHILE) from error
        if answer is not None:
            return answer
    raise NotReady(resolution.CHANGING)


async def _take(
    connection: AsyncConnection,
    wanted: DeletionRequestCreate,
    names: Named,
    found: Found,
    commitment: Commitment,
    *,
    key: str,
    settings: Settings,
) -> Answer | None:
    """Store the request, or find that it was stored; None if its subjects must be looked up anew,
    since other samples are theirs by now."""
    ids, fingerprint, clock = resolution.all_ids(names, found), wanted.fingerprint(), wanted.clock()
    given: dict[str, Any] = {
        "id": str(uuid7()),
        "objective": wanted.objective,
        "exact": wanted.exact,
        "urgent": wanted.urgent,
        "subject_ref": wanted.subject_ref,
        "reason": wanted.reason,
        "samples": len(ids),
        **resolution.counts(names, found),
        "duplicates": names.duplicates,
        "commitment": commitment.root.hex(),
        "received_at": clock.received_at.isoformat(),
        "time_zone": clock.time_zone,
        "due_at": clock.due_at.isoformat(),
    }
    kind = {"by_model": wanted.model is not None, "of_subjects": bool(names.subjects)}
    values = {
        "key": key,
        "lock": _lock(key),
        "retention": settings.idempotency_retention,
        "fingerprint": fingerprint,
        "name": wanted.model or wanted.dataset,
        "ids": Jsonb(ids),
        "given": Jsonb(given),
        "told": Jsonb(_told(given, clock, commitment) | resolution.told(names, found)),
        **batching.limits(datetime.now(UTC), clock.due_at, urgent=wanted.urgent),
        "secret": commitment.key,
        "entries": commitment.entries,
        **(resolution.held_to(found) if names.subjects else {}),
    }
    rows = await submission.rows_of(connection, submission.taking(**kind), **values)
    if rows[0].is_alone and rows[0].fingerprint is None and rows[0].later:
        taking = submission.taking(**kind, later=True)
        rows = await submission.rows_of(connection, taking, **values)
    if not rows[0].is_alone:
        raise IdempotencyKeyInFlight(IN_FLIGHT)
    if rows[0].fingerprint is not None:
        return await _answered_before(connection, rows[0], fingerprint)
    if names.subjects and not rows[0].holds:
        return None
    models = await must_forget(connection, wanted, ids, rows)
    if found.refusal is not None:
        raise found.refusal
    if rows[0].id is None:  # though nothing speaks against it: another one was quicker
        raise IdempotencyKeyInFlight(IN_FLIGHT)
    request = _as_it_began({**given, **rows[0]._asdict()}, rows[0].counts)
    if request.status is RequestStatus.COMPLETED or rows[0].is_watched:
        await _tell(connection, request, ids)
    log.info(
        "deletion_request.received",
        request_id=str(request.id),
        status=request.status,
        samples=request.samples,
        subjects=request.subjects,
        duplicates=request.duplicates,
        models=len(models),
    )
    return Answer(request, replayed=False)


async def _tell(
    connection: AsyncConnection, request: DeletionRequestRead, ids: Sequence[str]
) -> None:
    """Tell those who watch of a new request, and the audit trail if it is completed already."""
    async with AsyncSession(connection) as session, session.begin():
        if request.status is RequestStatus.COMPLETED:
            trail.record(session, "api", request.id, RequestCompleted())
            if ids:
                await session.run_sync(erasure.expect_of_new, request.id, ids)
        await session.run_sync(outbox.announce, request.status, [request.id])


async def _committed(names: Sequence[str]) -> Commitment:
    """The commitment to these ids and subjects under a new key; of many, in a thread: others are
    answered meanwhile."""
    key = commitments.new_key()
    if len(names) <= COMMITTED_AT_ONCE:
        return commitments.commit(key, names)
    return await asyncio.to_thread(commitments.commit, key, names)


def _told(given: Mapping[str, Any], clock: Clock, commitment: Commitment) -> dict[str, Any]:
    """What the audit trail is told of what was given: free text as digests under the key."""

    def keyed(text: str | None) -> str | None:
        return None if text is None else commitments.mac(commitment.key, text).hex()

    told = ("objective", "exact", "urgent", "samples", "duplicates", "commitment")
    return {
        **{name: given[name] for name in told},
        "received_at": trail.instant(clock.received_at),
        "due_at": trail.instant(clock.due_at),
        "subject_ref_hmac": keyed(given["subject_ref"]),
        "reason_hmac": keyed(given["reason"]),
    }


async def _answered_before(connection: AsyncConnection, kept: Any, fingerprint: str) -> Answer:
    """The answer that the key of a submission has, as it was given first."""
    if kept.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            "This key was sent before with another body. Use a new key for a new request."
        )
    rows = (await connection.execute(statements.READ_ONE, {"id": kept.request_id})).all()
    return Answer(_as_it_began(rows[0]._asdict(), kept.asked), replayed=True)


def _lock(key: str) -> int:
    """The advisory lock that is held while this key is answered."""
    digest = sha256(f"lethe idempotency key {key}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


async def must_forget(
    connection: AsyncConnection,
    wanted: DeletionRequestCreate,
    ids: Sequence[str],
    named: Sequence[Any],
) -> Sequence[Any]:
    """Of the rows of `submission.NAMING`, those of the models that are to forget.

    Raises:
        NotFound, NotReady, Deleted, NoRecipe, UnknownSamples: nothing can be done about them as
            it is.
    """
    models = [row for row in named if row.model_id is not None]
    waiting = [row.model for row in models if row.model_status == RegistrationStatus.PENDING]
    ready = [row for row in models if row.model_status == RegistrationStatus.READY]
    if not named or named[0].dataset_id is None:
        if wanted.model:
            raise no_such(f"model {wanted.model!r}", listed_at="/v1/models")
        raise no_such(f"dataset {wanted.dataset!r}", listed_at="/v1/datasets")
    if wanted.model and named[0].model_status == RegistrationStatus.DELETED:
        raise Deleted(GONE.format(model=wanted.model))
    if wanted.model and not ready:
        if named[0].model_status == RegistrationStatus.FAILED:
            raise NotReady(
                f"The model {wanted.model!r} could not be registered. Register it again first; "
                f"`GET /v1/models/{wanted.model}` says what went wrong."
            )
        raise NotReady(
            f"The model {wanted.model!r} is still being examined; wait until "
            f"`GET /v1/models/{wanted.model}` says `ready`."
        )
    if waiting:
        raise NotReady(
            f"These models of the dataset are not ready yet: {', '.join(waiting)}. Wait until "
            "`GET /v1/models` says that they are, or name a `model`."
        )
    if not ready:
        raise NotReady(
            f"The dataset {wanted.dataset!r} has no model that is ready, so nothing can forget. "
            "Register a model first."
        )
    lacking = [row.model for row in ready if row.recipe is None]
    if wanted.exact and lacking:
        raise NoRecipe(
            f"`exact` needs a recipe, and these models have none: {', '.join(lacking)}. Leave out "
            "`exact`, or register the model with a `recipe` under another name."
        )
    unknown = len(ids) - ready[0].known
    if unknown:
        raise UnknownSamples(
            f"{unknown} of {len(ids)} ids are not in the dataset, so nothing was stored. Correct "
            "or remove them; `unknown_ids` lists the first of them.",
            unknown_count=unknown,
            unknown_ids=await _first_unknown(connection, named[0].dataset_id, ids),
        )
    return ready


async def _first_unknown(
    connection: AsyncConnection, dataset_id: UUID, ids: Sequence[str]
) -> list[str]:
    named = (
        func.unnest(literal(ids, ARRAY(String)))
        .table_valued("sample_id", with_ordinality="position", name="named")
        .render_derived()
    )
    is_known = and_(Sample.dataset_id == dataset_id, Sample.sample_id == named.c.sample_id)
    was_known = and_(
        FormerSample.dataset_id == dataset_id, FormerSample.sample_id == named.c.sample_id
    )
    first = select(named.c.sample_id).where(~exists().where(is_known), ~exists().where(was_known))
    shown = first.order_by(named.c.position).limit(UNKNOWN_SHOWN)
    return list((await connection.scalars(shown)).all())


def _as_it_began(request: Mapping[str, Any], asked: Iterable[Asked]) -> DeletionRequestRead:
    """The request before anything was done for it. Where nothing was left to forget, it was
    completed at once."""
    targets = [_target_as_it_began(request["samples"], *each) for each in asked]
    is_open = any(target.status is RequestStatus.PENDING for target in targets)
    return DeletionRequestRead(
        **{name: request[name] for name in AS_GIVEN},
        resolved=resolution.read(request, models=len(targets)),
        status=RequestStatus.PENDING if is_open else RequestStatus.COMPLETED,
        planned_for=planned(targets),
        finished_at=None if is_open else request["created_at"],
        overdue_at=None,
        shredded_at=None,
        rows=None,
        targets=targets,
        decisions=[],
    )


def _target_as_it_began(
    samples: int, model: str, forgotten: int, untrained: int, *more: int | str
) -> TargetRead:
    former = sum(each for each in more if isinstance(each, int))
    until = [datetime.fromisoformat(each) for each in more if isinstance(each, str)]
    is_open = forgotten < samples
    return TargetRead(
        model=model,
        status=RequestStatus.PENDING if is_open else RequestStatus.COMPLETED,
        job_id=None,
        planned_for=until[0] if until and is_open and not former else None,
        already_forgotten=forgotten,
        not_trained_on=untrained,
        former=former,
        result=None,
        failure=None,
    )
