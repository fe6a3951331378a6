"""How deletion requests are read: outcomes, lists, filters."""

from datetime import timedelta
from unittest.mock import ANY
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from domain.states import (
    JobKind,
    JobStatus,
    Mode,
    RequestStatus,
    RowsStatus,
    Verdict,
    VersionStatus,
)
from domain.tables import Dataset, DeletionRequest, DeletionTarget, RequestSample
from service.jobs.accuracy import AccuracyChange
from tests import certified, factories
from tests.service.submitting import URL, submit


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (Verdict.PASS, "within the measured range of models never trained on these samples"),
        (Verdict.FAIL, "can still tell"),
        (Verdict.NO_POWER, "no evidence"),
    ],
)
async def test_shows_what_came_of_it(client, sessions, store, model, verdict, word):
    accepted = (await submit(client)).json()
    job = factories.job(
        model_id=model.id, finished=True, verdict=verdict, mode_reason="The model is changed."
    )
    await store(job, factories.tried(job, verdict=verdict, reason="because"))
    async with sessions.begin() as session:
        await session.execute(update(DeletionRequest).values(status=RequestStatus.COMPLETED))
        await session.execute(
            update(DeletionTarget).values(status=RequestStatus.COMPLETED, job_id=job.id)
        )
    retired = {"status": VersionStatus.SUPERSEDED, "superseded_at": factories.NOW}
    await store(
        factories.version(
            model, job, number=2, weights_sha256="d" * 64, mode=Mode.APPROXIMATE, **retired
        ),
        factories.evaluation(job, "before", da_gap=0.02, figures=certified.FIGURES["before"]),
        factories.evaluation(job, "after", figures=certified.FIGURES["after"]),
    )

    [target] = (await client.get(f"{URL}/{accepted['id']}")).json()["targets"]

    assert target["job_id"] == str(job.id)
    assert word in target["result"]["meaning"]
    assert target["result"] == {
        "version": 2,
        "weights_sha256": "d" * 64,
        "mode": "approximate",
        "mode_reason": "The model is changed.",
        "verdict": verdict,
        "verdict_reason": "because",
        "meaning": ANY,
        "before": factories.SCORES | {"da_gap": 0.02},
        "after": factories.SCORES,
        "accuracy": {
            "measured_on": "test",
            "samples": 100,
            "before": 0.9,
            "after": 0.54,
            "classes": [
                {"label": 0, "samples": 60, "before": 0.9, "after": 0.9},
                {"label": 1, "samples": 40, "before": 0.9, "after": 0.0},
            ],
            "lost_classes": [1],
            "remarks": ANY,
        },
    }
    assert "went from 0.900 to 0.000" in target["result"]["accuracy"]["remarks"][1]


def test_of_many_classes_a_request_shows_those_that_lost_most():
    def figures(right):
        classes = {"samples": [10] * 300, "right": right, "measured_on": "test"}
        return {"every_class": classes, "lost_classes": [250]}

    before, after = [9] * 300, [9] * 200 + [8] * 100
    before[250] = after[250] = 0  # it was not known before
    rows = [
        factories.evaluation(factories.job(), moment, figures=figures(right))
        for moment, right in (("before", before), ("after", after))
    ]

    shown = AccuracyChange.of(*rows, most=100)

    assert [each.label for each in shown.classes] == list(range(200, 300))
    assert len(AccuracyChange.of(*rows).classes) == 300


@pytest.mark.parametrize("status", RowsStatus)
async def test_shows_what_became_of_the_rows_and_what_to_do(client, sessions, store, model, status):
    accepted = (await submit(client)).json()
    open_one = (await client.get(f"{URL}/{accepted['id']}")).json()
    failure = {"kind": "input", "reason": "The worker may not write there."}
    job = factories.job(
        kind=JobKind.ERASE_ROWS, dataset_id=model.dataset_id, status=JobStatus.FAILED,
        failure=failure,
    )  # fmt: skip
    await store(job)
    failed = status is RowsStatus.FAILED
    async with sessions.begin() as session:
        values = {"rows_status": status, "rows_left": 2, "rows_at": factories.NOW}
        await session.execute(update(DeletionRequest).values(rows_job_id=job.id, **values))

    rows = (await client.get(f"{URL}/{accepted['id']}")).json()["rows"]
    [listed] = (await client.get(URL)).json()["items"]

    assert accepted["rows"] is open_one["rows"] is None
    assert listed["rows"] == rows
    assert (rows["status"], rows["left"], rows["job_id"]) == (status, 2, str(job.id))
    assert rows["failure"] == (failure if failed else None)
    assert ("still in the dataset's files" in rows["meaning"]) == (status is not RowsStatus.GONE)
    assert (f"POST /v1/jobs/{job.id}/retry" in rows["meaning"]) == failed


