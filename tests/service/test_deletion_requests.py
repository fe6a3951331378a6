import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import pytest
from kombu.exceptions import OperationalError
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import create_async_engine
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from domain import doorbell
from domain.database import async_sessions
from domain.states import (
    JobStatus,
    Mode,
    RegistrationStatus,
    RequestStatus,
    Split,
    Verdict,
    VersionStatus,
)
from domain.tables import (
    AuditEvent,
    DeletionRequest,
    DeletionTarget,
    IdempotencyKey,
    Job,
    RequestKey,
    RequestSample,
    Sample,
)
from evidence import commitments
from service.deletion_requests import submission
from tests import factories
from tests.conftest import connect, speaking_to

URL = "/v1/deletion-requests"


async def submit(client: Any, key: str | None = None, /, **body: Any) -> Any:
    body = {"model": "cnn", "sample_ids": ["t1", "t2"]} | body
    body = {name: value for name, value in body.items() if value is not None}
    return await client.post(URL, json=body, headers={"Idempotency-Key": key or str(uuid4())})


async def count(sessions: Any, *tables: Any) -> list[int]:
    async with sessions() as session:
        return [
            await session.scalar(select(func.count()).select_from(table)) or 0 for table in tables
        ]


async def test_is_accepted_and_followed_at_its_location(client, model):
    response = await submit(client, subject_ref="ticket 1", reason="Article 17")

    assert response.status_code == 202
    assert response.headers["Retry-After"] == "2"
    assert "Idempotent-Replayed" not in response.headers
    body = response.json()
    assert response.headers["Location"] == f"{URL}/{body['id']}"
    followed = await client.get(response.headers["Location"])
    assert followed.content == response.content
    assert followed.headers["Retry-After"] == "2"
    assert body == {
        "id": ANY,
        "status": "pending",
        "objective": "untrain_samples",
        "exact": False,
        "dataset": "digits",
        "samples": 2,
        "duplicates": 0,
        "commitment": ANY,
        "subject_ref": "ticket 1",
        "reason": "Article 17",
        "received_at": ANY,
        "due_at": ANY,
        "created_at": ANY,
        "finished_at": None,
        "overdue_at": None,
        "shredded_at": None,
        "targets": [
            {
                "model": "cnn",
                "status": "pending",
                "job_id": None,
                "already_forgotten": 0,
                "not_trained_on": 0,
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
        ("2024-01-30T00:00:00+01:00", "2024-02-29T23:00:00Z"),
    ],
)
async def test_is_due_a_calendar_month_after_receipt(client, model, received_at, due_at):
    body = (await submit(client, received_at=received_at)).json()

    assert body["due_at"] == due_at
    assert datetime.fromisoformat(body["received_at"]) == datetime.fromisoformat(received_at)


async def test_sent_twice_is_stored_once_and_answered_equally(client, sessions, model):
    first = await submit(client, "key")
    second = await submit(client, "key")

    assert first.content == second.content
    assert first.headers["Location"] == second.headers["Location"]
    assert second.status_code == 202
    assert second.headers["Idempotent-Replayed"] == "true"
    assert await count(sessions, DeletionRequest) == [1]


async def test_a_replay_gives_the_answer_of_then(client, sessions, model):
    first = await submit(client, "key")
    async with sessions.begin() as session:
        await session.execute(update(DeletionRequest).values(status=RequestStatus.SCHEDULED))
        await session.execute(
            update(DeletionTarget).values(status=RequestStatus.CANCELLED, already_forgotten=1)
        )

    assert (await submit(client, "key")).content == first.content


async def test_the_form_of_the_body_does_not_matter_to_its_key(client, sessions, model):
    text = '{"sample_ids": ["t1"],   "model": "cnn", "received_at": "2026-01-01T01:00:00+01:00"}'
    headers = {"Idempotency-Key": "key", "Content-Type": "application/json"}
    first = await client.post(URL, content=text, headers=headers)

    second = await submit(
        client,
        "key",
        sample_ids=["t1"],
        objective="untrain_samples",
        received_at="2026-01-01T00:00:00Z",
    )

    assert first.content == second.content


async def test_a_key_stands_for_one_body(client, sessions, model, problem):
    await submit(client, "key")

    problem(await submit(client, "key", sample_ids=["t3"]), 422, "idempotency-key-reused")
    assert await count(sessions, DeletionRequest) == [1]


async def test_a_key_is_forgotten_after_the_retention(client, sessions, model, settings):
    first = await submit(client, "key")
    async with sessions.begin() as session:
        age = settings.idempotency_retention + timedelta(seconds=1)
        await session.execute(update(IdempotencyKey).values(created_at=func.now() - age))

    second = await submit(client, "key", sample_ids=["t3"])

    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "\u00e9", "a\tb"])
