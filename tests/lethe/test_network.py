"""What the client does when the network, a proxy or the service misbehaves."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from uuid import uuid4

import pytest

from lethe import AsyncLethe, Lethe, errors
from lethe.retrying import Retries, retry_after
from tests.conftest import KEY
from tests.lethe.conftest import QUICKLY
from tests.lethe.fakes import Fake, hangs_up, problem, sends, truncates

NOW = "2026-11-30T09:00:00Z"
VERSION = {
    "number": 1, "status": "champion", "mode": "exact", "parent": None, "weights_sha256": "a" * 64,
    "job_id": str(uuid4()), "figures": {}, "created_at": NOW, "superseded_at": None,
    "purge_after": None, "purged_at": None,
}  # fmt: skip
REQUEST = {
    "id": str(uuid4()), "status": "pending", "objective": "untrain_samples", "exact": False,
    "dataset": "digits", "samples": 1, "duplicates": 0, "commitment": None, "subject_ref": None,
    "reason": None, "received_at": NOW, "due_at": NOW, "created_at": NOW, "finished_at": None,
    "overdue_at": None, "shredded_at": None, "rows": None, "targets": [], "decisions": [],
}  # fmt: skip


@pytest.fixture
def lethe(fake: Fake):
    with Lethe(fake.url, KEY, retries=QUICKLY, timeout=5) as client:
        yield client


def keys(fake: Fake) -> list[str]:
    return [received.headers["idempotency-key"] for received in fake.received]


@pytest.mark.parametrize(
    "reply",
    [
        hangs_up,
        problem(503, "unavailable", Retry_After="0"),
        problem(503, "unavailable"),
        problem(429, "busy", Retry_After="0"),
        problem(409, "idempotency-key-in-flight", Retry_After="0"),
        sends(502, b"<html>Bad Gateway</html>"),
        truncates(b"x" * 100, 10),
    ],
)
def test_a_submission_is_sent_again_with_the_same_key(lethe, fake, reply):
    fake.answers(reply, reply, sends(202, REQUEST, Idempotent_Replayed="true"))

    made = lethe.forget(["t1"], model="cnn")

    assert keys(fake) == [made.idempotency_key] * 3
    assert len({received.body for received in fake.received}) == 1
    assert made.was_submitted_before


def test_every_submission_has_a_key_of_its_own_unless_one_is_given(lethe, fake):
    fake.answers(sends(202, REQUEST))

    lethe.forget(["t1"], model="cnn")
    lethe.forget(["t1"], model="cnn")
    lethe.forget(["t1"], model="cnn", idempotency_key="mine")

    assert len(set(keys(fake))) == 3
    assert keys(fake)[2] == "mine"


def test_the_key_can_be_read_when_all_attempts_failed(lethe, fake):
    fake.answers(hangs_up)
    with pytest.raises(errors.Unreachable) as lost:
        lethe.forget(["t1"], model="cnn")

    fake.answers(problem(503, "unavailable"))
    with pytest.raises(errors.Unavailable) as away:
        lethe.forget(["t1"], model="cnn", idempotency_key="mine")

    assert len(keys(fake)) == 2 * QUICKLY.attempts
    assert lost.value.may_have_arrived
    assert lost.value.idempotency_key == keys(fake)[0]
    assert lost.value.idempotency_key in str(lost.value)
    assert away.value.idempotency_key == "mine"


@pytest.mark.parametrize("reply", [hangs_up, problem(503, "unavailable"), sends(502, b"")])
def test_what_may_have_arrived_is_not_sent_again_unless_that_is_harmless(lethe, fake, reply):
    fake.answers(reply)
    with pytest.raises((errors.Unreachable, errors.Unavailable)):
        lethe.decide_request(uuid4(), "accept", "fine")
    once = len(fake.received)
    with pytest.raises((errors.Unreachable, errors.Unavailable)):
        lethe.cancel_request(uuid4())

    assert once == 1
    assert len(fake.received) == 1 + QUICKLY.attempts


def test_too_many_requests_are_waited_for_in_any_case(lethe, fake):
    fake.answers(problem(429, "busy", Retry_After="0"), sends(204))

    lethe.delete_webhook(uuid4())

    assert len(fake.received) == 2


def test_a_service_that_is_not_there_is_asked_again_for_everything():
    lethe = Lethe("http://127.0.0.1:1", KEY, retries=QUICKLY)
    with lethe, pytest.raises(errors.Unreachable) as lost:
        lethe.delete_webhook(uuid4())

    assert not lost.value.may_have_arrived


def test_retry_after_is_kept_and_too_long_a_wait_is_not_begun(fake, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with Lethe(fake.url, KEY) as lethe:
        fake.answers(problem(503, "unavailable", Retry_After="7"), sends(200, VERSION))
        lethe.read_version("cnn", 1)
        fake.answers(problem(503, "unavailable", Retry_After="3600"))
        with pytest.raises(errors.Unavailable) as away:
            lethe.read_version("cnn", 1)

    assert len(slept) == 1
    assert 7 <= slept[0] <= 8
    assert away.value.retry_after == 3600


def test_pauses_grow_and_differ():
    retries = Retries(attempts=6, first=1, longest=4)
    pauses = [[retries.pause(attempt, None) for attempt in range(1, 6)] for _ in range(20)]

    for low, high, several in zip(
        (0.5, 1, 2, 2, 2), (1, 2, 4, 4, 4), zip(*pauses, strict=True), strict=True
    ):
        assert all(low <= pause <= high for pause in several)
        assert len(set(several)) > 1
    assert retries.pause(6, None) is None


def test_retry_after_is_a_number_or_a_date():
    later = datetime.now(UTC) + timedelta(seconds=100)

    assert retry_after({"retry-after": "5"}) == 5
    assert 98 <= (retry_after({"retry-after": format_datetime(later, usegmt=True)}) or 0) <= 100
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_redirects_are_not_followed(lethe, fake):
    fake.answers(sends(307, Location="https://elsewhere.example.com/v1/models/cnn"))

    with pytest.raises(errors.NotUnderstood, match="redirect"):
        lethe.read_model("cnn")

    assert len(fake.received) == 1


@pytest.mark.parametrize(
    "reply",
    [
        sends(200, b"<html>Sign in</html>"),
        sends(200, b""),
        sends(200, b'{"number": 1}'),
        sends(200, b"[1, 2]"),
        sends(200, b"\xff\xfe"),
        sends(404, b"<html>no such page</html>"),
        sends(200, b"not gzip", Content_Encoding="gzip"),
    ],
)
def test_answers_of_somebody_else_are_not_taken_for_the_service_s(lethe, fake, reply):
    fake.answers(reply)

    with pytest.raises((errors.NotUnderstood, errors.Unreachable)) as strange:
        lethe.read_version("cnn", 1)

    assert "URL" in str(strange.value)
    assert KEY not in str(strange.value)


def test_a_newer_service_may_say_more(lethe, fake):
    fake.answers(sends(200, {**VERSION, "status": "frozen", "colour": {"red": 1}}))

    read = lethe.read_version("cnn", 1)

    assert (read.status, read.status.value, read.mode) == ("frozen", "frozen", "exact")
    assert read.model_extra == {"colour": {"red": 1}}
    assert read.model_dump(mode="json")["status"] == "frozen"


def test_a_bug_of_the_service_is_not_tried_again(lethe, fake):
    fake.answers(problem(500, "internal-error"))

    with pytest.raises(errors.ServiceFailed):
        lethe.read_version("cnn", 1)

    assert len(fake.received) == 1


def test_a_service_that_says_nothing_is_given_up(fake):
    import time

    fake.answers(lambda request: time.sleep(0.5))
    lethe = Lethe(fake.url, KEY, timeout=0.05, retries=Retries(attempts=2, first=0.01))
    with lethe, pytest.raises(errors.Unreachable):
        lethe.read_version("cnn", 1)

    assert len(fake.received) == 2


async def test_the_asynchronous_client_retries_too(fake):
    fake.answers(hangs_up, problem(503, "unavailable", Retry_After="0"), sends(202, REQUEST))
    async with AsyncLethe(fake.url, KEY, retries=QUICKLY) as lethe:
        made = await lethe.forget(["t1"], model="cnn")

    assert keys(fake) == [made.idempotency_key] * 3


def test_names_cannot_leave_their_place_in_a_path(lethe, fake):
    fake.answers(problem(404, "not-found"))
    for name in ("../../admin", "a/b", "a?b=c", "a#b", "ä"):
        with pytest.raises(errors.NotFound):
            lethe.read_model(name)

    assert {received.path.count("/") for received in fake.received} == {3}
    assert all("?" not in received.path for received in fake.received)


def test_sample_ids_stand_in_no_address(lethe, fake):
    fake.answers(sends(202, REQUEST))
    lethe.forget(["somebody"], model="cnn")

    assert "somebody" not in fake.received[0].path
    assert b"somebody" in fake.received[0].body


def test_the_key_goes_with_every_request_and_into_no_text(lethe, fake):
    fake.answers(sends(200, VERSION))
    lethe.read_version("cnn", 1)

    assert fake.received[0].headers["authorization"] == f"Bearer {KEY}"
    assert fake.received[0].headers["user-agent"].startswith("lethe-python/")
    assert KEY not in repr(lethe) + repr(vars(lethe))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://lethe.example.com", False),
        ("http://10.0.0.1:8000", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("https://lethe.example.com/", True),
        ("http://localhost:8000", True),
        ("http://127.0.0.5", True),
        ("http://[::1]:8000", True),
    ],
)
@pytest.mark.parametrize("client", [Lethe, AsyncLethe])
def test_a_key_is_sent_unencrypted_to_this_machine_alone(client, url, allowed):
    if not allowed:
        with pytest.raises(errors.InsecureAddress, match="--insecure"):
            client(url, KEY)
    assert client(url, KEY, insecure=True).url == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["lethe.example.com", "ftp://x", "https://", "https://me:secret@x.com", "https://x/?a"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(errors.NotSent):
        Lethe(url, KEY)


@pytest.mark.parametrize("key", ["", "two\nlines", "sch\u00fcssel"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key):
    with pytest.raises(errors.NotSent) as refused:
        Lethe("https://lethe.example.com", key)

    assert not key or key not in str(refused.value)


def test_what_cannot_be_meant_is_refused_before_it_is_sent(lethe, fake):
    for wrong in (
        lambda: lethe.forget("t1", model="cnn"),
        lambda: lethe.forget(["t1"], model="cnn", received_at=datetime(2026, 1, 1)),  # noqa: DTZ001
        lambda: lethe.forget(["\ud800"], model="cnn"),
    ):
        with pytest.raises(errors.NotSent):
            wrong()

    assert fake.received == []
