import json
from unittest.mock import ANY

import pytest
from sqlalchemy import func, select, update

from domain import doorbell
from domain.states import JobKind, JobStatus, RegistrationStatus, VersionStatus
from domain.tables import AuditEvent, Job, Model
from tests import certified, factories


async def test_is_accepted_and_followed_at_its_location(client, wanted):
    response = await client.post("/v1/models", json=wanted)

    assert response.status_code == 202
    assert response.headers["Location"] == "/v1/models/cnn"
    assert response.headers["Retry-After"] == "2"
    followed = await client.get(response.headers["Location"])
    assert followed.json() == response.json()
    assert followed.headers["Retry-After"] == "2"
    assert response.json() == {
        **wanted,
        "id": ANY,
        "preprocessing": {
            "resize": None,
            "interpolation": "bilinear",
            "crop": None,
            "mode": "RGB",
            "orientation": None,
            "alpha": None,
            "frames": None,
            "cmyk": None,
            "color_profile": None,
            "sixteen_bit": None,
            "scale": None,
            "mean": [0.0],
            "std": [1.0],
        },
        "preprocessing_source": None,
        "classes": None,
        "classes_source": None,
        "map_classes": False,
        "recipe": None,
        "backbone": None,
        "policy": {
            "reservoir_samples": 10_000,
            "evaluation_samples": 10000,
            "max_test_accuracy_drop": 0.03,
            "max_class_accuracy_drop": 0.1,
            "max_nll_increase": 0.5,
            "max_ece_increase": 0.1,
            "escalation": ["more_cycles", "stronger", "retrain"],
            "mode": "auto",
            "max_forget_share": 0.5,
            "drift": {"max_forgotten_share": 0.3, "max_accuracy_drop": 0.05},
            "batch": {"max_samples": 10_000},
            "grace": "P3D",
            "reference_models": 0,
            "group": "column",
            "fine_tuned_steps": 0,
            "pooled_audit_days": 90,
        },
        "expected_accuracy": None,
        "accept_accuracy": False,
        "accuracy": None,
        "suppressed_samples": 0,
        "warning": None,
        "status": "pending",
        "champion": None,
        "drift": None,
        "references": None,
        "retraining": [],
        "near_duplicates": None,
        "failure": None,
        "job_id": ANY,
        "created_at": ANY,
        "dataset_state": 1,
        "ready_at": None,
        "deleted_at": None,
        "purged_at": None,
    }


async def test_queues_a_job_rings_for_it_and_tells_the_audit_trail(client, sessions, queue, wanted):
    response = await client.post("/v1/models", json=wanted)

    async with sessions() as session:
        job = (await session.scalars(select(Job))).one()
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
    assert (job.kind, str(job.id)) == (JobKind.REGISTER_MODEL, response.json()["job_id"])
    assert (str(job.model_id), job.dataset_id) == (response.json()["id"], None)
    assert [event.event for event in events] == ["model.registered", "job.queued"]
    queue.send_task.assert_called_once_with(doorbell.RUN, args=(str(job.id),), expires=60)


async def test_sent_twice_is_registered_once(client, sessions, wanted):
    first = await client.post("/v1/models", json=wanted)
    second = await client.post("/v1/models", json=wanted)

    assert (first.status_code, first.json()) == (second.status_code, second.json())
    async with sessions() as session:
        assert await session.scalar(select(func.count(Job.id))) == 1


async def test_what_an_earlier_release_registered_may_be_sent_again(
    client, sessions, wanted, problem
):
    """It had another default for the window, and knew less of a policy."""
    first = await client.post("/v1/models", json=wanted)
    async with sessions.begin() as session:
        [model] = await session.scalars(select(Model))
        batch = {**model.policy["batch"], "window": "PT0S"}
        before = {**model.policy, "batch": batch}
        del before["pooled_audit_days"]
        model.policy = before

    again = await client.post("/v1/models", json=wanted)

    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    for window in (None, "PT1H"):
        other = {"policy": {"batch": {"window": window}}}
        problem(await client.post("/v1/models", json=wanted | other), 409, "name-taken")


async def test_a_name_stands_for_one_definition(client, wanted, problem):
    await client.post("/v1/models", json=wanted)

    problem(await client.post("/v1/models", json=wanted | {"head": "fc"}), 409, "name-taken")


EXPECTED = {"train": 0.998, "holdout": 0.91}


async def test_what_the_team_measured_is_part_of_the_definition(client, sessions, wanted, problem):
    stated = wanted | {"expected_accuracy": EXPECTED, "accept_accuracy": True}

    first = await client.post("/v1/models", json=stated)

    assert first.json()["expected_accuracy"] == EXPECTED | {"tolerance": 0.01}
    assert (await client.post("/v1/models", json=stated)).json() == first.json()
    problem(await client.post("/v1/models", json=wanted), 409, "name-taken")
    async with sessions() as session:
        registered = select(AuditEvent).filter_by(event="model.registered")
        event = (await session.scalars(registered)).one()
    assert event.data["accept_accuracy"] is True


