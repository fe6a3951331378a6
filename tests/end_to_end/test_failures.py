"""Jobs that go wrong end `failed` with a readable reason, and the champion stays."""

from pathlib import Path

import pytest

from devstack.demo import digits
from tests.end_to_end.conftest import DONE


def champion(client, model):
    return client.get(f"/v1/models/{model}")["champion"]


def failure_of(client, where):
    request = client.settled(where)
    assert request["status"] == "failed"
    job = client.job_of(where)
    assert job["status"] == "failed"
    return job["failure"]


def test_damaged_weights_fail_the_job_and_the_champion_stays(client, model, unnamed):
    before = champion(client, model)
    (path,) = Path(client.home.environment["LETHE_STORE"]).rglob(before["weights_sha256"])
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    try:
        failure = failure_of(client, client.request(model, unnamed(5)))
    finally:
        path.write_bytes(sound)

    assert failure["kind"] == "input"
    assert before["weights_sha256"][:12] in failure["reason"]
    assert champion(client, model) == before


@pytest.mark.parametrize(
    ("factory", "kind", "word"),
    [("not_finite_when_trained", "method", "non-finite"), ("failing_when_trained", "bug", "Zero")],
)
def test_a_model_that_breaks_in_training_fails_the_job(
    client, dataset, files, train_ids, factory, kind, word
):
    architecture = {"kind": "python", "factory": f"tests.broken_models:{factory}"}
    row = client.register_model(factory, files / digits.WEIGHTS, architecture=architecture)
    assert row["status"] == "ready", row

    failure = failure_of(client, client.request(factory, train_ids[:5]))

    assert failure["kind"] == kind
    assert word in failure["reason"]
    assert champion(client, factory)["number"] == 1


def test_a_dataset_that_is_gone_fails_the_job_with_a_reason_and_the_next_can_succeed(
    client, model, files, unnamed
):
    named, before = unnamed(5), champion(client, model)
    path = files / digits.DATASET
    aside = path.rename(path.with_suffix(".aside"))
    try:
        failure = failure_of(client, client.request(model, named))
    finally:
        aside.rename(path)

    assert failure["kind"] == "input"
    assert digits.DATASET in failure["reason"]
    assert champion(client, model) == before
    assert client.settled(client.request(model, named))["status"] in DONE
