"""Downloading weights: whatever happens on the way, a wrong file is never left."""

import hashlib
from base64 import b64encode

import pytest

from lethe import AsyncLethe, Lethe, errors
from tests.conftest import KEY
from tests.lethe.conftest import QUICKLY
from tests.lethe.fakes import Fake, hangs_up, problem, sends, truncates
from tests.lethe.test_network import VERSION

BYTES = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(BYTES)
TAG = f'"{DIGEST.hexdigest()}"'
HEADERS = {
    "ETag": TAG,
    "Repr_Digest": f"sha-256=:{b64encode(DIGEST.digest()).decode()}:",
    "Content_Type": "application/octet-stream",
}
NAMED = sends(200, {**VERSION, "weights_sha256": DIGEST.hexdigest()})


def part(start: int, end: int | None = None, **headers: str):
    """The bytes from here on, as an answer to `Range`."""
    sent = {"Content_Range": f"bytes {start}-{len(BYTES) - 1}/{len(BYTES)}", **HEADERS, **headers}
    return sends(206, BYTES[start:end], **sent)


@pytest.fixture
def lethe(fake: Fake):
    with Lethe(fake.url, KEY, retries=QUICKLY) as client:
        yield client


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cnn.safetensors"


def left(place) -> list[str]:
    return [file.name for file in place.parent.iterdir()]


def test_the_file_appears_when_it_is_whole(lethe, fake, place):
    seen = []
    fake.answers(NAMED, sends(200, BYTES, **HEADERS))

    version = lethe.weights("cnn", place, version=1, on_progress=lambda *now: seen.append(now))

    assert version.number == 1
    assert place.read_bytes() == BYTES
    assert left(place) == [place.name]
    assert seen[-1] == (len(BYTES), len(BYTES))
    assert fake.received[1].path == "/v1/models/cnn/versions/1/weights"
    assert fake.received[1].headers["accept-encoding"] == "identity"


def test_a_file_that_is_there_is_replaced_at_the_end_alone(lethe, fake, place):
    place.write_bytes(b"old")
    fake.answers(NAMED, problem(409, "holds-forgotten-samples"))
    with pytest.raises(errors.Conflict):
        lethe.weights("cnn", place, version=1)
    assert place.read_bytes() == b"old"

    fake.answers(NAMED, sends(200, BYTES, **HEADERS))
    lethe.weights("cnn", place, version=1)
    assert place.read_bytes() == BYTES


def test_a_lost_connection_is_resumed(lethe, fake, place):
    half = len(BYTES) // 2
    lost = truncates(BYTES, half, **HEADERS)
    fake.answers(NAMED, lost, hangs_up, problem(503, "unavailable"), resuming(BYTES, len(BYTES)))

    lethe.weights("cnn", place, version=1)

    assert place.read_bytes() == BYTES
    for resumed in fake.received[2:]:
        start = int(resumed.headers["range"].removeprefix("bytes=").removesuffix("-"))
        assert 0 < start <= half
        assert resumed.headers["if-range"] == TAG


def test_more_losses_than_attempts_are_outlived_while_bytes_arrive(lethe, fake, place):
    steps = range(0, len(BYTES), len(BYTES) // 8)
    fake.answers(
        NAMED,
        *(resuming(BYTES, step + len(BYTES) // 8 + 1) for step in steps),
        resuming(BYTES, len(BYTES)),
    )

    lethe.weights("cnn", place, version=1)

    assert place.read_bytes() == BYTES
    assert len(fake.received) > QUICKLY.attempts + 2


def resuming(body: bytes, until: int):
    """Answer `Range`, and lose the connection at this byte."""

    def reply(request):
        given = request.headers.get("Range", "bytes=0-")
        start = int(given.removeprefix("bytes=").removesuffix("-"))
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - start))
        request.send_header("ETag", TAG)
        request.end_headers()
        request.wfile.write(body[start:until])
        request.wfile.flush()
        request.close_connection = True

    return reply


def test_a_server_without_ranges_begins_again(lethe, fake, place):
    half = len(BYTES) // 2
    fake.answers(NAMED, truncates(BYTES, half, **HEADERS), sends(200, BYTES, **HEADERS))

    lethe.weights("cnn", place, version=1)

    assert place.read_bytes() == BYTES


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        ([sends(200, BYTES[:-1] + b"x", ETag=TAG)], errors.WeightsDiffer),
        ([sends(200, BYTES[:-1])], errors.WeightsDiffer),
        ([sends(200, BYTES + b"x")], errors.WeightsDiffer),
        ([sends(200, BYTES, ETag=f'"{"0" * 64}"')], errors.WeightsDiffer),
        ([sends(200, b"", ETag=TAG)], errors.WeightsDiffer),
        ([truncates(BYTES, 1000, **HEADERS), part(999)], errors.NotUnderstood),
        ([truncates(BYTES, 1000, **HEADERS), sends(206, b"x", ETag=TAG)], errors.NotUnderstood),
        ([truncates(BYTES, 1000, **HEADERS), hangs_up], errors.Unreachable),
        ([problem(409, "holds-forgotten-samples")], errors.Conflict),
        ([problem(404, "not-found")], errors.NotFound),
        ([sends(302, Location="https://elsewhere.example.com")], errors.NotUnderstood),
    ],
)
def test_no_wrong_file_is_left(lethe, fake, place, replies, error):
    fake.answers(NAMED, *replies)

    with pytest.raises(error):
        lethe.weights("cnn", place, version=1)

    assert left(place) == []


def test_nothing_is_downloaded_when_other_bytes_are_announced(lethe, fake, place):
    other = b64encode(hashlib.sha256(b"other").digest()).decode()
    fake.answers(NAMED, sends(200, BYTES, ETag=TAG, Repr_Digest=f"sha-256=:{other}:"))

    with pytest.raises(errors.WeightsDiffer, match="store"):
        lethe.weights("cnn", place, version=1)


def test_a_place_that_cannot_be_written_is_an_error_of_the_file_system(lethe, fake, tmp_path):
    fake.answers(NAMED)

    with pytest.raises(FileNotFoundError):
        lethe.weights("cnn", tmp_path / "missing/cnn.safetensors", version=1)


async def test_the_asynchronous_client_downloads_too(fake, place):
    half = len(BYTES) // 2
    fake.answers(NAMED, truncates(BYTES, half, **HEADERS), resuming(BYTES, len(BYTES)))
    async with AsyncLethe(fake.url, KEY, retries=QUICKLY) as lethe:
        await lethe.weights("cnn", place, version=1)

    assert place.read_bytes() == BYTES
