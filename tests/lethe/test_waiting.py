"""Waiting: how often the service is polled, what is reported, and what an outage does."""

from uuid import uuid4

import pytest

from lethe import Lethe, errors
from tests.conftest import KEY
from tests.lethe.conftest import QUICKLY
from tests.lethe.fakes import Fake, hangs_up, problem, sends
from tests.lethe.test_network import REQUEST

TAG = {"ETag": '"one"', "Retry_After": "0"}
JOB = str(uuid4())
TARGET = {
    "model": "cnn", "status": "running", "job_id": JOB, "already_forgotten": 0,
    "not_trained_on": 0, "result": None, "failure": None,
}  # fmt: skip


def job(**changes):
    names = (
        "model dataset phase started_at finished_at duration_seconds failure worker lease_until "
        "not_before objective config environment base_version new_version mode mode_reason verdict "
        "audit before after accuracy accepted_job_id advantage fine_tuned"
    )
    values = {"id": JOB, "kind": "unlearn", "status": "running", "attempt": 1, "losses": 0,
              "progress": 0.0, "requests": 1, "created_at": REQUEST["created_at"], "rounds": [],
              "cycles": []}  # fmt: skip
    return dict.fromkeys(names.split()) | values | changes


@pytest.fixture
def lethe(fake: Fake, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with Lethe(fake.url, KEY, retries=QUICKLY) as client:
        yield client


@pytest.fixture
def request_(lethe, fake):
    fake.answers(sends(200, REQUEST))
    read = lethe.read_request(REQUEST["id"])
    fake.received.clear()
    return read


def test_only_what_changed_is_fetched_and_told(lethe, fake, request_):
    running = {**REQUEST, "status": "running", "targets": [TARGET]}
    done = {**REQUEST, "status": "completed", "targets": [{**TARGET, "status": "completed"}]}
    told = []
    fake.answers(
        sends(200, running, **TAG), sends(200, job(progress=0.25, phase="cycle 1"), **TAG),
        sends(304, **TAG), sends(304, **TAG),
        sends(304, **TAG), sends(200, job(progress=0.5, phase="cycle 2"), ETag='"two"'),
        sends(200, done), sends(200, job(progress=1.0, status="completed")),
    )  # fmt: skip

    ended = lethe.wait(request_, on_progress=told.append)

    assert ended.status == "completed"
    assert [(news.fraction, news.phase) for news in told] == [
        (0.25, "cycle 1"),
        (0.5, "cycle 2"),
        (1.0, None),
    ]
    tags = [received.headers.get("if-none-match") for received in fake.received]
    assert tags == [None, None, '"one"', '"one"', '"one"', '"one"', '"one"', '"two"']


def test_without_a_listener_no_job_is_asked_for(lethe, fake, request_):
    running = {**REQUEST, "status": "running", "targets": [TARGET]}
    fake.answers(sends(200, running, **TAG), sends(200, {**REQUEST, "status": "failed"}))

    assert lethe.wait(request_).status == "failed"
    assert len(fake.received) == 2


def test_the_service_says_how_long_to_wait(lethe, fake, request_, monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    fake.answers(
        sends(200, REQUEST, ETag='"one"', Retry_After="3"),
        sends(304, ETag='"one"'),
        sends(200, {**REQUEST, "status": "refused"}),
    )

    lethe.wait(request_)

    assert slept == [3, 2]


def test_an_outage_is_outlived(lethe, fake, request_):
    away = [hangs_up, problem(503, "unavailable")] * QUICKLY.attempts * 3
    fake.answers(*away, sends(200, {**REQUEST, "status": "completed"}))

    assert lethe.wait(request_).status == "completed"


def test_an_outage_without_end_is_an_error(lethe, fake, request_, monkeypatch):
    monkeypatch.setattr("lethe.waiting.OUTAGE_S", 0.05)
    fake.answers(hangs_up)

    with pytest.raises(errors.Unreachable):
        lethe.wait(request_)


def test_a_refusal_is_not_waited_for(lethe, fake, request_):
    fake.answers(problem(404, "not-found"))

    with pytest.raises(errors.NotFound):
        lethe.wait(request_)
