"""What a network gets can be looked at, and whoever looks is noted."""

import pytest
from sqlalchemy import select

from domain import objects
from domain.states import JobKind, VersionStatus
from domain.tables import AuditEvent
from service.models.preview import wants_picture
from tests import factories

URL = "/v1/models/cnn/preview"
FIGURES = (
    b'{"shape": [1, 8, 8], "type": "float32", "samples": [{"label": 3, "answer": 5, '
    b'"confidence": 0.9, "smallest": 0.0, "largest": 1.0, "mean": 0.4, "values": [0.0, 1.0]}]}'
)
PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture
async def champion(store):
    """Version 2, after one that was superseded."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    jobs = [
        factories.job(model_id=model.id, finished=True, kind=JobKind.REGISTER_MODEL)
        for _ in range(2)
    ]
    gone = {"status": VersionStatus.SUPERSEDED, "superseded_at": factories.NOW}
    rows = [
        factories.version(model, jobs[0], **gone),
        factories.version(model, jobs[1], number=2, reservoir_sha256="d" * 64),
    ]
    await store(dataset, model, *jobs, *rows)
    return rows[1]


@pytest.fixture
def beside(settings, champion):
    """Put something beside the champion's reservoir, and something else beside the old one's."""

    def put(what: str, content: bytes) -> None:
        for digest, written in ((champion.reservoir_sha256, content), ("c" * 64, b"forgotten")):
            path = objects.beside(settings.store, digest, what)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(written)

    return put


@pytest.fixture
def noted(sessions):
    async def read() -> list[AuditEvent]:
        async with sessions() as session:
            return list(
                await session.scalars(select(AuditEvent).filter_by(event="preview.fetched"))
            )

    return read


async def test_images_are_shown_as_a_picture_and_that_is_noted(client, champion, beside, noted):
    beside(objects.PREVIEW_FIGURES, FIGURES)
    beside(objects.PREVIEW_PICTURE, PNG)

    response = await client.get(URL)

    assert (response.status_code, response.content) == (200, PNG)
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["Cache-Control"] == "private, no-store"
    (event,) = await noted()
    assert (event.actor, event.subject_id) == ("api", champion.id)
    assert event.data == {"model": str(champion.model_id), "number": 2}


@pytest.mark.parametrize("picture", [True, False])
async def test_figures_are_for_all_kinds_of_inputs(client, beside, noted, picture):
    beside(objects.PREVIEW_FIGURES, FIGURES)
    if picture:
        beside(objects.PREVIEW_PICTURE, PNG)

    response = await client.get(URL, headers={"Accept": "application/json"} if picture else {})

    assert response.headers["Content-Type"] == "application/json"
    assert response.json()["samples"][0]["answer"] == 5
    assert len(await noted()) == 1


async def test_what_is_not_there_is_said_and_not_noted(client, beside, noted):
    beside(objects.PREVIEW_FIGURES, FIGURES)

    response = await client.get(URL, headers={"Accept": "image/png"})

    assert response.status_code == 404
    assert "Ask for `application/json` instead" in response.json()["detail"]
    assert await noted() == []


async def test_a_version_of_an_earlier_release_has_no_preview(client, champion):
    response = await client.get(URL)

    assert response.status_code == 404
    assert "Its next version will have one" in response.json()["detail"]


async def test_a_model_without_a_version_or_none_at_all_has_no_preview(client, store):
    dataset = factories.dataset()
    await store(dataset, factories.model(dataset, name="new", status="pending"))

    for name, told in (("new", "has no version yet"), ("nobody", "no model 'nobody'")):
        response = await client.get(f"/v1/models/{name}/preview")
        assert response.status_code == 404
        assert told in response.json()["detail"]


@pytest.mark.parametrize(
    ("accept", "picture"),
    [
        ("", None),
        ("*/*", None),
        ("image/png", True),
        ("text/html, image/*;q=0.8", True),
        ("application/json", False),
        ("application/json, image/png", None),
    ],
)
def test_what_is_wanted_is_what_is_named(accept, picture):
    assert wants_picture(accept) is picture
