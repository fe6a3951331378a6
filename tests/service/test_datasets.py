from typing import Any
from unittest.mock import ANY

import pytest
from sqlalchemy import func, select, update

from domain import doorbell
from domain.states import JobKind, RegistrationStatus
from domain.tables import AuditEvent, Dataset, Job
from tests import factories


@pytest.fixture
def wanted(tmp_path) -> dict[str, Any]:
    return {
        "name": "digits",
        "uri": (tmp_path / "digits.parquet").as_uri(),
        "kind": "image",
        "columns": {"sample_id": "id", "input": "image", "label": "label", "split": "split"},
    }


async def test_is_accepted_and_followed_at_its_location(client, wanted):
    response = await client.post("/v1/datasets", json=wanted)

    assert response.status_code == 202
    assert response.headers["Location"] == "/v1/datasets/digits"
    assert response.headers["Retry-After"] == "2"
    followed = await client.get(response.headers["Location"])
    assert followed.json() == response.json()
    assert followed.headers["Retry-After"] == "2"
    assert response.json() == {
        "id": ANY,
        "name": "digits",
        "uri": wanted["uri"],
        "kind": "image",
        "columns": {**wanted["columns"], "group": None},
        "splits": {"train": "train", "holdout": "holdout", "test": "test"},
        "input_shape": None,
        "classes": None,
        "classes_source": None,
        "bad_rows": "refuse",
        "leaking_groups": "report",
        "erase": {"parquet": False},
        "status": "pending",
        "report": None,
        "failure": None,
        "job_id": ANY,
        "created_at": ANY,
        "state": 1,
        "ready_at": None,
        "deleted_at": None,
        "purged_at": None,
    }


async def test_the_names_of_its_classes_are_declared_or_found(client, sessions, wanted):
    declared = {**wanted, "name": "named", "classes": ["cat", "dog"]}
    await client.post("/v1/datasets", json=wanted)
    named = (await client.post("/v1/datasets", json=declared)).json()
    assert (named["classes"], named["classes_source"]) == (["cat", "dog"], "declared")

    async with sessions.begin() as session:
        found = {"class_names": ["owl", "bat"]}
        await session.execute(update(Dataset).filter_by(name="digits").values(report=found))
    known = (await client.get("/v1/datasets/digits")).json()
    assert (known["classes"], known["classes_source"]) == (["owl", "bat"], "huggingface")


async def test_queues_a_job_rings_for_it_and_tells_the_audit_trail(client, sessions, queue, wanted):
    response = await client.post("/v1/datasets", json=wanted)

    async with sessions() as session:
        job = (await session.scalars(select(Job))).one()
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
    assert (job.kind, str(job.id)) == (JobKind.INDEX_DATASET, response.json()["job_id"])
    assert str(job.dataset_id) == response.json()["id"]
    assert [event.event for event in events] == ["dataset.registered", "job.queued"]
    queue.send_task.assert_called_once_with(doorbell.RUN, args=(str(job.id),), expires=60)


async def test_sent_twice_is_registered_once(client, sessions, wanted):
    first = await client.post("/v1/datasets", json=wanted)
    second = await client.post("/v1/datasets", json=wanted)

    assert (first.status_code, first.json()) == (second.status_code, second.json())
    async with sessions() as session:
        assert await session.scalar(select(func.count(Job.id))) == 1


async def test_a_name_stands_for_one_definition(client, wanted, problem):
    await client.post("/v1/datasets", json=wanted)

    response = await client.post("/v1/datasets", json=wanted | {"bad_rows": "skip"})

    problem(response, 409, "name-taken")


async def test_may_be_defined_anew_after_it_failed(client, sessions, wanted):
    first = await client.post("/v1/datasets", json=wanted)
    async with sessions.begin() as session:
        await session.execute(
            update(Dataset).values(status=RegistrationStatus.FAILED, failure="no such column")
        )

    second = await client.post("/v1/datasets", json=wanted | {"bad_rows": "skip"})

    assert second.status_code == 202
    assert second.json()["status"] == "pending"
    assert second.json()["failure"] is None
    assert second.json()["bad_rows"] == "skip"
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["job_id"] != first.json()["job_id"]


@pytest.mark.parametrize(
    "uri",
    ["/etc/passwd", "https://example.org/x", "digits", "file://host/digits", "{root}/../outside"],
)
async def test_a_uri_outside_the_roots_is_refused(client, sessions, wanted, tmp_path, uri, problem):
    response = await client.post("/v1/datasets", json=wanted | {"uri": uri.format(root=tmp_path)})

    problem(response, 422, "location-refused")
    async with sessions() as session:
        assert await session.scalar(select(func.count(Dataset.id))) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Digits"},
        {"name": "-digits"},
        {"name": "d" * 64},
        {"uri": "http://["},
        {"uri": "/data/\0"},
        {"columns": {"sample_id": "id"}},
        {"splits": {"train": "a", "holdout": "a"}},
        {"input_shape": []},
        {"input_shape": [0]},
        {"bad_rows": "ignore"},
        {"leaking_groups": "refuse"},
        {"unknown": 1},
    ],
    ids=str,
)
async def test_a_wrong_definition_is_refused(client, wanted, change, problem):
    response = await client.post("/v1/datasets", json=wanted | change)

    problem(response, 422, "invalid-request")


