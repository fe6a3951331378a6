"""What a person decides where no attempt of a job got a better verdict than `fail`.

One function, one transaction: all candidates that a request waits for are decided together. A
decision holds whatever happened since the candidate was made: one that was overtaken is made anew.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.orm import Session

from domain import forgetting, requests, trail
from domain.errors import NothingToDecide, no_such
from domain.events import RequestDecided, VersionPromoted
from domain.states import Decision, RequestStatus, VersionStatus
from domain.tables import (
    DeletionRequest,
    DeletionTarget,
    ModelVersion,
    RequestKey,
    ReviewDecision,
    Tombstone,
)
from evidence import commitments
from service.deletion_requests.schemas import DecisionCreate
from service.dependencies import Sessions

ADMIN = "admin"
"""Who holds the one key there is."""


async def decide(sessions: Sessions, request_id: UUID, wanted: DecisionCreate) -> None:
    """Store a decision and do what it says.

    Raises:
        NotFound: there is no such request.
        NothingToDecide: it does not need review, or not any more.
    """
    async with sessions.begin() as session:
        await session.run_sync(_decide, request_id, wanted)


def _decide(session: Session, request_id: UUID, wanted: DecisionCreate) -> None:
    if session.get(DeletionRequest, request_id) is None:
        raise no_such(f"deletion request {request_id}", listed_at="/v1/deletion-requests")
    candidates = _candidates(session, request_id)
    if not candidates:
        raise NothingToDecide(
            "This request does not await a decision; only one with the status `needs_review` does."
        )
    _lock(session, candidates)
    for candidate in candidates:
        if wanted.decision is Decision.ACCEPT:
            _accept(session, candidate, wanted)
        else:
            _store(session, candidate, wanted, [request_id])
            forgetting.supersede(session, candidate, actor="api")
            if wanted.decision is Decision.REFUSE:
                mine = DeletionTarget.request_id == request_id
                _end(session, candidate, RequestStatus.REFUSED, mine)
            _try_again(session, candidate)


def _accept(session: Session, candidate: ModelVersion, wanted: DecisionCreate) -> None:
    """Serve the candidate; where it still knows what the model forgot since, have it made anew from
    the present champion, with the acceptance standing."""
    champion = session.scalars(
        select(ModelVersion).filter_by(model_id=candidate.model_id, status=VersionStatus.CHAMPION)
    ).one()
    overtaken = _is_overtaken(session, candidate, champion)
    decided = _waiting_for(session, candidate)
    _store(session, candidate, wanted, decided, overtaken=overtaken or None)
    if overtaken:
        forgetting.supersede(session, candidate, actor="api")
        served = DeletionTarget.job_id == candidate.job_id
        waits = DeletionTarget.status == RequestStatus.NEEDS_REVIEW
        session.execute(
            update(DeletionTarget)
            .where(served, waits)
            .values(accepted_job_id=candidate.job_id)
            .execution_options(synchronize_session=False)
        )
        _try_again(session, candidate)
    else:
        _promote(session, candidate, over=champion)
        _end(session, candidate, RequestStatus.COMPLETED)


def _store(
    session: Session,
    candidate: ModelVersion,
    wanted: DecisionCreate,
    decided: Sequence[UUID],
    *,
    overtaken: bool | None = None,
) -> None:
    """The decision, for each request that it ends or tries anew by itself; the trail is told its
    ground only as a digest under the request's key."""
    keys = session.scalars(select(RequestKey).where(RequestKey.request_id.in_(decided)))
    key_of = {row.request_id: row.key for row in keys}
    for request_id in decided:
        key = key_of.get(request_id)
        trail.record(
            session, "api", request_id,
            RequestDecided(
                decision=wanted.decision, job=candidate.job_id, by=ADMIN,
                ground_hmac=commitments.mac(key, wanted.ground).hex() if key else None,
                overtaken=overtaken,
            ),
        )  # fmt: skip
        session.add(
            ReviewDecision(
                request_id=request_id,
                job_id=candidate.job_id,
                decision=wanted.decision,
                ground=wanted.ground,
                decided_by=ADMIN,
            )
        )


def _waiting_for(session: Session, candidate: ModelVersion) -> list[UUID]:
    """The requests that a decision to accept the candidate is about."""
    return list(
        session.scalars(
            select(DeletionTarget.request_id)
            .filter_by(job_id=candidate.job_id, status=RequestStatus.NEEDS_REVIEW)
            .order_by(DeletionTarget.request_id)
        )
    )


def _candidates(session: Session, request_id: UUID) -> list[ModelVersion]:
    """The candidates the request waits for, locked: of two decisions at once, one finds none."""
    served = select(DeletionTarget.job_id).where(
        DeletionTarget.request_id == request_id,
        DeletionTarget.status == RequestStatus.NEEDS_REVIEW,
    )
    return list(
        session.scalars(
            select(ModelVersion)
            .where(ModelVersion.job_id.in_(served), ModelVersion.status == VersionStatus.CANDIDATE)
            .order_by(ModelVersion.id)
            .with_for_update()
        )
    )


def _lock(session: Session, candidates: Sequence[ModelVersion]) -> None:
    """Lock what several steps are about to change, first the champions, then the requests.

    A job that ends does so too: neither can wait for the other in a circle, and what is read of
    the champions from here on is what such a job left.
    """
    models = [candidate.model_id for candidate in candidates]
    is_champion = ModelVersion.status == VersionStatus.CHAMPION
    session.execute(
        select(ModelVersion.id)
        .where(ModelVersion.model_id.in_(models), is_champion)
        .order_by(ModelVersion.id)
        .with_for_update()
    )
    served = select(DeletionTarget.request_id).where(
        DeletionTarget.job_id.in_([candidate.job_id for candidate in candidates])
    )
    session.execute(
        select(DeletionRequest.id)
        .where(DeletionRequest.id.in_(served))
        .order_by(DeletionRequest.id)
        .with_for_update()
    )


def _is_overtaken(session: Session, candidate: ModelVersion, champion: ModelVersion) -> bool:
    """Whether the model has forgotten other samples since the candidate was made. The candidate
    still knows them, and must never be served."""
    # Hold-out and test samples leave the champion's reservoir without making a new version.
    changed = exists().where(
        Tombstone.model_id == candidate.model_id, Tombstone.forgotten_at > candidate.created_at
    )
    return champion.id != candidate.parent_id or bool(session.scalar(select(changed)))


def _promote(session: Session, candidate: ModelVersion, *, over: ModelVersion) -> None:
    """Serve the candidate; the samples it was made to forget are forgotten from now on."""
    forgetting.promote(session, candidate, over=over, actor="api")
    forgetting.record_forgotten(session, job_id=candidate.job_id, model_id=candidate.model_id)
    trail.record(
        session, "api", candidate.id,
        VersionPromoted(number=candidate.number, weights_sha256=candidate.weights_sha256),
    )  # fmt: skip


def _end(
    session: Session, candidate: ModelVersion, status: RequestStatus, *where: ColumnElement[bool]
) -> None:
    served = DeletionTarget.job_id == candidate.job_id
    requests.move(session, status, served, *where, actor="api", job_id=candidate.job_id)


def _try_again(session: Session, candidate: ModelVersion) -> None:
    """What still waits for the candidate waits for a new job."""
    served = DeletionTarget.job_id == candidate.job_id
    requests.move(session, RequestStatus.PENDING, served, actor="api", job_id=None)
