"""Every event of the trail is declared once, and recorded as declared."""

import ast
from dataclasses import fields
from pathlib import Path
from uuid import UUID

import pytest
import rfc8785
from sqlalchemy import select

import attacks.story
import chaos
from domain import events, trail
from domain.events import EVENTS, JobCompleted, JobQueued, RequestDecided, RequestReceived
from domain.states import RequestStatus
from domain.tables import AuditEvent
from tests import factories

ONE, OTHER = UUID(int=1), UUID(int=2)
OF_SUBJECTS = {"subjects", "unknown_subjects", "subject_samples", "dataset", "indexed_at"}
PREFIXES = {name.split(".")[0] for name in EVENTS}


def fields_of(kind):
    return {field.name for field in fields(kind)}


@pytest.mark.parametrize("status", RequestStatus)
def test_every_status_of_a_request_has_an_event(status):
    assert events.became(status).event == f"request.{status}"


def test_what_is_left_out_is_no_null_and_ids_are_text():
    assert JobQueued(model=ONE).data() == {"model": str(ONE)}
    assert JobCompleted(attempt=2).data() == {"attempt": 2}
    decided = RequestDecided(decision="accept", job=ONE, by="admin", ground_hmac=None)
    assert decided.data()["ground_hmac"] is None


def test_what_is_told_can_be_signed_and_read_back(sync_sessions):
    told = [(ONE, JobQueued(model=OTHER)), (OTHER, JobCompleted(attempt=1, verdict="pass"))]
    with sync_sessions.begin() as session:
        trail.record(session, "api", ONE, JobQueued(dataset=OTHER))
        trail.record_each(session, "worker", told)

    with sync_sessions() as session:
        rows = session.scalars(select(AuditEvent).order_by(AuditEvent.id)).all()
    assert [(row.actor, row.subject_id, row.event, row.data) for row in rows] == [
        ("api", ONE, "job.queued", {"dataset": str(OTHER)}),
        ("worker", ONE, "job.queued", {"model": str(OTHER)}),
        ("worker", OTHER, "job.completed", {"attempt": 1, "verdict": "pass"}),
    ]


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_no_event_tells_a_fraction(kind):
    """The verifier's canonical form has whole numbers only, as has every copy of it out there."""
    assert not [field.name for field in fields(kind) if "float" in str(field.type)]


def test_nothing_is_recorded_of_which_there_is_no_canonical_form(sync_sessions):
    with sync_sessions() as session, pytest.raises(rfc8785.CanonicalizationError):
        trail.record(session, "worker", ONE, JobCompleted(attempt=2**60))


@pytest.mark.parametrize("named", [{"sample_ids": ["t1"]}, {"sample_ids": ["t1"], "subjects": [1]}])
async def test_the_event_that_is_written_in_sql_has_the_declared_fields(
    client, store, sessions, named
):
    columns = {**factories.DEFINITION["columns"], "group": "person"}
    dataset = factories.dataset(definition={**factories.DEFINITION, "columns": columns})
    model = factories.model(dataset)
    await store(dataset, model, *factories.samples(dataset))

    response = await client.post(
        "/v1/deletion-requests",
        json={"model": model.name, "unknown_subjects": "answer", **named},
        headers={"Idempotency-Key": "one"},
    )

    assert response.status_code == 202
    async with sessions() as session:
        event = (await session.scalars(select(AuditEvent))).one()
    left_out = set() if "subjects" in named else OF_SUBJECTS
    declared = fields_of(RequestReceived) - left_out
    assert (event.event, set(event.data)) == (RequestReceived.event, declared)


def test_the_verifiers_story_tells_only_what_is_declared():
    """The verifier imports nothing of ours: its tests pass on this log, by these names."""
    told = attacks.story.evidence().log.entries

    assert len(told) > 20
    for entry in told:
        assert set(entry["data"]) <= fields_of(EVENTS[entry["event"]]), entry["event"]


def test_the_checker_after_chaos_knows_events_by_their_names():
    """It imports nothing of ours either."""
    named = {
        node.value
        for file in Path(chaos.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if len(parts := node.value.split(".")) == 2
        and parts[0] in PREFIXES
        and parts[1].isidentifier()
    }

    assert len(named) > 10
    assert named <= EVENTS.keys()


def test_the_documents_can_list_all_of_them():
    rows = list(events.described())

    assert len(rows) == len(EVENTS)
    assert all(meaning for *_, meaning in rows)
