"""Deletion requests are accepted and stored, and the doorbell is rung."""

from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import select

from domain import doorbell
from domain.states import RegistrationStatus, Split
from domain.tables import AuditEvent, RequestKey, RequestSample, Sample
from evidence import commitments
from tests import factories
from tests.service.submitting import URL, submit


async def test_is_accepted_and_followed_at_its_location(client, model):
    response = await submit(client, subject_ref="ticket 1", reason="Article 17")

    assert response.status_code == 202
    assert response.headers["Retry-After"] == "60"
    assert "Idempotent-Replayed" not in response.headers
    body = response.json()
    assert response.headers["Location"] == f"{URL}/{body['id']}"
    followed = await client.get(response.headers["Location"])
    assert followed.content == response.content
    assert followed.headers["Retry-After"] == "60"
    assert body == {
        "id": ANY,
        "status": "pending",
        "objective": "untrain_samples",
        "exact": False,
        "urgent": False,
        "dataset": "digits",
        "samples": 2,
        "subjects": 0,
        "resolved": None,
        "duplicates": 0,
        "commitment": ANY,
        "subject_ref": "ticket 1",
        "reason": "Article 17",
        "received_at": ANY,
        "time_zone": None,
        "due_at": ANY,
        "created_at": ANY,
        "planned_for": ANY,
        "finished_at": None,
        "overdue_at": None,
        "shredded_at": None,
        "rows": None,
        "targets": [
            {
                "model": "cnn",
                "status": "pending",
                "job_id": None,
                "planned_for": body["planned_for"],
                "accepted_job_id": None,
                "already_forgotten": 0,
                "not_trained_on": 0,
                "former": 0,
                "result": None,
                "failure": None,
            }
        ],
        "decisions": [],
    }
    assert body["received_at"].endswith("Z")


async def test_stores_the_samples_rings_and_tells_the_audit_trail_counts_only(
    client, sessions, queue, model
):
    response = await submit(
        client, sample_ids=["t2", "t1", "t2"], subject_ref="secret-ref", reason="secret-reason"
    )

    async with sessions() as session:
        stored = (await session.scalars(select(RequestSample.sample_id))).all()
        event = (await session.scalars(select(AuditEvent))).one()
    assert sorted(stored) == ["t1", "t2"]
    assert (response.json()["samples"], response.json()["duplicates"]) == (2, 1)
    assert (event.event, str(event.subject_id)) == ("request.received", response.json()["id"])
    async with sessions() as session:
        key = (await session.scalars(select(RequestKey.key))).one()
    told = dict(event.data)
    for moment in ("received_at", "due_at"):
        at = datetime.fromisoformat(response.json()[moment])
        assert told.pop(moment) == f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"
    assert told == {
        "objective": "untrain_samples",
        "exact": False,
        "urgent": False,
        "samples": 2,
        "duplicates": 1,
        "models": [str(model.id)],
        "commitment": commitments.commit(key, ["t1", "t2"]).root.hex(),
        "subject_ref_hmac": commitments.mac(key, "secret-ref").hex(),
        "reason_hmac": commitments.mac(key, "secret-reason").hex(),
    }
    assert response.json()["commitment"] == event.data["commitment"]
    queue.send_task.assert_called_once_with(doorbell.SWEEP, args=(), expires=60)


@pytest.mark.parametrize(
    ("received_at", "due_at"),
    [
        ("2026-01-31T10:00:00Z", "2026-02-28T10:00:00Z"),
        ("2026-03-28T23:30:00-05:00", "2026-04-29T04:30:00Z"),
        ("2024-01-30T00:00:00+01:00", "2024-02-28T23:00:00Z"),
        ("2025-10-31T00:30:00+01:00", "2025-11-29T23:30:00Z"),
    ],
)
async def test_is_due_a_calendar_month_after_receipt(client, model, received_at, due_at):
    body = (await submit(client, received_at=received_at)).json()

    assert body["due_at"] == due_at
    assert datetime.fromisoformat(body["received_at"]) == datetime.fromisoformat(received_at)


async def test_strange_but_lawful_ids_are_stored(client, sessions, store, model):
    strange = ["'; DROP TABLE samples; --", "{a,b}", "\\", '"', " ", "é\n😀", "NULL", "x" * 512]
    await store(
        *(
            Sample(
                dataset_id=model.dataset_id, sample_id=name, position=0, label=0, split=Split.TRAIN
            )
            for name in strange
        )
    )

    response = await submit(client, sample_ids=strange)

    assert response.status_code == 202
    async with sessions() as session:
        assert set(await session.scalars(select(RequestSample.sample_id))) == set(strange)


async def test_a_dataset_fans_out_to_every_ready_model(client, store, model):
    dataset = factories.dataset(id=model.dataset_id)
    failed = RegistrationStatus.FAILED
    await store(
        factories.model(dataset, name="another"),
        factories.model(dataset, name="broken", status=failed, failure="no such module"),
    )

    body = (await submit(client, model=None, dataset="digits")).json()

    assert [target["model"] for target in body["targets"]] == ["another", "cnn"]


