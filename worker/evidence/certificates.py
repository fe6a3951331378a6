"""Issues certificates of completed requests: reads, signs and stores.

Runs for every checkpoint, and certifies the requests about which it is the first to prove something
new.

The content of a certificate is built by `evidence.statement`.
"""

import json
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Any
from uuid import UUID

import rfc8785
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signer
from sqlalchemy import Row, Select, and_, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from domain import trail
from domain.events import (
    CertificateIssued,
    RequestCompleted,
    RequestDecided,
    RequestReceived,
    RequestRowsErased,
    RequestRowsKept,
    RequestShredded,
    SigningKeyIntroduced,
    VersionPurged,
)
from domain.states import Decision, RequestStatus, RowsStatus, Verdict, VersionStatus
from domain.tables import (
    AuditEvent,
    Certificate,
    CertifiedCheckpoint,
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Job,
    LogCheckpoint,
    LogLeaf,
    Model,
    ModelVersion,
    Round,
    VerdictTest,
)
from evidence import entries, merkle, signed_notes, subjects, tree
from evidence.statement import Case, Entry, Keyed, Log, Outcome, Purge, Rows, says_more, statement
from evidence.subjects import LookedUp
from worker.evidence import acceptances, measured

PAYLOAD_TYPE = "application/vnd.in-toto+json"
ROWS_EVENTS = (RequestRowsErased.event, RequestRowsKept.event)
NO_PURGES: Mapping[UUID, Purge] = MappingProxyType({})


def issue_due(sessions: sessionmaker[Session], signer: Signer) -> None:
    """Certify everything that the newest checkpoint is the first to cover.

    Idempotent: the next call resumes where this one stopped.
    """
    with sessions.begin() as session:
        newest = session.scalars(tree.NEWEST_CHECKPOINT).one_or_none()
        done = session.scalars(select(func.max(CertifiedCheckpoint.size))).one() or 0
        if newest is None or newest.size == done:
            return
        request_ids = session.scalars(_with_news(done, newest.size)).all()
    for request_id in request_ids:
        with sessions.begin() as session:
            session.get_one(DeletionRequest, request_id, with_for_update=True)
            events = _covered(session, request_id, newest)
            log = _log(session, request_id, newest, events)
            told = [event for event, _ in events]
            issue(
                session,
                request_id,
                log,
                signer,
                keyed=_keyed(request_id, told),
                purges=_purges(session, request_id),
                rows=_rows(session, request_id, told),
                looked_up=subjects.told(request_id, told),
            )
    with sessions.begin() as session:
        row = insert(CertifiedCheckpoint).values(size=newest.size)
        session.execute(row.on_conflict_do_nothing())  # another process may have done it


def _with_news(start: int, end: int) -> Select[UUID]:
    """Completed requests with news in the log from `start` to `end`: their completion or shredding,
    what became of their samples' rows, or the purge of the version served before."""
    news = (
        select(AuditEvent.event, AuditEvent.subject_id)
        .join(LogLeaf, LogLeaf.event_id == AuditEvent.id)
        .where(LogLeaf.position >= start, LogLeaf.position < end)
        .cte("news")
    )
    told = select(news.c.subject_id).where(
        news.c.event.in_((RequestCompleted.event, RequestShredded.event, *ROWS_EVENTS))
    )
    purged = (
        select(DeletionTarget.request_id)
        .join(Job, Job.id == DeletionTarget.job_id)
        .join(ModelVersion, ModelVersion.job_id == Job.id)
        .join(news, news.c.subject_id == func.coalesce(ModelVersion.parent_id, Job.base_version_id))
        .where(news.c.event == VersionPurged.event)
    )
    return (
        select(DeletionRequest.id)
        .where(
            DeletionRequest.status == RequestStatus.COMPLETED,
            or_(DeletionRequest.id.in_(told), DeletionRequest.id.in_(purged)),
        )
        .order_by(DeletionRequest.id)
    )


def _covered(
    session: Session, request_id: UUID, checkpoint: LogCheckpoint
) -> Sequence[Row[AuditEvent, int]]:
    """The events about a request that a checkpoint covers; key introductions are left out."""
    return session.execute(
        entries.about(request_id).where(
            LogLeaf.position < checkpoint.size, AuditEvent.event != SigningKeyIntroduced.event
        )
    ).all()