async def test_where_nothing_is_left_to_forget_the_rows_are_waited_for(
    client, sessions, store, model
):
    job = factories.job(model_id=model.id, finished=True)
    await store(job, *factories.tombstones(model, job, "t1"))
    async with sessions.begin() as session:
        definition = {**factories.DEFINITION, "erase": {"parquet": True}}
        await session.execute(update(Dataset).values(definition=definition))

    accepted = (await submit(client, sample_ids=["t1"])).json()

    read = (await client.get(f"{URL}/{accepted['id']}")).json()
    assert (read["status"], read["rows"]["status"]) == ("completed", "waiting")
    async with sessions.begin() as session:
        assert (await session.scalars(select(RequestSample.sample_id))).all() == ["t1"]


async def test_shows_why_it_failed(client, sessions, store, model):
    accepted = (await submit(client)).json()
    failure = {"kind": "bug", "reason": "it broke"}
    job = factories.job(model_id=model.id, status=JobStatus.FAILED, failure=failure)
    await store(job)
    async with sessions.begin() as session:
        for status in (RequestStatus.SCHEDULED, RequestStatus.RUNNING, RequestStatus.FAILED):
            await session.execute(update(DeletionTarget).values(status=status, job_id=job.id))

    [target] = (await client.get(f"{URL}/{accepted['id']}")).json()["targets"]

    assert (target["status"], target["failure"], target["result"]) == ("failed", failure, None)


async def test_is_not_sent_again_while_nothing_changed(client, sessions, model):
    accepted = await submit(client)
    first = await client.get(accepted.headers["Location"])

    known = {"If-None-Match": f'"other", W/{first.headers["ETag"]}'}
    second = await client.get(accepted.headers["Location"], headers=known)
    async with sessions.begin() as session:
        await session.execute(update(DeletionRequest).values(status=RequestStatus.SCHEDULED))
    third = await client.get(accepted.headers["Location"], headers=known)

    assert (second.status_code, second.content) == (304, b"")
    assert second.headers["Retry-After"] == "60"
    assert second.headers["ETag"] == first.headers["ETag"]
    assert (third.status_code, third.json()["status"]) == (200, "scheduled")


async def test_unknown_is_404_and_nonsense_422(client, problem):
    problem(await client.get(f"{URL}/{uuid4()}"), 404, "not-found")
    problem(await client.get(f"{URL}/nonsense"), 422, "invalid-request")


async def test_are_listed_newest_first_page_by_page(client, model):
    ids = [(await submit(client, sample_ids=[f"t{n}"])).json()["id"] for n in range(3)]

    first = (await client.get(URL, params={"limit": 2})).json()
    second = (await client.get(URL, params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [item["id"] for item in first["items"]] == [ids[2], ids[1]]
    assert [item["id"] for item in second["items"]] == [ids[0]]
    assert second["next_cursor"] is None


async def test_what_is_due_first_is_listed_first_when_asked_for(client, store, model):
    dataset = factories.dataset(id=model.dataset_id)
    days = (3, 1, 2, 1)
    asked = [factories.request(dataset, due_at=factories.NOW + timedelta(days=day)) for day in days]
    await store(*asked, *(factories.target(each, model) for each in asked))
    params = {"limit": 2, "order": "due"}

    first = (await client.get(URL, params=params)).json()
    second = (await client.get(URL, params=params | {"cursor": first["next_cursor"]})).json()

    found = [item["id"] for item in (*first["items"], *second["items"])]
    assert found == [str(asked[place].id) for place in (1, 3, 2, 0)]
    assert second["next_cursor"] is None


async def test_a_cursor_of_another_order_is_refused(client, model, problem):
    for n in range(2):
        await submit(client, sample_ids=[f"t{n}"])
    page = (await client.get(URL, params={"limit": 1})).json()
    params = {"order": "due", "cursor": page["next_cursor"]}

    problem(await client.get(URL, params=params), 422, "invalid-cursor")


async def test_are_filtered_by_status_and_model(client, store, model):
    job = factories.job(model_id=model.id, finished=True)
    await store(job, *factories.tombstones(model, job, "t0"))
    await submit(client, sample_ids=["t1"])
    await submit(client, sample_ids=["t0"])

    async def samples(**params: str) -> list[str]:
        page = (await client.get(URL, params=params)).json()
        return [item["status"] for item in page["items"]]

    assert await samples(status="completed") == ["completed"]
    assert await samples(status="pending", model="cnn") == ["pending"]
    assert await samples(model="other") == []


@pytest.mark.parametrize("cursor", ["x", "é", "MTIz", "!!!!", "A" * 36, "%00"])
@pytest.mark.parametrize("path", [URL, "/v1/jobs", "/v1/models", "/v1/datasets"])
async def test_an_invented_cursor_is_refused(client, path, cursor, problem):
    problem(await client.get(path, params={"cursor": cursor}), 422, "invalid-cursor")


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "201"}, {"status": "x"}])
async def test_a_wrong_filter_is_refused(client, params, problem):
    problem(await client.get(URL, params=params), 422, "invalid-request")
