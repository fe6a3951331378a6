import json
from base64 import b64decode
from uuid import UUID, uuid4

import pytest
from securesystemslib.signer import CryptoSigner, Signature

from domain import trail
from domain.database import async_sessions, sync_sessions
from domain.events import (
    JobCompleted,
    JobStarted,
    PreviewFetched,
    RequestCompleted,
    VersionSuperseded,
    WeightsFetched,
)
from domain.settings import WorkerSettings
from domain.states import Decision
from evidence import entries, merkle, signed_notes
from tests import acting, factories, merkle_proofs
from tests.conftest import connect, speaking_to
from worker.evidence import keeper

SUBJECT = UUID(int=7)


@pytest.fixture
async def subjects(sessions):
    one, other = uuid4(), uuid4()
    async with sessions.begin() as session:
        session.add(factories.event("request.received", one, actor="api", samples=3))
        trail.record(session, "worker", other, JobStarted(attempt=1))
        trail.record(session, "worker", one, RequestCompleted())
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


def test_what_is_told_of_a_request_includes_jobs_that_a_person_sent_back(own_database_url):
    dataset = factories.dataset()
    model = factories.model(dataset)
    failed, done, other = (factories.job(finished=True, model_id=model.id) for _ in range(3))
    request, version = factories.request(dataset), factories.version(model, done)
    rows = [
        [dataset],
        [model],
        [failed, done, other, request],
        [
            factories.target(request, model, job_id=done.id),
            version := factories.version(model, done),
        ],
        [factories.decision(request, failed, decision=Decision.RETRY)],
    ]
    engine = acting.engine(own_database_url)
    with sync_sessions(engine).begin() as session:
        for together in rows:
            session.add_all(together)
            session.flush()
        for job in (failed, done, other):
            trail.record(session, "worker", job.id, JobCompleted(attempt=1))
        trail.record(session, "worker", version.id, VersionSuperseded(number=1))
        for fetched in (WeightsFetched, PreviewFetched):
            trail.record(session, "api", version.id, fetched(model=model.id, number=1))
    with sync_sessions(engine).begin() as session:
        told = [event.subject_id for event, _ in session.execute(entries.about(request.id))]
    engine.dispose()

    assert told == [failed.id, done.id, version.id]  # and nothing of the downloads


@pytest.fixture
def kept(own_database_url, tmp_path):
    """A log of 30 events and the key's, with checkpoints of 12 and of 31."""
    engine = acting.engine(own_database_url)
    sessions = sync_sessions(engine)
    settings = WorkerSettings(
        database_url=own_database_url, broker_url="redis://unused", store=tmp_path,
        checkpoint_events=1,
    )  # fmt: skip
    signer = CryptoSigner.generate_ed25519()
    for count in (11, 19):
        with sessions.begin() as session:
            for number in range(count):
                session.add(factories.event("request.received", SUBJECT, number=number))
        keeper.keep(sessions, [signer], settings)
    engine.dispose()
    return signer


@pytest.fixture
async def auditor(kept, own_database_url, app):
    """Speaks to the API on that log."""
    engine = acting.async_engine(own_database_url)
    connect(app, async_sessions(engine))
    async with speaking_to(app) as client:
        yield client
    await engine.dispose()


def hashes(proof):
    return [b64decode(each) for each in proof["proof"]]


async def test_checkpoints_are_signed_notes_the_newest_first(auditor, kept):
    newest = await auditor.get("/v1/audit/checkpoint")
    older = await auditor.get("/v1/audit/checkpoint", params={"size": 12})

    assert newest.headers["content-type"].startswith("text/plain")
    assert (signed_notes.read(newest.text).size, signed_notes.read(older.text).size) == (31, 12)
    text, _, signature = newest.text.partition("\n\n")
    signed = b64decode(signature.split()[2])
    kept.public_key.verify_signature(
        Signature(kept.public_key.keyid, signed[4:].hex()), f"{text}\n".encode()
    )


async def test_an_event_is_proven_to_be_in_the_log(auditor):
    proof = (await auditor.get("/v1/audit/proof", params={"position": 4})).json()
    root = signed_notes.read((await auditor.get("/v1/audit/checkpoint")).text).root

    leaf = merkle.leaf_hash(proof["leaf"].encode())
    assert merkle_proofs.root_from_inclusion(4, 31, leaf, hashes(proof)) == root
    assert json.loads(proof["leaf"])["position"] == 4


async def entries_from(auditor, start):
    page = await auditor.get("/v1/audit/entries", params={"start": start, "limit": 7})
    return page.content.splitlines()


async def test_the_whole_log_in_lines_has_the_root_of_the_checkpoint(auditor):
    entries = []
    while lines := await entries_from(auditor, len(entries)):
        entries += lines
    root = signed_notes.read((await auditor.get("/v1/audit/checkpoint")).text).root

    assert [json.loads(entry)["position"] for entry in entries] == list(range(31))
    assert merkle.root_of([merkle.leaf_hash(entry) for entry in entries]) == root


async def test_the_log_is_proven_to_continue_an_older_checkpoint(auditor):
    proof = (await auditor.get("/v1/audit/proof", params={"old": 12})).json()
    old = signed_notes.read(
        (await auditor.get("/v1/audit/checkpoint", params={"size": 12})).text
    ).root
    new = signed_notes.read((await auditor.get("/v1/audit/checkpoint")).text).root

    assert merkle_proofs.roots_from_consistency(12, 31, hashes(proof), old) == (old, new)


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("proof?position=31", 422, "size-unknown"),
        ("proof?position=20&size=12", 422, "size-unknown"),
        ("proof?position=2&size=32", 422, "size-unknown"),
        ("proof?old=32", 422, "size-unknown"),
        ("proof?old=0", 422, "invalid-request"),
        ("proof?position=-1", 422, "invalid-request"),
        ("proof", 422, "invalid-request"),
        ("proof?position=1&old=2", 422, "invalid-request"),
        ("checkpoint?size=13", 404, "not-found"),
        (f"bundle?request={SUBJECT}", 404, "not-found"),
        ("bundle", 422, "invalid-request"),
    ],
)
async def test_what_cannot_be_proven_is_refused(auditor, problem, path, status, kind):
    problem(await auditor.get(f"/v1/audit/{path}"), status, kind)


@pytest.mark.parametrize("path", ["checkpoint", "proof?position=0"])
async def test_before_the_first_checkpoint_one_is_told_to_wait(client, problem, path):
    response = await client.get(f"/v1/audit/{path}")

    problem(response, 409, "no-checkpoint")
    assert response.headers["retry-after"] == "5"