async def test_a_key_of_visible_characters_is_required(client, sessions, model, key, problem):
    body = {"model": "cnn", "sample_ids": ["t1"]}

    response = await client.post(URL, json=body, headers={"Idempotency-Key": key.encode()})

    problem(response, 400, "idempotency-key-missing")
    problem(await client.post(URL, json=body), 400, "idempotency-key-missing")
    assert await count(sessions, DeletionRequest) == [0]


async def test_unknown_ids_are_counted_listed_and_nothing_is_stored(
    client, sessions, model, problem
):
    unknown = [f"u{n}" for n in range(150)]

    response = await submit(client, sample_ids=["t1", *reversed(unknown), "t2", "u0"])

    refusal = problem(response, 422, "unknown-samples")
    assert refusal["unknown_count"] == 150
    assert refusal["unknown_ids"] == [f"u{n}" for n in reversed(range(50, 150))]
    assert await count(sessions, DeletionRequest, RequestSample, AuditEvent, IdempotencyKey) == [
        0,
        0,
        0,
        0,
    ]


async def test_ids_of_another_dataset_are_unknown(client, store, model, problem):
    other = factories.dataset(name="other")
    await store(
        other,
        Sample(dataset_id=other.id, sample_id="x", position=0, label=0, split=Split.TRAIN),
    )

    problem(await submit(client, sample_ids=["x"]), 422, "unknown-samples")


async def test_too_many_ids_are_refused(client, model, settings, problem):
    ids = [f"t{n}" for n in range(settings.max_samples_per_request + 1)]

    problem(await submit(client, sample_ids=ids), 413, "too-many-samples")