@pytest.mark.parametrize(
    "expected",
    [{}, {"tolerance": 0.01}, {"train": 1.2}, {"holdout": -0.1}, {"train": 0.9, "tolerance": 0.5},
     {"train": 0.9, "test": 0.9}, {"train": "NaN"}, 0.9],
)  # fmt: skip
async def test_an_accuracy_that_says_nothing_is_refused(client, wanted, problem, expected):
    response = await client.post("/v1/models", json=wanted | {"expected_accuracy": expected})

    problem(response, 422, "invalid-request")


async def test_what_registration_measured_is_told_with_what_was_accepted(client, store):
    dataset = factories.dataset()
    model = factories.model(dataset, accept_accuracy=True)
    job = factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
    figures = {"test_accuracy": 0.1, "accuracy_check": certified.ACCEPTED}
    await store(dataset, model, job, factories.version(model, job, figures=figures))

    accuracy = (await client.get("/v1/models/cnn")).json()["accuracy"]

    assert accuracy["objections"] == ["no_better_than_chance"]
    assert "no better than chance (accuracy 0.510 on 100 training samples" in accuracy["remark"]


async def test_may_be_defined_anew_after_it_failed(client, sessions, wanted):
    first = (await client.post("/v1/models", json=wanted)).json()
    async with sessions.begin() as session:
        await session.execute(
            update(Model).values(status=RegistrationStatus.FAILED, failure="no such module")
        )
        claimed = {"status": JobStatus.RUNNING, "lease_until": func.now()}
        failed = {"status": JobStatus.FAILED, "lease_until": None, "failure": {"kind": "input"}}
        for values in (claimed, failed):
            await session.execute(update(Job).values(values))

    second = (await client.post("/v1/models", json=wanted | {"head": "fc"})).json()

    assert (second["id"], second["head"], second["status"]) == (first["id"], "fc", "pending")
    assert second["failure"] is None
    assert second["job_id"] != first["job_id"]


async def test_all_factories_of_a_module_may_be_allowed(client, wanted):
    body = wanted | {"architecture": {"kind": "python", "factory": "zoo:anything"}}

    assert (await client.post("/v1/models", json=body)).status_code == 202


@pytest.mark.parametrize("factory", ["nets.cnn:other", "os:system", "zoo.sub:build", "nets:cnn"])
async def test_a_factory_off_the_list_is_refused(client, wanted, factory, problem):
    body = wanted | {"architecture": {"kind": "python", "factory": factory}}

    problem(await client.post("/v1/models", json=body), 422, "factory-refused")


async def test_an_unknown_dataset_is_404(client, wanted, problem):
    response = await client.post("/v1/models", json=wanted | {"dataset": "nothing"})

    problem(response, 404, "not-found")


@pytest.mark.parametrize("status", [RegistrationStatus.PENDING, RegistrationStatus.FAILED])
async def test_its_dataset_must_be_ready(client, store, wanted, status, problem):
    await store(factories.dataset(name="other", status=status))

    problem(await client.post("/v1/models", json=wanted | {"dataset": "other"}), 409, "not-ready")


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"kind": "python", "factory": "nets.cnn.build"}},
        {"architecture": {"kind": "python", "factory": "zoo:b", "arguments": {"a": ["\0"]}}},
        {"architecture": {"kind": "python", "factory": "zoo:b", "arguments": {"\0": 1}}},
        {"architecture": {"kind": "onnx"}},
        {"preprocessing": {"mean": [0.5, 0.5], "std": [1.0]}},
        {"preprocessing": {"std": [0.0]}},
        {"preprocessing": {"scale": 0}},
        {"preprocessing": {"resize": [32]}},
        {"policy": {"reservoir_samples": 0}},
        {"policy": {"max_forget_share": 1.5}},
        {"policy": {"escalation": ["pray"]}},
        {"policy": {"drift": {"max_forgotten_share": -1}}},
        {"policy": {"reference_models": 3}},
        {"policy": {"reference_models": 66}},
        {"policy": {"group": "persons"}},
        {"policy": {"mode": "cheapest"}},
        {"recipe": "os"},
        {"head": ""},
        {"unknown": 1},
    ],
    ids=str,
)
async def test_a_wrong_definition_is_refused(client, wanted, change, problem):
    problem(await client.post("/v1/models", json=wanted | change), 422, "invalid-request")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", '"\\ud800"'])
async def test_arguments_that_are_not_json_are_refused(client, wanted, value, problem):
    body = json.dumps(wanted).replace('"width": 8', f'"width": {value}')

    response = await client.post(
        "/v1/models", content=body, headers={"Content-Type": "application/json"}
    )

    problem(response, 422, "invalid-request")


