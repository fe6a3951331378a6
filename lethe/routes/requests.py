"""The routes of deletion requests, estimates and certificates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid4

from lethe.calls import Call, Listed
from lethe.errors import NotSent
from lethe.routes.building import get, pages, post
from lethe.routes.subjects import listed
from lethe.routing import listing, route
from lethe.schemas.common import Objective, Page
from lethe.schemas.requests import (
    Certificate,
    DecisionKind,
    DeletionRequest,
    Estimate,
    Inclusion,
    OfUnknown,
    RequestOrder,
    RequestStatus,
)

NO_TIME = {"received_at": None, "time_zone": None}
ONE = "/v1/deletion-requests/{request_id}"


class DeletionRequests:
    """What is to be forgotten, and what came of it."""

    @route
    def forget(
        self,
        sample_ids: Sequence[str] = (),
        *,
        model: str | None = None,
        dataset: str | None = None,
        subjects: Sequence[str | int] = (),
        unknown_subjects: OfUnknown | str | None = None,
        objective: Objective | str | None = None,
        exact: bool | None = None,
        urgent: bool | None = None,
        subject_ref: str | None = None,
        received_at: datetime | None = None,
        time_zone: str | None = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[DeletionRequest]:
        """Ask that samples be forgotten. Accepted now, done later: `wait` follows it.

        Args:
            sample_ids: ids from the dataset's id column, at most 100,000.
            model: the model that is to forget; give this or `dataset`.
            dataset: every model trained on this dataset is to forget.
            subjects: people, accounts or households whose samples are to be forgotten, instead of
                ids or beside them; as the dataset's group column names them.
            unknown_subjects: `refuse` unless given, or `answer`: it is certified that nothing was
                found of a subject whom the dataset does not know.
            objective: `untrain_samples` unless given, or `remove_class`.
            exact: only a retraining without the samples will do.
            urgent: do not wait for others to share a job, and take along what waits. Otherwise it
                may wait for days: `planned_for` says until when.
            subject_ref: your reference to the person or ticket.
            received_at: when the person asked, with a time zone; now unless given.
            time_zone: the person's, such as `Europe/Berlin`: it decides on which day the legal
                month ends. The offset of `received_at` unless given.
            reason: why, for the file.
            idempotency_key: names this submission, so that sending it again changes nothing. A
                new one unless given; result and errors have it as `idempotency_key`.
        """
        when = {"received_at": received_at, "time_zone": time_zone}
        named = _named(sample_ids, subjects, unknown_subjects)
        body = _demand(named, model, dataset, objective, exact, urgent, subject_ref, when, reason)
        call = post("/v1/deletion-requests", DeletionRequest, body)
        return replace(call, idempotency_key=idempotency_key or str(uuid4()))

    @route
    def estimate(
        self,
        sample_ids: Sequence[str] = (),
        *,
        model: str | None = None,
        dataset: str | None = None,
        subjects: Sequence[str | int] = (),
        unknown_subjects: OfUnknown | str | None = None,
        objective: Objective | str | None = None,
        exact: bool | None = None,
    ) -> Call[Estimate]:
        """Ask what a deletion request would meet. Nothing is forgotten; `wait` for the answer."""
        named = _named(sample_ids, subjects, unknown_subjects)
        body = _demand(named, model, dataset, objective, exact, None, None, NO_TIME, None)
        return post("/v1/deletion-requests/estimate", Estimate, body)

    @route
    def read_estimate(self, estimate_id: UUID | str) -> Call[Estimate]:
        """One estimate: how far it is, and what it found for each model."""
        path = "/v1/deletion-requests/estimates/{estimate_id}"
        return get(path, Estimate, estimate_id=estimate_id)

    @listing
    def list_requests(
        self,
        *,
        status: RequestStatus | str | None = None,
        model: str | None = None,
        order: RequestOrder | str | None = None,
    ) -> Listed[Page[DeletionRequest], DeletionRequest]:
        """Deletion requests: all, or those of one status or one model.

        Args:
            order: `newest` first unless given, or `due` for what must be answered first.
        """
        query = {"status": status, "model": model, "order": order}
        return pages("/v1/deletion-requests", Page[DeletionRequest], query)

    @route
    def read_request(self, request_id: UUID | str) -> Call[DeletionRequest]:
        """One deletion request: how far it is, and what came of it for each model."""
        return get(ONE, DeletionRequest, request_id=request_id)

    @route
    def cancel_request(self, request_id: UUID | str) -> Call[DeletionRequest]:
        """Take a request back before it is answered. Cancelling twice is harmless."""
        return post(f"{ONE}/cancel", DeletionRequest, harmless=True, request_id=request_id)

    @route
    def decide_request(
        self, request_id: UUID | str, decision: DecisionKind | str, ground: str
    ) -> Call[DeletionRequest]:
        """Decide about a request that needs review.

        Args:
            decision: `accept` the candidate in spite of its verdict, `retry`, or `refuse`. A
                candidate that other requests have overtaken is made anew, and the request waits.
            ground: why. Stored with the request, never logged.
        """
        body = {"decision": decision, "ground": ground}
        return post(f"{ONE}/decision", DeletionRequest, body, request_id=request_id)

    @route
    def prove_naming(
        self,
        request_id: UUID | str,
        sample_id: str | None = None,
        *,
        subject: str | int | None = None,
    ) -> Call[Inclusion]:
        """What proves to a person that the request named them or their sample, and shows no
        other. Give one of the two."""
        body = {"sample_id": sample_id, "subject": subject}
        return post(f"{ONE}/inclusion", Inclusion, body, harmless=True, request_id=request_id)

    @route
    def shred_request(self, request_id: UUID | str) -> Call[DeletionRequest]:
        """Destroy what links the request to a person. There is no way back."""
        return post(f"{ONE}/shred", DeletionRequest, harmless=True, request_id=request_id)

    @route
    def read_certificate(
        self, request_id: UUID | str, *, number: int | None = None
    ) -> Call[Certificate]:
        """What was certified of a completed request: the newest certificate, or one by its number.

        Raises:
            NotYet: it is not issued yet; ask again after `retry_after`.
        """
        call = get(f"{ONE}/certificate", Certificate, {"number": number}, request_id=request_id)
        return replace(call, accept="application/vnd.in-toto.unlearning+dsse")

    @route
    def read_certificate_page(
        self, request_id: UUID | str, *, number: int | None = None
    ) -> Call[str]:
        """The same as an HTML page for people. Only the signed form can be verified."""
        call = get(f"{ONE}/certificate", str, {"number": number}, request_id=request_id)
        return replace(call, accept="text/html")


def _named(
    sample_ids: Sequence[str], subjects: Sequence[str | int], unknown: str | None
) -> dict[str, object]:
    """What is to be forgotten. Raises NotSent when it is one string, or nothing."""
    if isinstance(sample_ids, str):
        raise NotSent("sample_ids is a list of ids, not one string.")
    named = {"sample_ids": list(sample_ids) or None, "subjects": listed(subjects)}
    if not any(named.values()):
        raise NotSent("Name what is to be forgotten: sample_ids, subjects, or both.")
    return {**named, "unknown_subjects": unknown}


def _demand(
    named: Mapping[str, object],
    model: str | None,
    dataset: str | None,
    objective: str | None,
    exact: bool | None,
    urgent: bool | None,
    subject_ref: str | None,
    when: Mapping[str, datetime | str | None],
    reason: str | None,
) -> dict[str, object]:
    """The body of a deletion request.

    Raises:
        NotSent: `received_at` has no time zone.
    """
    received_at = when["received_at"]
    if isinstance(received_at, datetime) and received_at.tzinfo is None:
        raise NotSent("received_at needs a time zone, such as datetime.now(UTC) has.")
    return {
        "model": model,
        "dataset": dataset,
        **named,
        "objective": objective,
        "exact": exact,
        "urgent": urgent,
        "subject_ref": subject_ref,
        **when,
        "reason": reason,
    }
