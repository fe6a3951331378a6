"""From the verdict `fail` to a person's decision, and exact mode, through the running stack."""

import pytest

from devstack import local
from devstack.demo import digits
from tests.end_to_end import auditor

DECIDED = {"accept": "completed", "refuse": "refused"}


@pytest.fixture
def ruined(client, dataset, files):
    """A model that every run of the method spoils."""
    architecture = {"kind": "python", "factory": "tests.broken_models:ruined_when_trained"}

    def register(name, **more):
        row = client.register_model(name, files / digits.WEIGHTS, architecture=architecture, **more)
        assert row["status"] == "ready", row
        return name

    return register


def champion(client, model):
    return client.get(f"/v1/models/{model}")["champion"]


@pytest.mark.parametrize(
    ("policy", "steps", "decision", "forgotten"),
    [({}, ["more_cycles", "stronger"], "accept", 30), ({"escalation": []}, [], "refuse", 0)],
    ids=["accept", "refuse"],
)
def test_a_fail_is_escalated_and_then_decided(
    client, ruined, train_ids, policy, steps, decision, forgotten
):
    model = ruined(f"ruined-{decision}", policy=policy)
    where = client.request(model, train_ids[:30])

    request = client.settled(where)

    assert request["status"] == "needs_review"
    assert request["targets"][0]["result"]["verdict"] == "fail"
    job = client.job_of(where)
    assert [tried["step"] for tried in job["rounds"]] == [None, *steps]
    assert {cycle["round"] for cycle in job["cycles"]} == set(range(1, 2 + len(steps)))
    assert champion(client, model)["number"] == 1
    assert client.decide(where, decision)["status"] == DECIDED[decision]
    if decision == "accept":
        assert auditor.verified(client, where) == (0, "valid")
    assert [v["status"] for v in client.versions(model)] == (
        ["champion", "superseded"] if decision == "accept" else ["superseded", "champion"]
    )
    buried = "SELECT count(*) FROM tombstones JOIN models ON models.id = model_id WHERE name = %s"
    assert client.sql(buried, model) == [{"count": forgotten}]


def test_a_retry_is_a_new_job(client, ruined, train_ids):
    model = ruined("ruined-retry", policy={"escalation": []})
    where = client.request(model, train_ids[:30])
    client.settled(where)
    first = client.job_of(where)["id"]

    assert client.decide(where, "retry")["status"] in local.OPEN

    again = client.settled(where)
    assert again["status"] == "needs_review"
    assert again["targets"][0]["job_id"] != first
    assert [each["job_id"] for each in again["decisions"]] == [first]
    assert again["targets"][0]["result"]["version"] == 3


def test_exact_by_request(client, dataset, files, train_ids):
    row = client.register_model(
        "exact",
        files / digits.WEIGHTS,
        recipe="worker.networks.recipes:train",
        policy={"escalation": []},
    )
    assert row["status"] == "ready", row
    where = client.request("exact", train_ids[:30], exact=True)

    request = client.settled(where)

    job = client.job_of(where)
    result = request["targets"][0]["result"]
    assert (job["mode"], result["mode"], job["audit"]["mode"]) == ("exact", "exact", "exact")
    assert job["config"]["recipe"] == "worker.networks.recipes:train"
    assert job["cycles"] == []
    assert job["after"]["retain_accuracy"] > 0.97
    assert job["after"]["holdout_accuracy"] > 0.9


def test_a_poor_recipe_ends_in_review(client, dataset, files, train_ids):
    recipe = "tests.broken_models:learn_nothing"
    client.register_model("poor", files / digits.WEIGHTS, recipe=recipe)

    request = client.settled(client.request("poor", train_ids[:30], exact=True))

    assert request["status"] == "needs_review"
    assert "accuracy" in request["targets"][0]["result"]["verdict_reason"]


def test_most_of_the_data_needs_a_recipe(client, model, train_ids):
    before = champion(client, model)

    request = client.settled(client.request(model, train_ids[-600:]))

    assert request["status"] == "failed"
    failure = request["targets"][0]["failure"]
    assert failure["kind"] == "input"
    assert "retraining is cheaper" in failure["reason"]
    assert "`recipe`" in failure["reason"]
    assert champion(client, model) == before


def test_drift_is_shown_and_adds_up(client, dataset, files, train_ids):
    drift = {"max_forgotten_share": 0.3, "max_accuracy_drop": 1.0}  # what is lost is random
    policy = {"escalation": [], "drift": drift}
    client.register_model("drifting", files / digits.WEIGHTS, policy=policy)
    client.forgotten(client.request("drifting", train_ids[:20]))
    client.forgotten(client.request("drifting", train_ids[20:50]))

    shown = client.get("/v1/models/drifting")["drift"]

    assert shown["since_version"] == 1
    assert shown["forgotten_share"] == 0.05
    assert shown["limits"]["max_forgotten_share"] == 0.3
    assert shown["exceeded"] is False