async def test_unknown_is_404(client, problem):
    problem(await client.get("/v1/datasets/nothing"), 404, "not-found")


async def test_are_listed_newest_first_page_by_page(client, store):
    rows = [factories.dataset(name=f"d{n}") for n in range(3)]
    jobs = [factories.job(dataset_id=row.id, kind=JobKind.INDEX_DATASET) for row in rows]
    await store(*rows, *jobs)

    first = (await client.get("/v1/datasets", params={"limit": 2})).json()
    second = (
        await client.get("/v1/datasets", params={"limit": 2, "cursor": first["next_cursor"]})
    ).json()

    assert [item["name"] for item in first["items"]] == ["d2", "d1"]
    assert [item["name"] for item in second["items"]] == ["d0"]
    assert second["next_cursor"] is None


async def test_that_rows_are_to_be_erased_is_a_part_of_the_definition(client, wanted):
    asked = {**wanted, "erase": {"parquet": True}}

    first = await client.post("/v1/datasets", json=asked)
    again = await client.post("/v1/datasets", json=asked)
    otherwise = await client.post("/v1/datasets", json=wanted)

    assert first.json()["erase"] == {"parquet": True}
    assert (first.status_code, again.status_code, otherwise.status_code) == (202, 202, 409)


async def test_a_dataset_of_before_there_was_an_erase_policy_may_be_sent_again(
    client, wanted, store
):
    definition = {
        "kind": "image",
        "columns": wanted["columns"],
        "splits": {"train": "train", "holdout": "holdout", "test": "test"},
        "input_shape": None,
        "bad_rows": "refuse",
    }
    old = factories.dataset(uri=wanted["uri"], definition=definition)
    await store(old, factories.job(dataset_id=old.id, kind=JobKind.INDEX_DATASET))

    response = await client.post("/v1/datasets", json=wanted)

    assert response.status_code == 202
    assert response.json()["id"] == str(old.id)


async def test_another_column_of_groups_is_another_definition(client, wanted):
    """Said to be null, it is as if it were not named; a dataset of before there was one is so."""
    columns = wanted["columns"]
    plain = await client.post("/v1/datasets", json=wanted)

    null = await client.post("/v1/datasets", json=wanted | {"columns": {**columns, "group": None}})
    other = await client.post(
        "/v1/datasets", json=wanted | {"columns": {**columns, "group": "person"}}
    )

    assert (null.status_code, null.json()["id"]) == (202, plain.json()["id"])
    assert other.status_code == 409
    grouped = {**wanted, "name": "people", "columns": {**columns, "group": "person"}}
    first = await client.post("/v1/datasets", json=grouped)
    again = await client.post("/v1/datasets", json=grouped | {"leaking_groups": "report"})
    strict = await client.post("/v1/datasets", json=grouped | {"leaking_groups": "refuse"})
    assert first.json()["columns"]["group"] == "person"
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert strict.status_code == 409


@pytest.mark.parametrize("role", ["input", "label", "split"])
async def test_whose_a_sample_is_stands_in_a_column_of_its_own(client, wanted, role, problem):
    columns = {**wanted["columns"], "group": wanted["columns"][role]}

    response = await client.post("/v1/datasets", json=wanted | {"columns": columns})

    problem(response, 422, "invalid-request")
    assert "`group` names whose sample it is" in response.text


async def test_a_dataset_of_before_there_were_kinds_says_that_it_has_none(client, store):
    old = factories.dataset()
    assert "kind" not in old.definition
    await store(old, factories.job(dataset_id=old.id, kind=JobKind.INDEX_DATASET))

    assert (await client.get("/v1/datasets/digits")).json()["kind"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": None}, "Input should be 'image', 'pixels', 'tokens' or 'features'"),
        ({"input_shape": [3, 8, 8]}, "leave `input_shape` out"),
        ({"kind": "pixels"}, "`pixels` need an `input_shape`"),
        ({"columns": {"input": {"input_ids": "ids"}}}, "only `tokens` can have inputs of several"),
        ({"kind": "tokens", "columns": {"input": {"x": None}}}, "name at least one column"),
    ],
)
async def test_the_kind_of_inputs_is_declared_and_fits(client, wanted, change, message, problem):
    columns = {**wanted["columns"], **change.pop("columns", {})}

    response = await client.post("/v1/datasets", json={**wanted, **change, "columns": columns})

    errors = problem(response, 422, "invalid-request")["errors"]
    assert message in str(errors)


async def test_a_dataset_without_a_kind_is_refused(client, wanted, problem):
    del wanted["kind"]

    errors = problem(await client.post("/v1/datasets", json=wanted), 422, "invalid-request")[
        "errors"
    ]
    assert [error["loc"] for error in errors] == [["body", "kind"]]


async def test_inputs_of_several_columns_are_named_by_the_network_s_arguments(client, wanted):
    named = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": None}
    columns = {**wanted["columns"], "input": named}

    response = await client.post(
        "/v1/datasets", json={**wanted, "kind": "tokens", "columns": columns}
    )

    assert response.status_code == 202
    assert response.json()["columns"]["input"] == named
