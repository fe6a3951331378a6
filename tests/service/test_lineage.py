"""Where forgotten data still is, according to the API."""

from datetime import timedelta
from unittest.mock import ANY

import pytest

from domain.states import JobKind, RequestStatus, VersionStatus
from domain.tables import JobCheckpoint, ReferenceTables
from tests import factories

URL = "/v1/models/cnn/lineage"
START = factories.NOW - timedelta(days=10)


def day(number):
    return START + timedelta(days=number)


def json(instant):
    return instant.isoformat().replace("+00:00", "Z")


@pytest.fixture
async def history(store):
    """Version 1; a job that forgot a sample on day 2 and made version 2; a candidate that a person
    refused; a job on day 6 that made version 4; one that runs. Version 1 was purged on day 5."""
    dataset = factories.dataset()
    model = factories.model(dataset, created_at=day(0))
    first, second, refused, fourth, running = (
        factories.job(model_id=model.id, finished=number < 5, started_at=day(number))
        for number in range(1, 6)
    )
    first.kind = JobKind.REGISTER_MODEL
    second.forgotten_at, fourth.forgotten_at = day(2), day(6)
    old = {"status": VersionStatus.SUPERSEDED}
    versions = [
        factories.version(
            model, first, created_at=day(1), superseded_at=day(2), purged_at=day(5), **old
        ),
        factories.version(model, second, number=2, created_at=day(2), superseded_at=day(6), **old),
        factories.version(model, refused, number=3, created_at=day(3), superseded_at=day(4), **old),
        factories.version(model, fourth, number=4, created_at=day(6)),
    ]
    for version in versions[1:]:
        version.parent_id = versions[0].id
    done = {"status": RequestStatus.COMPLETED}
    requests = [factories.request(dataset, samples=samples) for samples in (1, 2, 3, 4)]
    jobs = [second, second, fourth, running]
    await store(
        dataset,
        model,
        *(first, second, refused, fourth, running),
        versions[0],
        *versions[1:],
        *requests,
        *(
            factories.target(request, model, job_id=job.id, **done)
            for request, job in zip(requests, jobs, strict=True)
        ),
        ReferenceTables(
            model_id=model.id, job_id=first.id, models=2, recipe="r", completed_at=day(1)
        ),
        JobCheckpoint(job_id=running.id, round=1, attempt=1, cycle=1, name="a", sha256="c" * 64),
    )
    return {
        "second": str(second.id),
        "fourth": str(fourth.id),
        "running": str(running.id),
        "requests": [str(request.id) for request in requests],
    }


async def test_tells_of_everything_what_it_holds_and_when_it_goes(client, history):
    lineage = (await client.get(URL)).json()

    second, fourth, running = (history[name] for name in ("second", "fourth", "running"))
    files = ("weights", "statistics", "reservoir")
    told = {(item["kind"], item["version"]): item for item in lineage["items"]}
    tainted = {key: item["tainted_by"] for key, item in told.items()}
    assert tainted == {
        ("source_weights", None): [second, fourth],
        ("checkpoint", None): [running],
        ("out_of_sample_predictions", None): [second, fourth],
        ("membership_statistics", None): [second, fourth],
        **{(kind, 1): [second, fourth] for kind in files},
        **{(kind, 2): [fourth] for kind in files},
        **{(kind, 3): [fourth] for kind in files},
        **{(kind, 4): [] for kind in files},
    }
    assert told["weights", 1] == {
        "kind": "weights",
        "name": "a" * 64,
        "version": 1,
        "job_id": ANY,
        "created_at": json(day(1)),
        "tainted_by": [second, fourth],
        "purge_after": json(day(5)),
        "purged_at": json(day(5)),
    }
    assert told["reservoir", 2]["purge_after"] == json(day(9))
    assert told["reservoir", 2]["purged_at"] is None
    assert told["weights", 4]["purge_after"] is None
    assert lineage["model"] == "cnn"
    assert lineage["next_cursor"] is None


async def test_says_which_requests_the_jobs_serve_and_how_many_samples_they_name(client, history):
    jobs = (await client.get(URL)).json()["jobs"]

    requests = history["requests"]
    assert jobs == [
        {
            "job_id": history["second"], "forgotten_at": json(day(2)), "requests": 2,
            "request_ids": sorted(requests[:2]), "samples": 3,
        },
        {
            "job_id": history["fourth"], "forgotten_at": json(day(6)), "requests": 1,
            "request_ids": [requests[2]], "samples": 3,
        },
        {
            "job_id": history["running"], "forgotten_at": None, "requests": 1,
            "request_ids": [requests[3]], "samples": 4,
        },
    ]  # fmt: skip


async def test_is_paged_by_versions_with_the_rest_on_the_first_page(client, history):
    first = (await client.get(URL, params={"limit": 3})).json()
    rest = (await client.get(URL, params={"limit": 3, "cursor": first["next_cursor"]})).json()

    assert [item["version"] for item in first["items"]] == [None] * 4 + [4] * 3 + [3] * 3 + [2] * 3
    assert [item["version"] for item in rest["items"]] == [1] * 3
    assert rest["next_cursor"] is None


async def test_a_new_model_holds_nothing_that_is_forgotten(client, model):
    lineage = (await client.get(URL)).json()

    assert {item["kind"] for item in lineage["items"]} == {
        "source_weights", "weights", "statistics", "reservoir",
    }  # fmt: skip
    assert all(item["tainted_by"] == [] for item in lineage["items"])
    assert lineage["jobs"] == []


async def test_an_unknown_model_is_404(client, problem):
    problem(await client.get("/v1/models/none/lineage"), 404, "not-found")


async def test_a_foreign_cursor_is_refused(client, model, problem):
    response = await client.get(URL, params={"cursor": "?"})

    problem(response, 422, "invalid-cursor")


async def test_a_version_says_when_it_is_purged(client, history):
    first = (await client.get("/v1/models/cnn/versions/1")).json()
    second = (await client.get("/v1/models/cnn/versions/2")).json()

    assert (first["purge_after"], first["purged_at"]) == (json(day(5)), json(day(5)))
    assert (second["purge_after"], second["purged_at"]) == (json(day(9)), None)