def _keyed(request_id: UUID, events: Iterable[AuditEvent]) -> Keyed:
    """The digests under the request's key, from the log: the key may have been destroyed."""
    mine = [event for event in events if event.subject_id == request_id]
    received = next(event.data for event in mine if event.event == RequestReceived.event)
    return Keyed(
        commitment=received.get("commitment"),
        subject_ref=received.get("subject_ref_hmac"),
        reason=received.get("reason_hmac"),
        grounds={
            UUID(event.data["job"]): event.data["ground_hmac"]
            for event in mine
            if event.event == RequestDecided.event
            and event.data["decision"] == Decision.ACCEPT
            and event.data.get("ground_hmac")
        },
    )


def _purges(session: Session, request_id: UUID) -> dict[UUID, Purge]:
    """The purges of the superseded versions of the models in a request. Weights that another
    version also names were not deleted."""
    kept = exists().where(
        AuditEvent.subject_id == ModelVersion.id,
        AuditEvent.event == VersionPurged.event,
        AuditEvent.data["kept"].contains(["weights"]),
    )
    rows = session.execute(
        select(ModelVersion.id, ModelVersion.purge_after, ModelVersion.purged_at, kept)
        .join(DeletionTarget, DeletionTarget.model_id == ModelVersion.model_id)
        .where(
            DeletionTarget.request_id == request_id,
            ModelVersion.status == VersionStatus.SUPERSEDED,
        )
    )
    return {
        version_id: Purge(due_at=due_at, purged_at=None if is_kept else purged_at)
        for version_id, due_at, purged_at, is_kept in rows
    }


def _rows(session: Session, request_id: UUID, events: Sequence[AuditEvent]) -> Rows | None:
    """What the newest event says of the samples' rows. While there is none, a job is to erase
    them, if there are any."""
    definition, samples = session.execute(
        select(Dataset.definition, DeletionRequest.samples)
        .join(DeletionRequest, DeletionRequest.dataset_id == Dataset.id)
        .where(DeletionRequest.id == request_id)
    ).one()
    told = [each for each in events if each.event in ROWS_EVENTS]
    if not told:
        erases = samples > 0 and definition.get("erase", {}).get("parquet", False)
        return Rows(status=RowsStatus.WAITING) if erases else None
    newest = told[-1]
    if newest.event == RequestRowsErased.event:
        return Rows(status=RowsStatus.GONE, left=0, at=newest.at)
    status = RowsStatus(newest.data["why"])
    return Rows(status=status, left=newest.data.get("left"), at=newest.at)


def _log(
    session: Session,
    request_id: UUID,
    checkpoint: LogCheckpoint,
    events: Sequence[Row[AuditEvent, int]],
) -> Log:
    """What the log says about a request at a checkpoint."""
    completion, position = next(
        (event, position)
        for event, position in reversed(events)
        if event.event == RequestCompleted.event and event.subject_id == request_id
    )
    spans = merkle.inclusion(position, checkpoint.size)
    nodes = tree.by_node(session.execute(tree.fetching(spans)))
    return Log(
        origin=signed_notes.read(checkpoint.note).origin,
        events=[(position, event.event) for event, position in events],
        completed=Entry(
            position=position,
            leaf=entries.entry(completion, position).decode(),
            proof=[merkle.hash_of(span, nodes) for span in spans],
        ),
        checkpoint=checkpoint.note,
    )


def issue(
    session: Session,
    request_id: UUID,
    log: Log,
    signer: Signer,
    *,
    keyed: Keyed = Keyed(),  # noqa: B008 (it is frozen)
    purges: Mapping[UUID, Purge] = NO_PURGES,
    rows: Rows | None = None,
    looked_up: LookedUp | None = None,
) -> Certificate:
    """The newest certificate of a request, or a new one if there is more to certify.

    The request is locked, so only one is issued at a time. Issuing records an event in the same
    transaction.

    Args:
        log: what the log says about the request.
        keyed: the digests that stand for its personal data.
        purges: purges of the weights of superseded versions, by version.
        rows, looked_up: what the log says of the samples' rows and of subjects, if it does.

    Raises:
        ValueError: the request is not completed; nothing else is certified.
    """
    request = session.get_one(DeletionRequest, request_id, with_for_update=True)
    if request.status is not RequestStatus.COMPLETED:
        raise ValueError(f"request {request_id} is {request.status}, not completed")
    case = Case(
        request=request,
        outcomes=_outcomes(session, request_id),
        log=log,
        keyed=keyed,
        purges=purges,
        rows=rows,
        looked_up=looked_up,
    )
    newest = session.scalars(
        select(Certificate)
        .filter_by(request_id=request_id)
        .order_by(Certificate.number.desc())
        .limit(1)
    ).first()
    now = session.scalars(select(func.now())).one()
    number = newest.number + 1 if newest else 1
    said = statement(case, number=number, at=now)
    if newest is not None and not says_more(said, _payload(newest.envelope), log):
        return newest
    payload = rfc8785.dumps(said)
    certificate = Certificate(
        request_id=request_id,
        number=number,
        envelope=envelope(payload, signer),
        payload_sha256=sha256(payload).hexdigest(),
    )
    session.add(certificate)
    session.flush()  # the database dates it as the statement does: to the transaction's begin
    issued = CertificateIssued(number=number, sha256=certificate.payload_sha256)
    trail.record(session, "worker", request_id, issued)
    return certificate


