"""The routes of deletion requests. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response

from domain import doorbell
from domain.errors import (
    CannotCancel,
    CannotShred,
    Deleted,
    IdempotencyKeyInFlight,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InvalidCursor,
    KeyGone,
    NoGroups,
    NoRecipe,
    NotFound,
    NothingToDecide,
    NotNamed,
    NotReady,
    TooManySamples,
    UnknownSamples,
    UnknownSubjects,
)
from domain.states import MOVING_REQUESTS, RequestStatus
from service import polling
from service.deletion_requests import cancellation, decisions, operations, reading, subjects
from service.deletion_requests.demands import DeletionRequestCreate
from service.deletion_requests.schemas import (
    DecisionCreate,
    DeletionRequestRead,
    InclusionCreate,
    InclusionRead,
    held_until,
)
from service.dependencies import IdempotencyKey, Queue, Sessions
from service.fields import Name
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/deletion-requests", tags=["deletion requests"])

RequestId = Annotated[
    UUID, Path(description="The id of the deletion request, as its `Location` gives it.")
]
OnlyStatus = Annotated[
    RequestStatus | None,
    Query(alias="status", description="Return only requests with this status."),
]
OnlyModel = Annotated[
    Name | None, Query(description="Return only requests that ask this model to forget.")
]

InOrder = Annotated[
    reading.Order,
    Query(
        alias="order",
        description="The order: `newest` first, or `due` for what must be answered first.",
    ),
]


@router.post(
    "",
    summary="Submit a deletion request",
    status_code=202,
    response_model=DeletionRequestRead,
    responses=documented(
        IdempotencyKeyMissing,
        NotFound,
        NotReady,
        Deleted,
        IdempotencyKeyInFlight,
        IdempotencyKeyReused,
        UnknownSamples,
        UnknownSubjects,
        NoGroups,
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
    """Ask for samples to be forgotten. The request is accepted now and carried out later; follow
    `Location`.

    Samples are named by their ids, by the `subjects` that they belong to, or by both. Subjects are
    looked up when the request is received: `resolved` says what was found, and only that is kept.

    What is repeated is counted once. Samples that a model has already forgotten are accepted and
    reported, but no work is done for them. Hold-out and test samples, which no model was trained
    on, are removed from the data that is kept for the model's jobs.
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
        headers=location | polling.retry_after(held_until(answer.request)) | replayed,
        media_type="application/json",
        background=background,
    )


@router.get("", summary="List deletion requests", responses=documented(InvalidCursor))
async def list_deletion_requests(
    sessions: Sessions,
    window: Paging,
    only_status: OnlyStatus = None,
    model: OnlyModel = None,
    order: InOrder = "newest",
) -> Page[DeletionRequestRead]:
    """List deletion requests: all of them, or those with one status or for one model.

    `?status=needs_review&order=due` is what awaits a decision, the earliest due date first. A
    cursor goes with the `order` it was given out for.
    """
    return await reading.find(sessions, window, status=only_status, model=model, order=order)


@router.get(
    "/{request_id}",
    summary="Get a deletion request",
    response_model=DeletionRequestRead,
    responses=documented(NotFound),
)
async def read_deletion_request(
    request_id: RequestId, sessions: Sessions, request: Request
) -> Response:
    """Get one deletion request: how far it is, and what came of it for each model."""
    read = await reading.get(sessions, request_id)
    is_open = read.status in MOVING_REQUESTS
    return polling.answer(request, read, is_open=is_open, held_until=held_until(read))


@router.post(
    "/{request_id}/cancel",
    summary="Cancel a deletion request",
    responses=documented(NotFound, CannotCancel),
)
async def cancel_deletion_request(
    request_id: RequestId, sessions: Sessions, queue: Queue, background: BackgroundTasks
) -> DeletionRequestRead:
    """Take a request back before it is answered. A job that runs for it stops within seconds.

    Other requests that shared the job are served by a new one. What a model has already forgotten
    stays forgotten. Cancelling twice is harmless.
    """
    await cancellation.cancel(sessions, request_id)
    background.add_task(doorbell.ring_sweep_together, queue)
    return await reading.get(sessions, request_id)


@router.post(
    "/{request_id}/decision",
    summary="Decide about a deletion request",
    responses=documented(NotFound, NothingToDecide),
)
async def decide_deletion_request(
    request_id: RequestId,
    body: DecisionCreate,
    sessions: Sessions,
    queue: Queue,
    background: BackgroundTasks,
) -> DeletionRequestRead:
    """Decide about a request whose job got the verdict `fail` after everything that the model's
    policy allows was tried.

    Other requests may have shared the job. If you accept, they are completed too. After `retry`
    they are tried again together with this request, after `refuse` without it. The due date does
    not move.

    A decision to accept holds even if the model has forgotten other samples since the candidate was
    made. The candidate still knows them, so it is never served; it is made anew at once, from the
    version that is served now, and these requests wait for that with the status `pending`. What
    comes of it is served if its verdict is better than `fail`, or if no test fails by more than
    you accepted. Otherwise you are asked again.
    """
    await decisions.decide(sessions, request_id, body)
    background.add_task(doorbell.ring_sweep_together, queue)
    return await reading.get(sessions, request_id)


@router.post(
    "/{request_id}/inclusion",
    summary="Prove that a deletion request named a sample or a subject",
    responses=documented(NotFound, NotNamed, KeyGone),
)
async def show_inclusion_in_deletion_request(
    request_id: RequestId, body: InclusionCreate, sessions: Sessions
) -> InclusionRead:
    """Prove to a person that the request named them or their sample, without revealing any other.

    The proof leads to the request's `commitment`, which has been in the audit trail since the
    request was received. It is available until the request is shredded, even after its ids have
    been deleted. This is a POST so that neither id nor subject appears in a URL.
    """
    return await subjects.show_inclusion(sessions, request_id, body)


@router.post(
    "/{request_id}/shred",
    summary="Shred a deletion request",
    responses=documented(NotFound, CannotShred),
)
async def shred_deletion_request(request_id: RequestId, sessions: Sessions) -> DeletionRequestRead:
    """Destroy everything that links the request to a person: its key, `subject_ref`, `reason`, the
    grounds of decisions, and the stored answer of its `Idempotency-Key`.

    The audit trail still verifies, but nothing in it can be linked to anybody any more. This
    cannot be undone. Shredding twice is harmless.
    """
    await subjects.shred(sessions, request_id)
    return await reading.get(sessions, request_id)
