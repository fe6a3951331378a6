from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from domain.policy import Escalation
from domain.states import JobKind, JobStatus, Mode, RequestStatus, Verdict, VersionStatus
from domain.tables import Job
from tests import factories

POINT = ("da_forget", "da_holdout", "da_gap", "da_gap_low", "da_gap_high")


@pytest.fixture
async def job(store, model) -> Any:
    """A job that runs, two cycles in, for two requests."""
    dataset = factories.dataset(id=model.dataset_id)
    register = factories.job(model_id=model.id, finished=True)
    base = factories.version(
        model, register, number=2, status=VersionStatus.SUPERSEDED, superseded_at=factories.NOW
    )
    await store(register, base)
    row = factories.job(
        model_id=model.id,
        status=JobStatus.RUNNING,
        lease_until=factories.NOW,
        started_at=factories.NOW,
        attempt=1,
        phase="cycle 3 of 4",
        progress=0.5,
        mode=Mode.APPROXIMATE,
        mode_reason="The model is changed.",
        config={"seed": 7},
        environment={"device": "cpu"},
        base_version_id=base.id,
    )
    requests = [factories.request(dataset), factories.request(dataset)]
    targets = [
        factories.target(request, model, job_id=row.id, status=RequestStatus.RUNNING)
        for request in requests
    ]
    cycles = [factories.cycle(row, number) for number in (2, 1)]
    await store(row, *requests, *targets, *cycles, factories.evaluation(row, "before", da_gap=0.05))
    return row


async def test_shows_how_far_it_is_and_what_it_measured(client, job):
    response = await client.get(f"/v1/jobs/{job.id}")

    assert response.headers["Retry-After"] == "2"
    body = response.json()
    expected = {
        "id": str(job.id),
        "kind": "unlearn",
        "status": "running",
        "model": "cnn",
        "dataset": "digits",
        "attempt": 1,
        "phase": "cycle 3 of 4",
        "progress": 0.5,
        "requests": 2,
        "config": {"seed": 7},
        "environment": {"device": "cpu"},
        "base_version": {"number": 2, "weights_sha256": "b" * 64},
        "new_version": None,
        "mode": "approximate",
        "mode_reason": "The model is changed.",
        "verdict": None,
        "audit": None,
        "rounds": [],
        "after": None,
        "failure": None,
        "duration_seconds": None,
    }
    assert {name: body[name] for name in expected} == expected
    assert [cycle["cycle"] for cycle in body["cycles"]] == [1, 2]
    assert body["cycles"][0]["loss_retain"] == 0.3
    assert body["before"] == factories.SCORES | {"da_gap": 0.05, "figures": {"test_accuracy": 0.9}}


async def test_shows_the_version_it_made_and_how_long_it_took(client, store, model):
    job = factories.job(model_id=model.id, finished=True)
    made = factories.version(
        model, job, number=2, status=VersionStatus.SUPERSEDED, superseded_at=factories.NOW
    )
    await store(job, made, factories.evaluation(job, "after"))

    response = await client.get(f"/v1/jobs/{job.id}")

    assert "Retry-After" not in response.headers
    assert response.json()["new_version"] == {"number": 2, "weights_sha256": "b" * 64}
    assert response.json()["duration_seconds"] == 30
    assert response.json()["after"]["da_gap"] == 0.01


async def test_shows_every_round_with_every_test(client, store, job):
    first = factories.tried(job, 1, verdict=Verdict.FAIL, kept=False)
    step = {"step": Escalation.RETRAIN, "mode": Mode.EXACT}
    second = factories.tried(job, 2, **step)
    await store(
        first,
        second,
        factories.audit_test(first, "after", name="accuracy", passed=False),
        factories.audit_test(second, "after", 1),
        factories.audit_test(second, "after", 0, name="probe_f1", value=float("nan")),
        factories.audit_test(second, "before"),
        factories.audit_test(second, "guard", name="test_accuracy", high=None, p_value=None),
    )

    body = (await client.get(f"/v1/jobs/{job.id}")).json()

    assert [tried["round"] for tried in body["rounds"]] == [1, 2]
    assert body["rounds"][0]["after"] == [factories.TEST | {"name": "accuracy", "passed": False}]
    audit = body["audit"]
    assert audit == body["rounds"][1]
    assert (audit["step"], audit["mode"], audit["verdict"]) == ("retrain", "exact", "pass")
    assert (audit["alpha"], audit["permutations"], audit["seed"]) == (0.05, 2000, 7)
    assert [test["name"] for test in audit["after"]] == ["probe_f1", "alignment"]
    assert audit["after"][0]["value"] is None
    assert audit["before"] == [factories.TEST]
    assert audit["guards"][0]["high"] is None
    assert "rests on the retraining" in audit["meaning"]
    assert "can still tell" in body["rounds"][0]["meaning"]


async def test_shows_a_round_that_broke_off(client, store, job):
    figures = dict.fromkeys(("alpha", "permutations", "seed"))
    await store(factories.tried(job, verdict=Verdict.FAIL, kept=False, **figures))

    (tried,) = (await client.get(f"/v1/jobs/{job.id}")).json()["rounds"]

    assert tried["alpha"] is None
    assert tried["after"] == []


async def test_shows_the_curve_of_alignment_scores(client, job):
    curve = (await client.get(f"/v1/jobs/{job.id}/alignment")).json()

    point = {name: factories.SCORES[name] for name in POINT}
    assert curve == {
        "job_id": str(job.id),
        "status": "running",
        "before": point | {"da_gap": 0.05},
        "cycles": [point | {"round": 1, "cycle": 1}, point | {"round": 1, "cycle": 2}],
        "after": None,
    }


@pytest.mark.parametrize("path", ["", "/alignment"])
async def test_is_not_sent_again_while_nothing_changed(client, sessions, store, job, path):
    url = f"/v1/jobs/{job.id}{path}"
    first = await client.get(url)
    known = {"If-None-Match": first.headers["ETag"]}

    assert (await client.get(url, headers=known)).status_code == 304
    async with sessions.begin() as session:
        await session.execute(update(Job).where(Job.id == job.id).values(progress=0.75))
    await store(factories.cycle(job, 3))
    assert (await client.get(url, headers=known)).status_code == 200


async def test_are_listed_newest_first_and_filtered(client, store, job):
    await store(factories.job(kind=JobKind.INDEX_DATASET))

    async def kinds(**params: Any) -> list[str]:
        page = (await client.get("/v1/jobs", params=params)).json()
        return [item["kind"] for item in page["items"]]

    assert await kinds() == ["index_dataset", "unlearn", "unlearn", "register_model"]
    assert await kinds(status="running") == ["unlearn"]
    assert await kinds(kind="index_dataset") == ["index_dataset"]
    assert await kinds(model="cnn", status="completed") == ["unlearn", "register_model"]
    assert await kinds(model="other") == []
    page = (await client.get("/v1/jobs", params={"limit": 3})).json()
    rest = (await client.get("/v1/jobs", params={"cursor": page["next_cursor"]})).json()
    assert [item["kind"] for item in rest["items"]] == ["register_model"]


@pytest.mark.parametrize("path", ["", "/alignment"])
async def test_unknown_is_404(client, path, problem):
    problem(await client.get(f"/v1/jobs/{uuid4()}{path}"), 404, "not-found")