@pytest.mark.parametrize(
    "change",
    [
        {"sample_ids": []},
        {"sample_ids": [""]},
        {"sample_ids": ["a\0b"]},
        {"sample_ids": ["x" * 513]},
        {"sample_ids": [17]},
        {"sample_ids": "t1"},
        {"sample_ids": [None]},
        {"model": "cnn", "dataset": "digits"},
        {"model": None},
        {"objective": "guess"},
        {"received_at": "2026-01-01T00:00:00"},
        {"received_at": "0001-01-01T00:00:00+14:00"},
        pytest.param(
            {"received_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()},
            id="received in an hour",
        ),
        {"subject_ref": "a\0"},
        {"reason": "\0"},
        {"unknown": 1},
    ],
    ids=lambda change: str(change)[:40],
)
async def test_a_wrong_body_is_refused(client, sessions, model, change, problem):
    problem(await submit(client, **change), 422, "invalid-request")
    assert await count(sessions, DeletionRequest) == [0]


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


@pytest.mark.parametrize("subject", [{"model": "none"}, {"model": None, "dataset": "none"}])
async def test_an_unknown_model_or_dataset_is_404(client, model, subject, problem):
    problem(await submit(client, **subject), 404, "not-found")


@pytest.mark.parametrize("status", [RegistrationStatus.PENDING, RegistrationStatus.FAILED])
async def test_a_model_must_be_ready(client, store, model, status, problem):
    dataset = factories.dataset(name="other")
    await store(dataset, factories.model(dataset, name="second", status=status))

    problem(await submit(client, model="second"), 409, "not-ready")
    problem(await submit(client, model=None, dataset="other"), 409, "not-ready")


async def test_exact_needs_a_recipe_of_every_model(client, sessions, store, model, problem):
    dataset = factories.dataset(id=model.dataset_id)
    await store(factories.model(dataset, name="able", recipe="zoo:train"))

    refusal = problem(await submit(client, exact=True), 422, "no-recipe")
    problem(await submit(client, model=None, dataset="digits", exact=True), 422, "no-recipe")
    accepted = await submit(client, model="able", exact=True)

    assert "cnn" in refusal["detail"]
    assert accepted.json()["exact"] is True
    assert await count(sessions, DeletionRequest) == [1]


async def test_a_dataset_without_models_has_nobody_to_forget(client, store, problem):
    await store(factories.dataset())

    problem(await submit(client, model=None, dataset="digits"), 409, "not-ready")


async def test_a_dataset_fans_out_to_every_ready_model(client, store, model):
    dataset = factories.dataset(id=model.dataset_id)
    failed = RegistrationStatus.FAILED
    await store(
        factories.model(dataset, name="another"),
        factories.model(dataset, name="broken", status=failed, failure="no such module"),
    )

    body = (await submit(client, model=None, dataset="digits")).json()

    assert [target["model"] for target in body["targets"]] == ["another", "cnn"]


async def test_a_dataset_waits_for_its_pending_models(client, store, model, problem):
    dataset = factories.dataset(id=model.dataset_id)
    await store(factories.model(dataset, name="late", status=RegistrationStatus.PENDING))

    refusal = problem(await submit(client, model=None, dataset="digits"), 409, "not-ready")

    assert "late" in refusal["detail"]


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


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (Verdict.PASS, "within the measured range of models never trained on these samples"),
        (Verdict.FAIL, "can still be told"),
        (Verdict.NO_POWER, "no evidence"),
    ],
)
async def test_shows_what_came_of_it(client, sessions, store, model, verdict, word):
    accepted = (await submit(client)).json()
    job = factories.job(
        model_id=model.id, finished=True, verdict=verdict, mode_reason="The model is changed."
    )
    await store(job, factories.tried(job, verdict=verdict, reason="because"))
    async with sessions.begin() as session:
        await session.execute(update(DeletionRequest).values(status=RequestStatus.COMPLETED))
        await session.execute(
            update(DeletionTarget).values(status=RequestStatus.COMPLETED, job_id=job.id)
        )
    retired = {"status": VersionStatus.SUPERSEDED, "superseded_at": factories.NOW}
    await store(
        factories.version(
            model, job, number=2, weights_sha256="d" * 64, mode=Mode.APPROXIMATE, **retired
        ),
        factories.evaluation(job, "before", da_gap=0.02),
        factories.evaluation(job, "after"),
    )

    [target] = (await client.get(f"{URL}/{accepted['id']}")).json()["targets"]

    assert target["job_id"] == str(job.id)
    assert word in target["result"]["meaning"]
    assert target["result"] == {
        "version": 2,
        "weights_sha256": "d" * 64,
        "mode": "approximate",
        "mode_reason": "The model is changed.",
        "verdict": verdict,
        "verdict_reason": "because",
        "meaning": ANY,
        "before": factories.SCORES | {"da_gap": 0.02},
        "after": factories.SCORES,
    }


async def test_shows_why_it_failed(client, sessions, store, model):
    accepted = (await submit(client)).json()
    failure = {"kind": "bug", "reason": "it broke"}
    job = factories.job(model_id=model.id, status=JobStatus.FAILED, failure=failure)
    await store(job)
    async with sessions.begin() as session:
        for status in (RequestStatus.SCHEDULED, RequestStatus.RUNNING, RequestStatus.FAILED):
            await session.execute(update(DeletionTarget).values(status=status, job_id=job.id))

    [target] = (await client.get(f"{URL}/{accepted['id']}")).json()["targets"]

    assert (target["status"], target["failure"], target["result"]) == ("failed", failure, None)


async def test_is_not_sent_again_while_nothing_changed(client, sessions, model):
    accepted = await submit(client)
    first = await client.get(accepted.headers["Location"])

    known = {"If-None-Match": f'"other", W/{first.headers["ETag"]}'}
    second = await client.get(accepted.headers["Location"], headers=known)
    async with sessions.begin() as session:
        await session.execute(update(DeletionRequest).values(status=RequestStatus.SCHEDULED))
    third = await client.get(accepted.headers["Location"], headers=known)

    assert (second.status_code, second.content) == (304, b"")
    assert second.headers["Retry-After"] == "2"
    assert second.headers["ETag"] == first.headers["ETag"]
    assert (third.status_code, third.json()["status"]) == (200, "scheduled")


async def test_unknown_is_404_and_nonsense_422(client, problem):
    problem(await client.get(f"{URL}/{uuid4()}"), 404, "not-found")
    problem(await client.get(f"{URL}/nonsense"), 422, "invalid-request")