def envelope(payload: bytes, signer: Signer) -> str:
    """The signed DSSE envelope around a statement's bytes, as JSON."""
    signed = Envelope(payload, PAYLOAD_TYPE, {})
    signed.sign(signer)
    return json.dumps(signed.to_dict())


def _payload(stored: str) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(b64decode(json.loads(stored)["payload"]))
    return payload


def _outcomes(session: Session, request_id: UUID) -> list[Outcome]:
    rows = session.execute(
        select(DeletionTarget, Model, Job, ModelVersion, Round)
        .join(Model, Model.id == DeletionTarget.model_id)
        .outerjoin(Job, Job.id == DeletionTarget.job_id)
        .outerjoin(ModelVersion, ModelVersion.job_id == Job.id)
        .outerjoin(Round, and_(Round.job_id == Job.id, Round.kept))
        .where(DeletionTarget.request_id == request_id)
        .order_by(Model.name)
    ).all()
    return [_outcome(session, *row) for row in rows]


def _outcome(
    session: Session,
    target: DeletionTarget,
    model: Model,
    job: Job | None,
    after: ModelVersion | None,
    tried: Round | None,
) -> Outcome:
    if job is None or after is None:
        before = _served(session, target)
    else:
        before = session.get_one(ModelVersion, after.parent_id or job.base_version_id)
    return Outcome(
        model=model,
        target=target,
        before=before,
        old=_superseded(session, model.id, below=(after or before).number),
        job=job,
        after=after,
        round=tried,
        tests=_tests(session, tried) if tried else (),
        acceptance=acceptances.of(session, target, job),
        **(measured.of(session, job) if job and after else {}),
    )


def _served(session: Session, target: DeletionTarget) -> ModelVersion:
    """The champion when the request was completed: the one version that existed and had not been
    superseded. A version with the verdict `fail` counts only once it is accepted.

    The time is the event's clock time: it is later than everything the transaction had seen, while
    `finished_at` is when the transaction began.
    """
    completed_at = (
        select(func.max(AuditEvent.at))
        .where(
            AuditEvent.subject_id == target.request_id, AuditEvent.event == RequestCompleted.event
        )
        .scalar_subquery()
    )
    return session.scalars(
        select(ModelVersion)
        .join(Job, Job.id == ModelVersion.job_id)
        .where(
            ModelVersion.model_id == target.model_id,
            ModelVersion.created_at <= completed_at,
            or_(ModelVersion.superseded_at.is_(None), ModelVersion.superseded_at > completed_at),
            or_(
                Job.verdict.is_(None),
                Job.verdict != Verdict.FAIL,
                acceptances.given_by(completed_at),
            ),
        )
    ).one()


def _superseded(session: Session, model_id: UUID, *, below: int) -> list[ModelVersion]:
    """Superseded versions with lower numbers, discarded candidates included."""
    return list(
        session.scalars(
            select(ModelVersion)
            .filter_by(model_id=model_id, status=VersionStatus.SUPERSEDED)
            .where(ModelVersion.number < below)
            .order_by(ModelVersion.number)
        )
    )


def _tests(session: Session, tried: Round) -> list[VerdictTest]:
    """The tests of a round, in the order of the audit: before, after, guards."""
    moment = func.array_position(["before", "after", "guard"], VerdictTest.moment)
    return list(
        session.scalars(
            select(VerdictTest)
            .filter_by(job_id=tried.job_id, round=tried.number)
            .order_by(moment, VerdictTest.position)
        )
    )
