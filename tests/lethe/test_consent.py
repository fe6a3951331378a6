"""The command line: suppressions are lifted, a month is counted where the person is, and it is said
until when a request waits."""

import pytest

from tests import factories
from tests.conftest import KEY
from tests.lethe.conftest import Ready, Service


@pytest.fixture
def lethe(command, service: Service, monkeypatch):
    """The same, speaking to the real API."""
    monkeypatch.setenv("LETHE_URL", service.url)
    monkeypatch.setenv("LETHE_API_KEY", KEY)
    return command


def test_a_suppression_is_lifted_by_somebody_and_listed(lethe, service: Service, ready: Ready):
    job = factories.job(model_id=ready.model.id, finished=True)
    service.put(job, *factories.tombstones(ready.model, job, "t5"))
    who = ("--reason", "consent of 12 March", "--authorised-by", "Ada")

    said = lethe("dataset", "lift", ready.names[0], "t5", *who)
    again = lethe("dataset", "lift", ready.names[0], "t5", "t6", *who, "--json")
    listed = lethe("dataset", "lifts", ready.names[0])

    assert said.status == 0
    assert "1 samples may be trained on again" in said.err
    assert lethe("check", ready.names[0], "t5").status == 0
    assert again.status == 1
    assert again.json == {"lift": None, "already_lifted": ["t5"], "not_suppressed": ["t6"]}
    assert "Ada" in listed.out
    assert "consent of 12 March" in listed.out


def test_a_date_without_a_zone_is_one_of_the_persons(lethe, ready: Ready):
    place = ("forget", "t2", "--model", ready.names[1], "--received-at", "2026-11-02", "--json")

    tokyo = lethe(*place, "--time-zone", "Asia/Tokyo")
    offset = lethe(*place, "--time-zone", "-03:30")

    assert tokyo.json["received_at"] == "2026-11-01T15:00:00Z"
    assert tokyo.json["due_at"] == "2026-12-01T15:00:00Z"
    assert offset.json["received_at"] == "2026-11-02T03:30:00Z"
    assert lethe(*place, "--time-zone", "Nowhere").status == 2


def test_forget_says_until_when_a_request_waits_unless_it_is_urgent(lethe, ready: Ready):
    told = "It waits for others to share a job, until 20"
    waits = lethe("forget", "t2", "--model", ready.names[1])
    urgent = lethe("forget", "t3", "--model", ready.names[1], "--urgent")

    assert told in waits.err
    assert "--urgent" in waits.err
    assert "UTC at the latest" in waits.out
    assert told not in urgent.err
    assert "urgent" in urgent.out