async def test_shows_its_champion_and_its_versions(client, store, model, problem):
    [first] = (await client.get("/v1/models/cnn/versions")).json()["items"]
    champion = (await client.get("/v1/models/cnn")).json()["champion"]
    assert first == champion
    assert first == (await client.get("/v1/models/cnn/versions/1")).json()
    assert first == {
        "number": 1,
        "status": "champion",
        "mode": "exact",
        "parent": None,
        "weights_sha256": "a" * 64,
        "job_id": ANY,
        "declared": None,
        "figures": {"test_accuracy": 0.9},
        "created_at": ANY,
        "superseded_at": None,
        "purge_after": None,
        "purged_at": None,
    }
    problem(await client.get("/v1/models/cnn/versions/2"), 404, "not-found")
    problem(await client.get("/v1/models/cnn/versions/0"), 422, "invalid-request")
    problem(await client.get("/v1/models/none/versions"), 404, "not-found")


async def test_versions_are_listed_newest_first_with_their_parents(client, store):
    dataset = factories.dataset()
    model = factories.model(dataset)
    jobs = [
        factories.job(model_id=model.id, finished=True, kind=JobKind.REGISTER_MODEL)
        for _ in range(2)
    ]
    old = factories.version(
        model, jobs[0], status=VersionStatus.SUPERSEDED, superseded_at=factories.NOW
    )
    await store(dataset, model, *jobs, old)
    await store(factories.version(model, jobs[1], number=2, parent_id=old.id))

    page = (await client.get("/v1/models/cnn/versions", params={"limit": 1})).json()
    rest = await client.get(
        "/v1/models/cnn/versions", params={"limit": 1, "cursor": page["next_cursor"]}
    )

    assert [(item["number"], item["parent"]) for item in page["items"]] == [(2, 1)]
    assert [(item["number"], item["status"]) for item in rest.json()["items"]] == [
        (1, "superseded")
    ]
    assert rest.json()["next_cursor"] is None


async def test_are_listed(client, model):
    page = (await client.get("/v1/models")).json()

    assert [item["name"] for item in page["items"]] == ["cnn"]
    assert page["next_cursor"] is None
    assert "Retry-After" not in (await client.get("/v1/models/cnn")).headers


async def test_a_recipe_is_stored_if_it_is_allowed(client, wanted, settings, app, problem):
    refusal = problem(
        await client.post("/v1/models", json=wanted | {"recipe": "my:train"}), 422, "recipe-refused"
    )
    assert "LETHE_RECIPES" in refusal["detail"]
    default = {"recipe": "worker.networks.recipes:train"}

    response = await client.post("/v1/models", json=wanted | default)

    assert response.status_code == 202
    assert response.json()["recipe"] == "worker.networks.recipes:train"
    problem(await client.post("/v1/models", json=wanted), 409, "name-taken")


async def test_shows_how_far_it_has_drifted(client, store, model):
    fresh = (await client.get("/v1/models/cnn")).json()["drift"]
    assert (fresh["since_version"], fresh["forgotten_share"], fresh["exceeded"]) == (1, 0.0, False)
    dataset = factories.dataset(id=model.dataset_id)
    other = factories.model(dataset, name="other", policy={"drift": {"max_forgotten_share": 0.2}})
    job = factories.job(model_id=other.id, kind=JobKind.REGISTER_MODEL, finished=True)
    known = {"since_version": 2, "trained_on": 200, "forgotten": 50, "accuracy_change": -0.01}
    await store(other, job, factories.version(other, job, number=5, figures={"drift": known}))

    body = (await client.get("/v1/models/other")).json()

    assert body["drift"] == {
        "since_version": 2,
        "forgotten_share": 0.25,
        "accuracy_change": -0.01,
        "limits": {"max_forgotten_share": 0.2, "max_accuracy_drop": 0.05},
        "exceeded": True,
    }


@pytest.mark.parametrize(
    ("changes", "status", "seconds", "failure"),
    [
        (None, "pending", None, None),
        ({}, "pending", None, None),
        ({"finished": True}, "ready", 30.0, None),
        (
            {"status": "failed", "failure": {"kind": "input", "reason": "The recipe raised."}},
            "failed",
            None,
            "The recipe raised.",
        ),
    ],
)
async def test_shows_how_far_the_reference_models_are(
    client, store, changes, status, seconds, failure
):
    dataset = factories.dataset()
    model = factories.model(dataset, policy={"reference_models": 4})
    register = factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
    await store(dataset, model, register)
    if changes is not None:
        job = {"model_id": model.id, "kind": JobKind.TRAIN_REFERENCES} | changes
        await store(factories.job(**job))

    read = (await client.get("/v1/models/cnn")).json()["references"]

    assert (read["models"], read["status"]) == (4, status)
    assert (read["seconds"], read["failure"]) == (seconds, failure)
    assert (read["completed_at"] is not None) == (status == "ready")
