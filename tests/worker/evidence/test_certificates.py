"""Issuing certificates: what is read, signed, numbered and recorded in the audit trail."""

import json
from base64 import b64decode
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from threading import Barrier, Thread

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from uuid_utils.compat import uuid7

from domain import trail
from domain.events import RequestCompleted, RequestRowsErased, RequestRowsKept
from domain.states import Mode, RequestStatus, Verdict, VersionStatus
from domain.tables import AuditEvent, Certificate
from evidence.statement import Keyed, Purge, statement
from tests import acting, certified, factories
from worker.evidence import certificates

HOUR = timedelta(hours=1)


def put(sessions, story):
    """Store the rows, and the event that completes the request."""
    with sessions.begin() as session:
        for row in story.rows:
            session.add(row)
            session.flush()
        trail.record(session, "worker", story.case.request.id, RequestCompleted())
    return story.case


def issue(sessions, case, log=None, **how):
    with sessions.begin() as session:
        return certificates.issue(
            session, case.request.id, log or case.log, certified.signer(), **how
        )


def payload(certificate):
    return json.loads(b64decode(json.loads(certificate.envelope)["payload"]))


def events(sessions, case):
    with sessions.begin() as session:
        chosen = select(AuditEvent).filter_by(
            subject_id=case.request.id, event="certificate.issued"
        )
        return [event.data for event in session.scalars(chosen.order_by(AuditEvent.id))]


