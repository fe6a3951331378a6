from uuid import uuid4

import pytest

from service import audit


@pytest.fixture
async def subjects(sessions):
    one, other = uuid4(), uuid4()
    async with sessions.begin() as session:
        audit.record(session, "api", "request.received", one, samples=3)
        audit.record(session, "worker", "job.started", other, attempt=1)
        audit.record(session, "worker", "request.completed", one)
        await session.flush()
    return one, other


async def test_events_are_told_oldest_first_page_by_page(client, subjects):
    first = (await client.get("/v1/audit/events", params={"limit": 2})).json()
    second = (await client.get("/v1/audit/events", params={"cursor": first["next_cursor"]})).json()

    events = first["items"] + second["items"]
    assert [event["event"] for event in events] == [
        "request.received",
        "job.started",
        "request.completed",
    ]
    assert second["next_cursor"] is None
    assert events[0]["data"] == {"samples": 3}
    assert events[0]["actor"] == "api"
    assert events[0]["id"] < events[1]["id"]


async def test_events_of_one_subject(client, subjects):
    page = await client.get("/v1/audit/events", params={"subject_id": str(subjects[0])})

    assert [event["event"] for event in page.json()["items"]] == [
        "request.received",
        "request.completed",
    ]


@pytest.mark.parametrize("cursor", ["x", "LTE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk"])
async def test_an_invented_cursor_is_refused(client, cursor, problem):
    response = await client.get("/v1/audit/events", params={"cursor": cursor})

    problem(response, 422, "invalid-cursor")
