"""The champion's weights can be fetched, whole or in parts; nothing else can."""

import hashlib
import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from domain import objects
from domain.states import JobKind, VersionStatus
from domain.tables import AuditEvent
from service import downloads
from service.downloads import PIECE, Download, Part
from tests import factories

WEIGHTS = os.urandom(2 * PIECE + 7)
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
TAG = f'"{DIGEST}"'
URL = "/v1/models/cnn/versions/2/weights"


@pytest.fixture
def file(settings) -> Path:
    path = objects.path_of(settings.store, DIGEST)
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS)
    return path


@pytest.fixture
async def versions(store, file) -> dict[str, Any]:
    """Version 1 was superseded by 2, the champion; 3 waits for a decision."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    jobs = [
        factories.job(model_id=model.id, finished=True, kind=JobKind.REGISTER_MODEL)
        for _ in range(3)
    ]
    gone = {"status": VersionStatus.SUPERSEDED, "superseded_at": factories.NOW}
    rows = [
        factories.version(model, jobs[0], **gone),
        factories.version(model, jobs[1], number=2, weights_sha256=DIGEST),
        factories.version(model, jobs[2], number=3, status=VersionStatus.CANDIDATE),
    ]
    await store(dataset, model, *jobs, *rows)
    return {"model": model, "champion": rows[1]}


@pytest.fixture
def fetched(sessions):
    """The events that tell of downloads."""

    async def read() -> list[AuditEvent]:
        async with sessions() as session:
            chosen = select(AuditEvent).filter_by(event="weights.fetched")
            return list(await session.scalars(chosen))

    return read


async def test_the_champion_is_sent_whole_with_its_digest(client, versions, fetched):
    response = await client.get(URL)

    assert response.status_code == 200
    assert response.content == WEIGHTS
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["Content-Length"] == str(len(WEIGHTS))
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["ETag"] == TAG
    digest = b64encode(hashlib.sha256(WEIGHTS).digest()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert response.headers["Content-Disposition"] == 'attachment; filename="cnn-2.safetensors"'
    (event,) = await fetched()
    assert (event.actor, event.subject_id) == ("api", versions["champion"].id)
    assert event.data == {"model": str(versions["model"].id), "number": 2}


async def test_a_client_that_has_it_is_told_so(client, versions, fetched):
    response = await client.get(URL, headers={"If-None-Match": f'"other", {TAG}'})

    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["ETag"] == TAG
    assert await fetched() == []


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, len(WEIGHTS)),
        (f"bytes={PIECE - 1}-{PIECE}", PIECE - 1, PIECE + 1),
        ("bytes=-3", len(WEIGHTS) - 3, len(WEIGHTS)),
        (f"Bytes=7-{10**17}", 7, len(WEIGHTS)),
    ],
)
async def test_a_part_can_be_fetched(client, versions, wanted, start, end):
    response = await client.get(URL, headers={"Range": wanted, "If-Range": TAG})

    assert response.status_code == 206
    assert response.content == WEIGHTS[start:end]
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(WEIGHTS)}"
    assert response.headers["Content-Length"] == str(end - start)
    assert response.headers["ETag"] == TAG


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-9", "If-Range": '"another version"'},
        {"Range": "bytes=0-9", "If-Range": "Sat, 28 Nov 2026 10:00:00 GMT"},
        {"Range": "bytes=9-5"},
        {"Range": "bytes=-"},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "rows=0-9"},
        {"Range": f"bytes={'9' * 5000}-"},
        {"Range": "bytes=0-"},
    ],
    ids=str,
)
async def test_the_whole_file_is_sent_where_no_part_is_meant(client, versions, headers):
    response = await client.get(URL, headers=headers)

    assert (response.status_code, response.content) == (200, WEIGHTS)
    assert "Content-Range" not in response.headers


@pytest.mark.parametrize("wanted", [f"bytes={len(WEIGHTS)}-", "bytes=-0"])
async def test_a_part_behind_the_end_is_refused(client, versions, wanted, problem, fetched):
    response = await client.get(URL, headers={"Range": wanted})

    problem(response, 416, "range-not-satisfiable")
    assert response.headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"
    assert await fetched() == []


async def test_a_download_is_recorded_once_however_often_it_is_resumed(client, versions, fetched):
    for wanted in ("bytes=0-99", "bytes=100-199", "bytes=200-"):
        await client.get(URL, headers={"Range": wanted})

    assert len(await fetched()) == 1


@pytest.mark.parametrize(
    ("number", "status", "says"),
    [
        (1, "superseded", "holds samples that have been forgotten"),
        (3, "candidate", "awaits a person's decision"),
    ],
)
async def test_only_the_champion_may_be_served(
    client, versions, number, status, says, problem, fetched
):
    response = await client.get(f"/v1/models/cnn/versions/{number}/weights")

    refusal = problem(response, 409, "not-servable")
    assert says in refusal["detail"]
    assert "Fetch version 2, the champion." in refusal["detail"]
    assert (refusal["version_status"], refusal["champion"]) == (status, 2)
    assert await fetched() == []


async def test_a_purged_version_is_refused(client, store, versions, problem):
    at = factories.NOW
    job = factories.job(model_id=versions["model"].id, finished=True, kind=JobKind.REGISTER_MODEL)
    gone = {"status": VersionStatus.SUPERSEDED, "superseded_at": at, "purged_at": at}
    await store(job, factories.version(versions["model"], job, number=4, **gone))

    response = await client.get("/v1/models/cnn/versions/4/weights")

    assert "files have been deleted" in problem(response, 409, "not-servable")["detail"]


async def test_a_model_without_a_champion_says_so(client, store, problem):
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, finished=True)
    await store(dataset, model, job)
    await store(factories.version(model, job, status=VersionStatus.CANDIDATE))

    refusal = problem(await client.get("/v1/models/cnn/versions/1/weights"), 409, "not-servable")

    assert refusal["champion"] is None
    assert "no version to serve" in refusal["detail"]


@pytest.mark.parametrize("path", ["cnn/versions/9", "none/versions/1"])
async def test_what_is_unknown_is_not_found(client, versions, path, problem):
    problem(await client.get(f"/v1/models/{path}/weights"), 404, "not-found")


async def test_a_missing_file_is_told_to_whom_can_mend_it(
    client, versions, file, problem, fetched, capsys
):
    file.unlink()

    refusal = problem(await client.get(URL), 503, "weights-unavailable")

    assert "LETHE_STORE" in refusal["detail"]
    assert "restore the file from a backup" in refusal["detail"]
    assert str(file.parent) not in refusal["detail"]
    assert "weights.unavailable" in capsys.readouterr().out
    assert await fetched() == []


async def test_what_is_being_sent_is_sent_to_its_end(file):
    """Its version may be superseded and purged while it is on its way."""
    opened, size = await downloads.open_file(file)
    response = Download(opened, Part(0, size, size), {})
    received = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            file.unlink(missing_ok=True)
            received.append(message["body"])

    async def receive() -> Any:
        raise AssertionError("nothing is asked of the client")

    await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)

    assert b"".join(received) == WEIGHTS
    assert max(map(len, received)) <= PIECE
    assert opened.closed