async def test_what_needs_no_work_is_counted_for_each_model(client, store, model):
    dataset = factories.dataset(id=model.dataset_id)
    other = factories.model(dataset, name="other")
    job = factories.job(model_id=model.id, finished=True)
    await store(other, job, *factories.tombstones(model, job, "t1", "t2", "h0"))

    ids = ["t1", "t2", "h0"]
    body = (await submit(client, model=None, dataset="digits", sample_ids=ids)).json()

    assert body["status"] == "pending"
    counts = [
        (target["model"], target["status"], target["already_forgotten"], target["not_trained_on"])
        for target in body["targets"]
    ]
    assert counts == [("cnn", "completed", 3, 1), ("other", "pending", 0, 1)]


@pytest.mark.parametrize("ids", [["h1"], ["t1"], ["t1", "h1"]])
async def test_is_completed_at_once_where_nothing_is_left(client, sessions, store, model, ids):
    job = factories.job(model_id=model.id, finished=True)
    await store(job, *factories.tombstones(model, job, "t1", "h1"))

    response = await submit(client, sample_ids=ids)

    assert response.status_code == 202
    body = response.json()
    assert (body["status"], body["targets"][0]["status"]) == ("completed", "completed")
    assert body["finished_at"] is not None
    assert body["targets"][0]["result"] is None
    async with sessions() as session:
        events = await session.scalars(select(AuditEvent.event).order_by(AuditEvent.id))
        assert events.all() == ["request.received", "request.completed"]
    assert "Retry-After" not in (await client.get(response.headers["Location"])).headers


async def test_a_holdout_sample_is_left_to_a_job(client, model):
    """The model never learned from it, but its reservoir keeps it."""
    body = (await submit(client, sample_ids=["h0"])).json()

    assert body["status"] == "pending"
    assert body["targets"][0]["not_trained_on"] == 1


async def test_a_lost_ring_does_not_lose_the_request(client, queue, model):
    queue.send_task.side_effect = OperationalError

    response = await submit(client)

    assert response.status_code == 202
    assert (await client.get(response.headers["Location"])).json()["status"] == "pending"


async def test_a_dead_broker_does_not_lose_the_request(app, client, model):
    dead = doorbell.queue("redis://127.0.0.1:1/0")
    app.state.queue = dead

    response = await submit(client)

    assert response.status_code == 202
    assert (await client.get(response.headers["Location"])).json()["status"] == "pending"


async def test_nothing_personal_is_logged(client, model, caplog, capsys):
    secret = {"subject_ref": "ref-4711", "reason": "reason-4711"}
    accepted = await submit(client, sample_ids=["t1"], **secret)
    await submit(client, sample_ids=["id-4711"], **secret)
    await submit(client, sample_ids=["id-4711\0"], **secret)

    output = capsys.readouterr()
    logged = caplog.text + output.out + output.err
    assert accepted.json()["id"] in logged
    assert "4711" not in logged
    assert "t1" not in logged.split()


@pytest.mark.parametrize(
    ("received_at", "time_zone", "due_at"),
    [
        ("2025-10-31T00:30:00+01:00", None, "2025-11-29T23:30:00Z"),
        ("2025-10-30T23:30:00Z", "Europe/Berlin", "2025-11-29T23:30:00Z"),
        ("2025-10-30T23:30:00Z", "+01:00", "2025-11-29T23:30:00Z"),
        ("2025-10-30T23:30:00Z", None, "2025-11-30T23:30:00Z"),
        ("2025-10-31T23:30:00-11:00", "Pacific/Kiritimati", "2025-12-01T10:30:00Z"),
    ],
)
async def test_the_month_is_that_of_the_person(
    client, sessions, model, received_at, time_zone, due_at
):
    body = (await submit(client, received_at=received_at, time_zone=time_zone)).json()
    read = (await client.get(f"{URL}/{body['id']}")).json()

    assert body["due_at"] == read["due_at"] == due_at
    zone = time_zone or ("+00:00" if received_at.endswith("Z") else received_at[-6:])
    assert body["time_zone"] == read["time_zone"] == zone
    async with sessions() as session:
        event = (await session.scalars(select(AuditEvent))).one()
    assert datetime.fromisoformat(event.data["due_at"]) == datetime.fromisoformat(due_at)


async def test_a_clock_may_be_a_little_ahead_and_what_is_stored_is_now(client, model, problem):
    before = datetime.now(UTC)
    ahead, too_far = (before + timedelta(minutes=minutes) for minutes in (4, 6))

    body = (await submit(client, received_at=ahead.isoformat())).json()
    refused = problem(await submit(client, received_at=too_far.isoformat()), 422, "invalid-request")

    assert before <= datetime.fromisoformat(body["received_at"]) <= datetime.now(UTC)
    assert datetime.fromisoformat(body["due_at"]) < before + timedelta(days=31, minutes=1)
    assert "5 minutes in the future" in refused["errors"][0]["msg"]


@pytest.mark.parametrize("zone", ["Nowhere", "Europe", "../etc/passwd", "", "+25:00", 1, "a\0"])
async def test_what_is_no_time_zone_is_refused(client, model, problem, zone):
    problem(await submit(client, time_zone=zone), 422, "invalid-request")


async def test_a_zone_is_part_of_what_a_key_stands_for(client, model, problem):
    first = await submit(client, "key", received_at="2026-01-01T00:00:00Z")
    other = {"received_at": "2026-01-01T00:00:00Z", "time_zone": "Asia/Tokyo"}

    problem(await submit(client, "key", **other), 422, "idempotency-key-reused")
    again = await submit(client, "key", received_at="2026-01-01T01:00:00+01:00")
    assert again.content == first.content