STORIES = {
    "changed": certified.changed,
    "retrained": lambda: certified.changed(mode=Mode.EXACT),
    "accepted": lambda: certified.changed(verdict=Verdict.FAIL),
    "without audit": lambda: certified.changed(verdict=None),
    "declared": certified.declared,
    "nothing to forget": certified.untouched,
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_what_is_read_is_all_that_the_statement_needs(sync_sessions, story):
    case = put(sync_sessions, story())

    issued = issue(sync_sessions, case, keyed=certified.KEYED)

    expected = statement(case, number=1, at=issued.issued_at)
    assert payload(issued) == json.loads(json.dumps(expected))


def test_the_envelope_verifies_with_the_key_and_with_no_other(sync_sessions):
    issued = issue(sync_sessions, put(sync_sessions, certified.changed()))
    key = certified.signer().public_key

    signed = Envelope.from_dict(json.loads(issued.envelope))

    assert signed.payload_type == "application/vnd.in-toto+json"
    assert list(signed.signatures) == [certified.KEY_ID]
    assert signed.verify([key], 1)
    altered = Envelope(
        signed.payload.replace(b'"pass"', b'"fail"'), signed.payload_type, signed.signatures
    )
    with pytest.raises(VerificationError):
        altered.verify([key], 1)


def test_issuing_is_told_to_the_audit_trail_by_number_and_digest(sync_sessions):
    case = put(sync_sessions, certified.changed())

    issued = issue(sync_sessions, case)

    digest = sha256(b64decode(json.loads(issued.envelope)["payload"])).hexdigest()
    assert issued.payload_sha256 == digest
    assert events(sync_sessions, case) == [{"number": 1, "sha256": digest}]


def test_nothing_new_gives_no_new_certificate(sync_sessions):
    case = put(sync_sessions, certified.changed())
    first = issue(sync_sessions, case)

    again = issue(sync_sessions, case)
    later = issue(sync_sessions, case, certified.log(case.request.id, "certificate.issued"))

    assert [again.number, later.number] == [1, 1]
    assert again.envelope == later.envelope == first.envelope
    assert len(events(sync_sessions, case)) == 1


def test_a_purge_gives_one_more_and_the_first_one_stays(sync_sessions):
    case = put(sync_sessions, certified.changed())
    first = issue(sync_sessions, case)
    gone = {case.outcomes[0].before.id: Purge(due_at=factories.NOW, purged_at=factories.NOW)}

    second = issue(sync_sessions, case, purges=gone)
    again = issue(sync_sessions, case, purges=gone)

    assert (second.number, again.number) == (2, 2)
    [old] = payload(second)["predicate"]["results"][0]["purge"]["superseded_weights"]
    assert old["purged_at"] is not None
    assert [event["number"] for event in events(sync_sessions, case)] == [1, 2]
    with sync_sessions.begin() as session:
        assert session.get_one(Certificate, (case.request.id, 1)).envelope == first.envelope


def rows(sessions, request_id):
    """What the audit trail says of the request's rows by now."""
    with sessions.begin() as session:
        chosen = select(AuditEvent).filter_by(subject_id=request_id).order_by(AuditEvent.id)
        return certificates._rows(session, request_id, session.scalars(chosen).all())


def test_rows_in_the_files_are_told_until_they_are_gone(sync_sessions):
    definition = {**factories.DEFINITION, "erase": {"parquet": True}}
    story = certified.changed()
    story.rows[0].definition = definition
    case = put(sync_sessions, story)
    request, job = case.request.id, uuid7()
    told = [rows(sync_sessions, request)]
    kept = [
        RequestRowsKept(job=job, why="failed"), RequestRowsKept(job=job, why="held", left=2),
    ]  # fmt: skip
    for event in (*kept, RequestRowsErased(job=job)):
        with sync_sessions.begin() as session:
            trail.record(session, "worker", request, event)
        told.append(rows(sync_sessions, request))
    issued = [
        issue(
            sync_sessions, case, certified.log(request, *["request.rows_kept"] * number), rows=each
        )
        for number, each in enumerate(told)
    ]  # fmt: skip

    said = [payload(each)["predicate"]["rows"] for each in issued]
    assert [(each["status"], each["left"]) for each in said] == [
        ("waiting", None), ("failed", None), ("held", 2), ("gone", 0),
    ]  # fmt: skip
    assert [each.number for each in issued] == [1, 2, 3, 4]


def test_of_a_dataset_that_does_not_erase_nothing_is_told_of_rows(sync_sessions):
    case = put(sync_sessions, certified.changed())

    assert rows(sync_sessions, case.request.id) is None
    assert "rows" not in payload(issue(sync_sessions, case))["predicate"]


def test_a_rolled_back_transaction_issues_nothing(sync_sessions):
    case = put(sync_sessions, certified.changed())

    with sync_sessions() as session:
        certificates.issue(session, case.request.id, case.log, certified.signer())
        session.flush()
        session.rollback()

    assert events(sync_sessions, case) == []
    assert issue(sync_sessions, case).number == 1


@pytest.mark.parametrize("status", sorted(set(RequestStatus) - {RequestStatus.COMPLETED}))
def test_only_completed_requests_are_certified(sync_sessions, status):
    dataset = factories.dataset()
    request = factories.request(dataset, status=status)
    case = replace(certified.changed().case, request=request)
    put(sync_sessions, certified.Story(case, [dataset, request]))

    with pytest.raises(ValueError, match="not completed"):
        issue(sync_sessions, case)


def test_two_at_once_issue_one(own_database_url):
    engine = acting.engine(own_database_url)
    sessions = sessionmaker(engine, expire_on_commit=False)
    case = put(sessions, certified.changed())
    together = Barrier(2)

    def issue_one():
        together.wait(10)
        issue(sessions, case)

    threads = [Thread(target=issue_one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with Session(engine) as session:
        assert session.scalars(select(Certificate.number)).all() == [1]
    engine.dispose()


def test_no_word_of_the_person_enters_it(sync_sessions):
    story = certified.changed(subject_ref="ticket 4711", reason="Ms. Miller asks")
    case = put(sync_sessions, story)
    with sync_sessions.begin() as session:
        session.add_all(factories.request_samples(case.request, "img-4242"))

    issued = issue(sync_sessions, case, keyed=Keyed())

    said = b64decode(json.loads(issued.envelope)["payload"]).decode()
    for word in ("4711", "Miller", "4242"):
        assert word not in said


def test_discarded_candidates_are_among_the_old_weights(sync_sessions):
    story = certified.changed()
    [outcome] = story.case.outcomes
    outcome.after.number = 3
    failed = factories.job(model_id=outcome.model.id, finished=True, verdict=Verdict.FAIL)
    discarded = factories.version(
        outcome.model, failed, number=2, status=VersionStatus.SUPERSEDED,
        superseded_at=factories.NOW, weights_sha256="f" * 64,
    )  # fmt: skip
    case = put(sync_sessions, replace(story, rows=[*story.rows, failed, discarded]))

    [result] = payload(issue(sync_sessions, case))["predicate"]["results"]

    old = result["purge"]["superseded_weights"]
    assert [each["weights_sha256"] for each in old] == ["a" * 64, "f" * 64]


def test_of_two_models_each_has_its_result(sync_sessions):
    story = certified.changed()
    request = story.case.request
    vit = factories.model(story.rows[0], name="vit")
    job = factories.job(model_id=vit.id, kind="register_model", finished=True)
    version = factories.version(vit, job, weights_sha256="9" * 64)
    target = factories.target(
        request, vit, status=RequestStatus.COMPLETED, already_forgotten=30, not_trained_on=0
    )
    case = put(sync_sessions, replace(story, rows=[*story.rows, vit, job, version, target]))

    said = payload(issue(sync_sessions, case))

    assert [result["kind"] for result in said["predicate"]["results"]] == [
        "approximate",
        "nothing_to_forget",
    ]
    assert said["subject"] == [{"name": "cnn/versions/2", "digest": {"sha256": "e" * 64}}]
    assert len(said["predicate"]["scope"]["statement"].splitlines()) == 2


# Which version was served, where nothing was forgotten


def test_a_version_made_later_was_not_served_then(sync_sessions):
    story = certified.untouched()
    [outcome], now = story.case.outcomes, factories.NOW
    outcome.before.status = VersionStatus.SUPERSEDED
    outcome.before.superseded_at = outcome.before.purge_after = now + 9 * HOUR
    job = factories.job(model_id=outcome.model.id, finished=True, verdict=Verdict.PASS)
    later = factories.version(outcome.model, job, number=2, created_at=now + 9 * HOUR)
    case = put(sync_sessions, replace(story, rows=[*story.rows, job, later]))

    [result] = payload(issue(sync_sessions, case))["predicate"]["results"]

    assert result["before"]["version"] == 1


@pytest.mark.parametrize(("decided", "served"), [(None, 1), (-HOUR, 2), (9 * HOUR, 1)])
def test_a_candidate_was_served_from_its_acceptance_on(sync_sessions, decided, served):
    story = certified.untouched()
    [outcome], now = story.case.outcomes, factories.NOW
    outcome.before.created_at = now - 9 * HOUR
    job = factories.job(model_id=outcome.model.id, finished=True, verdict=Verdict.FAIL)
    candidate = factories.version(
        outcome.model, job, number=2, status=VersionStatus.CANDIDATE, created_at=now - 5 * HOUR
    )
    rows = [*story.rows, job, candidate]
    if decided is not None:
        other = factories.request(story.rows[0])
        rows += [other, factories.decision(other, job, decided_at=now + decided)]
        outcome.before.status = VersionStatus.SUPERSEDED
        outcome.before.superseded_at = outcome.before.purge_after = now + decided
        candidate.status = VersionStatus.CHAMPION
    case = put(sync_sessions, replace(story, rows=rows))

    [result] = payload(issue(sync_sessions, case))["predicate"]["results"]

    assert result["before"]["version"] == served


def made_in_the_place_of_another(*, completed=True):
    """A version with the verdict `fail` that an acceptance of an overtaken one covers."""
    story = certified.changed(verdict=Verdict.FAIL)
    [outcome] = story.case.outcomes
    earlier = factories.job(model_id=outcome.model.id, finished=True, verdict=Verdict.FAIL)
    outcome.job.accepted_job_id = earlier.id
    outcome.job.forgotten_at = factories.NOW - HOUR if completed else None
    outcome.after.created_at = factories.NOW - 2 * HOUR
    decision = factories.decision(story.case.request, earlier, decided_at=factories.NOW - 3 * HOUR)
    places = [row for row in story.rows if row is not outcome.acceptance]
    at = places.index(outcome.job)
    rows = [*places[:at], earlier, *places[at:], decision]
    outcomes = [replace(outcome, acceptance=decision)]
    return replace(story, case=replace(story.case, outcomes=outcomes), rows=rows)


def test_a_version_in_the_place_of_an_accepted_one_is_certified_with_that_decision(sync_sessions):
    story = made_in_the_place_of_another()
    earlier = story.case.outcomes[0].acceptance.job_id
    case = put(sync_sessions, story)

    issued = issue(sync_sessions, case, keyed=certified.KEYED)

    expected = statement(case, number=1, at=issued.issued_at)
    assert payload(issued) == json.loads(json.dumps(expected))
    [result] = payload(issued)["predicate"]["results"]
    assert result["approval"]["accepted_job"] == str(earlier)


@pytest.mark.parametrize(("completed", "served"), [(True, 2), (False, 1)])
def test_a_version_in_the_place_of_an_accepted_one_counts_once_it_is_served(
    sync_sessions, completed, served
):
    """One that exceeded the acceptance is a candidate again, and was never served."""
    story = made_in_the_place_of_another(completed=completed)
    [outcome] = story.case.outcomes
    if completed:
        gone = factories.NOW - HOUR
        outcome.before.superseded_at = outcome.before.purge_after = gone
    else:
        outcome.before.status, outcome.before.superseded_at = VersionStatus.CHAMPION, None
        outcome.before.purge_after = None
        outcome.after.status = VersionStatus.CANDIDATE
    other = certified.completed(story.rows[0])
    target = factories.target(
        other, outcome.model, status=RequestStatus.COMPLETED, already_forgotten=1
    )
    put(sync_sessions, replace(story, rows=[*story.rows, other, target]))
    with sync_sessions.begin() as session:
        trail.record(session, "worker", other.id, RequestCompleted())
        assert certificates._served(session, target).number == served