async def test_are_listed_newest_first_page_by_page(client, model):
    ids = [(await submit(client, sample_ids=[f"t{n}"])).json()["id"] for n in range(3)]

    first = (await client.get(URL, params={"limit": 2})).json()
    second = (await client.get(URL, params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [item["id"] for item in first["items"]] == [ids[2], ids[1]]
    assert [item["id"] for item in second["items"]] == [ids[0]]
    assert second["next_cursor"] is None


async def test_are_filtered_by_status_and_model(client, store, model):
    job = factories.job(model_id=model.id, finished=True)
    await store(job, *factories.tombstones(model, job, "t0"))
    await submit(client, sample_ids=["t1"])
    await submit(client, sample_ids=["t0"])

    async def samples(**params: str) -> list[str]:
        page = (await client.get(URL, params=params)).json()
        return [item["status"] for item in page["items"]]

    assert await samples(status="completed") == ["completed"]
    assert await samples(status="pending", model="cnn") == ["pending"]
    assert await samples(model="other") == []


@pytest.mark.parametrize("cursor", ["x", "é", "MTIz", "!!!!", "A" * 36, "%00"])
@pytest.mark.parametrize("path", [URL, "/v1/jobs", "/v1/models", "/v1/datasets"])
async def test_an_invented_cursor_is_refused(client, path, cursor, problem):
    problem(await client.get(path, params={"cursor": cursor}), 422, "invalid-cursor")


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "201"}, {"status": "x"}])
async def test_a_wrong_filter_is_refused(client, params, problem):
    problem(await client.get(URL, params=params), 422, "invalid-request")


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


@pytest.fixture
async def committed(own_database_url, app):
    """A client whose requests commit, each over a connection of its own, for which it waits as
    long as it takes; and the sessions beside it."""
    engine = create_async_engine(own_database_url, pool_size=20, pool_timeout=300)
    sessions = async_sessions(engine)
    connect(app, sessions)
    dataset = factories.dataset()
    async with sessions.begin() as session:
        session.add_all([dataset, factories.model(dataset), *factories.samples(dataset)])
    async with speaking_to(app) as client:
        yield client, sessions
    await engine.dispose()


async def test_fifty_equal_requests_at_once_are_one(committed):
    client, sessions = committed

    responses = await asyncio.gather(*(submit(client, "key") for _ in range(50)))

    accepted = {response.content for response in responses if response.status_code == 202}
    refused = [response for response in responses if response.status_code != 202]
    assert len(accepted) == 1
    assert {(response.status_code, response.json()["type"]) for response in refused} <= {
        (409, "urn:lethe:problem:idempotency-key-in-flight")
    }
    assert await count(sessions, DeletionRequest, IdempotencyKey) == [1, 1]


async def test_fifty_different_requests_at_once_are_fifty(committed):
    client, sessions = committed

    responses = await asyncio.gather(*(submit(client) for _ in range(50)))

    assert {response.status_code for response in responses} == {202}
    assert await count(sessions, DeletionRequest, DeletionTarget) == [50, 50]


async def test_ten_equal_registrations_at_once_are_one(committed, tmp_path):
    client, sessions = committed
    columns = {"sample_id": "id", "input": "image", "label": "label", "split": "split"}
    body = {"name": "new", "uri": str(tmp_path), "columns": columns}

    responses = await asyncio.gather(*(client.post("/v1/datasets", json=body) for _ in range(10)))

    assert {response.status_code for response in responses} == {202}
    assert len({response.content for response in responses}) == 1
    assert await count(sessions, Job) == [1]


async def test_a_connection_that_breaks_while_it_is_stored_is_503_and_the_next_one_is_whole(
    committed, problem
):
    client, sessions = committed
    terminated = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    )

    async with sessions.begin() as session:
        await session.execute(text("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE"))
        stored = asyncio.create_task(submit(client, "key"))
        async for attempt in AsyncRetrying(wait=wait_fixed(0.05), stop=stop_after_delay(20)):
            with attempt:
                async with sessions.begin() as other:
                    assert (await other.scalars(terminated)).all() == [True]
        problem(await stored, 503, "unavailable")

    assert (await submit(client, "key")).status_code == 202
    assert await count(sessions, DeletionRequest, AuditEvent) == [1, 1]


@pytest.mark.parametrize("sql", [submission.TAKEN_BY_MODEL, submission.TAKEN_BY_DATASET])
def test_psycopg_keeps_the_statement_that_takes_a_submission(sql):
    assert len(sql) <= MAX_CACHED_STATEMENT_LENGTH
