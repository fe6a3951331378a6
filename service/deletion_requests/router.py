"""The routes of deletion requests. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Query, Request, Response

from domain import doorbell
from domain.errors import (
    CannotCancel,
    CannotShred,
    ChampionChanged,
    IdempotencyKeyInFlight,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InvalidCursor,
    KeyGone,
    NoRecipe,
    NotFound,
    NothingToDecide,
    NotNamed,
    NotReady,
    TooManySamples,
    UnknownSamples,
)
from domain.states import MOVING_REQUESTS, RequestStatus
from service import polling
from service.deletion_requests import cancellation, decisions, operations, reading, subjects
from service.deletion_requests.schemas import (
    DecisionCreate,
    DeletionRequestCreate,
    DeletionRequestRead,
    InclusionCreate,
    InclusionRead,
)
from service.dependencies import IdempotencyKey, Queue, Sessions
from service.fields import Name
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/deletion-requests", tags=["deletion requests"])

OnlyStatus = Annotated[RequestStatus | None, Query(alias="status")]


@router.post(
    "",
    status_code=202,
    response_model=DeletionRequestRead,
    responses=documented(
        IdempotencyKeyMissing,
        NotFound,
        NotReady,
        IdempotencyKeyInFlight,
        IdempotencyKeyReused,
        UnknownSamples,
        NoRecipe,
        TooManySamples,
    ),
)
async def submit_deletion_request(
    body: DeletionRequestCreate,
    idempotency_key: IdempotencyKey,
    request: Request,
    background: BackgroundTasks,
) -> Response:
    """Ask that samples be forgotten. Accepted now, done later: follow `Location`.

    Ids that are repeated are counted once. Ids a model has forgotten before are accepted and
    reported, and no work is done for them. Hold-out and test samples, which no model was trained
    on, are taken out of what is kept for its jobs.
    """
    state = request.app.state  # to declare each of these costs as much as to read the body
    answer = await operations.submit(
        state.transactions, body, key=idempotency_key, settings=state.settings
    )
    background.add_task(doorbell.ring_sweep_together, state.queue)
    location = {"Location": f"/v1/deletion-requests/{answer.request.id}"}
    replayed = {"Idempotent-Replayed": "true"} if answer.replayed else {}
    return Response(
        answer.request.model_dump_json(),
        202,
        headers=location | polling.RETRY_AFTER | replayed,
        media_type="application/json",
        background=background,
    )


@router.get("", responses=documented(InvalidCursor))
async def list_deletion_requests(
    sessions: Sessions, window: Paging, only_status: OnlyStatus = None, model: Name | None = None
) -> Page[DeletionRequestRead]:
    """Deletion requests, newest first: all, or those of one status or one model."""
    return await reading.find(sessions, window, status=only_status, model=model)


@router.get("/{request_id}", response_model=DeletionRequestRead, responses=documented(NotFound))
async def read_deletion_request(request_id: UUID, sessions: Sessions, request: Request) -> Response:
    """One deletion request: how far it is, and what came of it for each model."""
    read = await reading.get(sessions, request_id)
    return polling.answer(request, read, is_open=read.status in MOVING_REQUESTS)


@router.post("/{request_id}/cancel", responses=documented(NotFound, CannotCancel))
async def cancel_deletion_request(
    request_id: UUID, sessions: Sessions, queue: Queue, background: BackgroundTasks
) -> DeletionRequestRead:
    """Take a request back before it is answered; a job that runs for it stops within seconds.

    Other requests of that job are served by a new one. What a model has forgotten already stays
    forgotten. Cancelling twice is harmless.
    """
    await cancellation.cancel(sessions, request_id)
    background.add_task(doorbell.ring_sweep_together, queue)
    return await reading.get(sessions, request_id)


@router.post(
    "/{request_id}/decision", responses=documented(NotFound, NothingToDecide, ChampionChanged)
)
async def decide_deletion_request(
    request_id: UUID,
    body: DecisionCreate,
    sessions: Sessions,
    queue: Queue,
    background: BackgroundTasks,
) -> DeletionRequestRead:
    """Decide about a request whose jobs ended with the verdict `fail`, after all that was tried.

    Other requests may have shared the job. Accepting completes them too; after a retry or a
    refusal they are tried anew with it, or without it. The due date keeps running meanwhile.
    """
    await decisions.decide(sessions, request_id, body)
    background.add_task(doorbell.ring_sweep_together, queue)
    return await reading.get(sessions, request_id)


@router.post("/{request_id}/inclusion", responses=documented(NotFound, NotNamed, KeyGone))
async def show_inclusion_in_deletion_request(
    request_id: UUID, body: InclusionCreate, sessions: Sessions
) -> InclusionRead:
    """What proves to a person that the request named their sample, and shows none of the others.

    It leads to the request's `commitment`, which the audit trail holds since the request came in.
    It works until the request is shredded, also after its ids were deleted. A POST, so that the id
    stands in no address.
    """
    return await subjects.show_inclusion(sessions, request_id, body.sample_id)


@router.post("/{request_id}/shred", responses=documented(NotFound, CannotShred))
async def shred_deletion_request(request_id: UUID, sessions: Sessions) -> DeletionRequestRead:
    """Destroy what links the request to a person: its key, `subject_ref`, `reason`, the grounds of
    decisions and what its `Idempotency-Key` stands for.

    The audit trail still verifies, but what it holds of the request can be linked to nobody. There
    is no way back. Shredding twice is harmless.
    """
    await subjects.shred(sessions, request_id)
    return await reading.get(sessions, request_id)
