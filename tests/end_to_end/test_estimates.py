"""From POST to the answer: estimates of deletion requests, with reference models on the way."""

from uuid import uuid4

from devstack.demo import digits
from tests.end_to_end.conftest import ids_of


def ask(client, model, named):
    body = {"model": model, "sample_ids": named}
    return client.post("/v1/deletion-requests/estimate", body)


def answered(client, where):
    return client.wait(where, lambda read: read["status"] in ("completed", "failed"))


def test_an_estimate_changes_nothing_and_keeps_no_ids(client, model, unnamed):
    before = client.versions(model)
    read = answered(client, ask(client, model, unnamed(40)))

    assert read["status"] == "completed"
    (target,) = read["targets"]
    result = target["result"]
    assert result["version"] == client.get(f"/v1/models/{model}")["champion"]["number"]
    assert (result["samples"], result["measured"]) == (40, 40)
    assert result["tests"]
    assert result["predicted_seconds"] > 0
    assert client.sql("SELECT * FROM estimate_samples WHERE job_id = %s", target["job_id"]) == []
    assert client.versions(model) == before


def test_an_estimate_may_be_asked_while_a_job_is_open(client, model, unnamed):
    request = client.request(model, unnamed(20))

    estimate = answered(client, ask(client, model, unnamed(20)))

    assert estimate["status"] == "completed"
    assert client.settled(request)["targets"][0]["failure"] is None


def test_reference_models_are_trained_after_registration(client, dataset, files, train_ids):
    name = f"digits-{uuid4().hex[:8]}"
    quick = "tests.broken_models:learn_nothing"
    policy = {"reference_models": 2}
    row = client.register_model(name, files / digits.WEIGHTS, recipe=quick, policy=policy)
    assert row["status"] == "ready"
    assert row["references"]["models"] == 2

    done = client.wait(f"/v1/models/{name}", lambda read: read["references"]["status"] != "pending")

    assert done["references"]["status"] == "ready"
    assert done["references"]["seconds"] > 0
    holdout = ids_of(client, dataset, "split = 'holdout'")
    for table, count in (
        ("out_of_sample_predictions", len(train_ids)),
        ("membership_statistics", len(train_ids) + len(holdout)),
    ):
        query = f"SELECT count(*) FROM {table} WHERE model_id = %s"
        assert client.sql(query, row["id"]) == [{"count": count}]
    estimate = answered(client, ask(client, name, train_ids[:40]))
    result = estimate["targets"][0]["result"]
    assert result["memorisation"]["measure"] == "confidence_gap"
    assert "membership_per_sample" in {test["name"] for test in result["tests"]}
