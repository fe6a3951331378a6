"""Downloading weights: whatever happens, no wrong file is left behind."""

import hashlib
from base64 import b64encode
from uuid import uuid4

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
def serves(fake: Fake):
    """Answer each request for weights so, in order, and those for the version always the same."""

    def answer(*replies, version=NAMED):
        left = list(replies)

        def reply(request):
            (left.pop(0) if request.path.endswith("/weights") else version)(request)

        fake.answers(reply)

    return answer


def asked(fake: Fake):
    """The requests for weights."""
    return [received for received in fake.received if received.path.endswith("/weights")]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cnn.safetensors"


def left(place) -> list[str]:
    return [file.name for file in place.parent.iterdir()]


def test_the_file_appears_when_it_is_whole(lethe, fake, serves, place):
    seen = []
    serves(sends(200, BYTES, **HEADERS))

    version = lethe.weights("cnn", place, version=1, on_progress=lambda *now: seen.append(now))

    assert version.number == 1
    assert place.read_bytes() == BYTES
    assert left(place) == [place.name]
    assert seen[-1] == (len(BYTES), len(BYTES))
    (request,) = asked(fake)
    assert request.path == "/v1/models/cnn/versions/1/weights"
    assert request.headers["accept-encoding"] == "identity"


def test_a_file_that_is_there_is_replaced_at_the_end_alone(lethe, serves, place):
    place.write_bytes(b"old")
    serves(problem(409, "holds-forgotten-samples"))
    with pytest.raises(errors.Conflict):
        lethe.weights("cnn", place, version=1)
    assert place.read_bytes() == b"old"

    serves(sends(200, BYTES, **HEADERS))
    lethe.weights("cnn", place, version=1)
    assert place.read_bytes() == BYTES


def test_a_lost_connection_is_resumed(lethe, fake, serves, place):
    half = len(BYTES) // 2
    lost = truncates(BYTES, half, **HEADERS)
    serves(lost, hangs_up, problem(503, "unavailable"), resuming(BYTES, len(BYTES)))

    lethe.weights("cnn", place, version=1)

    assert place.read_bytes() == BYTES
    for resumed in asked(fake)[1:]:
        start = int(resumed.headers["range"].removeprefix("bytes=").removesuffix("-"))
        assert start == half
        assert resumed.headers["if-range"] == TAG


def test_more_losses_than_attempts_are_outlived_while_bytes_arrive(lethe, fake, serves, place):
    steps = range(0, len(BYTES), len(BYTES) // 8)
    serves(
        *(resuming(BYTES, step + len(BYTES) // 8 + 1) for step in steps),
        resuming(BYTES, len(BYTES)),
    )

    lethe.weights("cnn", place, version=1)

    assert place.read_bytes() == BYTES
    assert len(asked(fake)) > QUICKLY.attempts + 2


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


def test_a_server_without_ranges_begins_again(lethe, serves, place):
    half = len(BYTES) // 2
    serves(truncates(BYTES, half, **HEADERS), sends(200, BYTES, **HEADERS))

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
def test_no_wrong_file_is_left(lethe, serves, place, replies, error):
    serves(*replies)

    with pytest.raises(error):
        lethe.weights("cnn", place, version=1)

    assert left(place) == []


def test_a_version_that_is_superseded_meanwhile_is_not_kept(lethe, fake, place):
    old = sends(200, {**VERSION, "weights_sha256": DIGEST.hexdigest(), "status": "superseded"})
    fake.answers(NAMED, sends(200, BYTES, **HEADERS), old)

    with pytest.raises(errors.Conflict, match="superseded"):
        lethe.weights("cnn", place, version=1)

    assert left(place) == []


def test_a_champion_that_comes_up_meanwhile_is_downloaded_instead(lethe, fake, place):
    newer = hashlib.sha256(b"newer").hexdigest()
    first = {**VERSION, "weights_sha256": DIGEST.hexdigest()}
    second = {**VERSION, "number": 2, "weights_sha256": newer}
    fake.answers(
        sends(200, {**MODEL, "champion": first}),
        sends(200, BYTES, **HEADERS),
        sends(200, {**MODEL, "champion": second}),
        sends(200, b"newer", ETag=f'"{newer}"'),
        sends(200, {**MODEL, "champion": second}),
    )

    assert lethe.weights("cnn", place).number == 2
    assert place.read_bytes() == b"newer"


def test_a_model_without_a_champion_has_no_weights(lethe, fake, place):
    fake.answers(sends(200, {**MODEL, "champion": None}))

    with pytest.raises(errors.NotFound, match="no version to serve"):
        lethe.weights("cnn", place)


MODEL = {
    "id": str(uuid4()), "name": "cnn", "status": "ready", "created_at": VERSION["created_at"],
    "ready_at": None, "failure": None, "job_id": str(uuid4()), "dataset": "digits",
    "weights": "file:///x", "architecture": {"kind": "transformers"}, "head": "head",
    "suppressed_samples": 0, "warning": None, "drift": None, "references": None,
    "accuracy": None,
}  # fmt: skip


def test_nothing_is_downloaded_when_other_bytes_are_announced(lethe, serves, place):
    other = b64encode(hashlib.sha256(b"other").digest()).decode()
    serves(sends(200, BYTES, ETag=TAG, Repr_Digest=f"sha-256=:{other}:"))

    with pytest.raises(errors.WeightsDiffer, match="store"):
        lethe.weights("cnn", place, version=1)


def test_a_place_that_cannot_be_written_is_an_error_of_the_file_system(lethe, serves, tmp_path):
    serves()

    with pytest.raises(FileNotFoundError):
        lethe.weights("cnn", tmp_path / "missing/cnn.safetensors", version=1)


async def test_the_asynchronous_client_downloads_too(fake, serves, place):
    half = len(BYTES) // 2
    serves(truncates(BYTES, half, **HEADERS), resuming(BYTES, len(BYTES)))
    async with AsyncLethe(fake.url, KEY, retries=QUICKLY) as lethe:
        await lethe.weights("cnn", place, version=1)

    assert place.read_bytes() == BYTES
