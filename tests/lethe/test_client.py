"""The clients against the real API on a real database."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from domain.states import JobKind, JobStatus, RegistrationStatus, RequestStatus
from lethe import AsyncLethe, Lethe, errors
from lethe.routes.datasets import Datasets
from lethe.schemas.common import Verdict
from lethe.schemas.datasets import Columns
from lethe.schemas.models import Policy, PythonArchitecture
from lethe.suppression import pieces
from tests import factories
from tests.conftest import KEY
from tests.lethe.conftest import QUICKLY, Ready, Service


def test_a_request_is_submitted_read_cancelled_and_listed(lethe: Lethe, ready: Ready):
    dataset, model = ready.names
    received = datetime(2026, 1, 2, tzinfo=UTC)

    made = lethe.forget(
        ["t1", "t2", "t2"],
        model=model,
        subject_ref="ticket 1",
        reason="Article 17",
        received_at=received,
    )
    read = lethe.read_request(made.id)
    cancelled = lethe.cancel_request(str(made.id))

    assert (made.status, made.samples, made.duplicates) == ("pending", 2, 1)
    assert (made.dataset, made.targets[0].model) == (dataset, model)
    assert made.received_at == received
    assert read.model_dump() == made.model_dump()
    assert cancelled.status is cancelled.status.CANCELLED
    assert [request.id for request in lethe.list_requests(model=model)] == [made.id]
    assert list(lethe.list_requests(model=model, status="completed")) == []


def test_the_same_key_is_the_same_request(lethe: Lethe, ready: Ready):
    first = lethe.forget(["t1"], model=ready.names[1])
    again = lethe.forget(["t1"], model=ready.names[1], idempotency_key=first.idempotency_key)

    assert first.idempotency_key
    assert again.id == first.id
    assert (first.was_submitted_before, again.was_submitted_before) == (False, True)


def test_problems_are_exceptions(lethe: Lethe, service: Service, ready: Ready):
    model = ready.names[1]
    with pytest.raises(errors.NotFound) as missing:
        lethe.read_model("none")
    with pytest.raises(errors.UnknownSamples) as unknown:
        lethe.forget(["t1", "who"], model=model)
    with pytest.raises(errors.Invalid) as invalid:
        lethe.register_dataset("No Name", "file:///x", kind="image", columns={"sample_id": "id"})
    with pytest.raises(errors.NotYet):
        lethe.read_certificate(lethe.forget(["t1"], model=model).id)
    with pytest.raises(errors.Conflict):
        lethe.decide_request(lethe.forget(["t2"], model=model).id, "accept", "fine")
    with Lethe(service.url, "wrong-key-wrong-key") as stranger, pytest.raises(errors.Unauthorized):
        stranger.read_model(model)

    assert missing.value.type == "urn:lethe:problem:not-found"
    assert missing.value.status == 404
    assert missing.value.title in str(missing.value)
    assert missing.value.detail in str(missing.value)
    assert (unknown.value.unknown_count, unknown.value.unknown_ids) == (1, ["who"])
    assert unknown.value.idempotency_key
    assert {"name", "columns"} <= {error["loc"][1] for error in invalid.value.errors}


def test_lists_follow_their_pages(lethe: Lethe, service: Service, ready: Ready, monkeypatch):
    monkeypatch.setattr("lethe.routes.building.PAGE_SIZE", 2)
    made = [lethe.forget([f"t{n}"], model=ready.names[1]).id for n in range(5)]

    assert [request.id for request in lethe.list_requests(model=ready.names[1])] == made[::-1]


def test_the_whole_log_is_read_line_by_line(lethe: Lethe, ready: Ready, monkeypatch):
    monkeypatch.setattr("lethe.routes.audit.ENTRIES", 2)
    made = lethe.forget(["t1"], model=ready.names[1])
    events = list(lethe.list_audit_events(subject_id=made.id))
    lines = list(lethe.list_entries())

    assert [event.event for event in events] == ["request.received"]
    assert str(made.id) in lines[events[0].position]
    assert list(lethe.list_entries(start=len(lines))) == []
    with pytest.raises(errors.NotYet):
        lethe.prove_inclusion(events[0].position)


def test_a_dataset_and_a_model_are_registered_with_what_was_set(lethe: Lethe, service: Service):
    name = f"new-{uuid4().hex[:8]}"
    place = service.data / f"{name}.parquet"
    columns = Columns(sample_id="id", input="image", label="label", split="split")
    ready = factories.dataset(name=f"ready-{name}")
    service.put(ready, factories.job(dataset_id=ready.id, kind=JobKind.INDEX_DATASET))

    made = lethe.register_dataset(
        name, place.as_uri(), kind="pixels", columns=columns, input_shape=[3]
    )
    model = lethe.register_model(
        name,
        dataset=ready.name,
        weights=(service.data / "cnn.safetensors").as_uri(),
        architecture=PythonArchitecture(factory="nets.cnn:build"),
        head="head",
        preprocessing={"mode": "L"},
        policy=Policy(escalation=[], reference_models=2),
    )

    assert (made.status, made.columns, made.input_shape) == ("pending", columns, [3])
    assert made.kind == "pixels"
    assert lethe.read_dataset(name) == made
    assert name in [dataset.name for dataset in lethe.list_datasets()]
    assert (model.status, model.preprocessing.mode) == ("pending", "L")
    assert (model.policy.escalation, model.policy.reference_models) == ([], 2)
    assert model.policy.batch.max_samples == 10_000
    assert name in [model.name for model in lethe.list_models()]


def test_versions_lineage_jobs_and_figures_are_read(lethe: Lethe, service: Service, ready: Ready):
    model = ready.names[1]
    job = factories.job(model_id=ready.model.id, finished=True)
    tried = factories.tried(job)
    service.put(job, tried, factories.audit_test(tried, "after"))
    service.put(factories.evaluation(job, "before"), factories.cycle(job, 1))

    read = lethe.read_job(job.id)

    assert [version.number for version in lethe.list_versions(model)] == [1]
    assert lethe.read_version(model, 1) == lethe.read_model(model).champion
    kinds = {item.kind for page in lethe.read_lineage(model) for item in page.items}
    assert kinds == {"source_weights", "weights", "statistics", "reservoir"}
    assert (read.kind, read.rounds[0].verdict) == ("unlearn", Verdict.PASS)
    assert lethe.read_alignment(job.id).cycles[0].cycle == 1
    assert str(job.id) in [str(job.id) for job in lethe.list_jobs(model=model, kind="unlearn")]
    assert lethe.read_figures().requests
    assert "lethe_" in lethe.read_metrics()
    assert (lethe.live().status, lethe.ready().broker) == ("alive", "reachable")
    with pytest.raises(errors.Conflict):
        lethe.retry_job(job.id)


def test_a_webhook_is_registered_changed_and_deleted(lethe: Lethe):
    made = lethe.register_webhook(
        f"https://8.8.8.8/{uuid4()}", events=["completed"], description="ours"
    )
    told = lethe.change_webhook(made.id, events=None)
    still = lethe.change_webhook(made.id, status="disabled")
    renamed = lethe.change_webhook(made.id, description=None, status="enabled")
    rotated = lethe.rotate_webhook_secret(made.id)
    sent = lethe.test_webhook(made.id)

    assert made.secret.startswith("whsec_")
    assert rotated.secret != made.secret
    assert (made.events, told.events, told.description) == (["completed"], None, "ours")
    assert (still.status, still.description) == ("disabled", "ours")
    assert (renamed.status, renamed.description) == ("enabled", None)
    assert [delivery.id for delivery in lethe.list_deliveries(made.id)] == [sent.id]
    with pytest.raises(errors.Conflict):
        lethe.retry_delivery(made.id, sent.id)
    assert made.id in [webhook.id for webhook in lethe.list_webhooks()]
    assert lethe.delete_webhook(made.id) is None
    with pytest.raises(errors.NotFound):
        lethe.read_webhook(made.id)


def test_naming_is_proven_and_a_request_is_shredded(lethe: Lethe, ready: Ready):
    made = lethe.forget(["t1", "t2"], model=ready.names[1])
    proof = lethe.prove_naming(made.id, "t1")
    with pytest.raises(errors.NotFound):
        lethe.prove_naming(made.id, "t3")
    lethe.cancel_request(made.id)

    assert proof.commitment == made.commitment
    assert lethe.shred_request(made.id).shredded_at is not None
    with pytest.raises(errors.Gone):
        lethe.prove_naming(made.id, "t1")


def test_an_estimate_and_a_check_are_asked_for(lethe: Lethe, service: Service, ready: Ready):
    dataset, model = ready.names
    estimate = lethe.estimate(["t1"], model=model)
    check = lethe.check_file(dataset, (service.data / "run.parquet").as_uri(), column="id")

    assert lethe.read_estimate(estimate.id) == estimate
    assert estimate.job_ids() == [estimate.targets[0].job_id]
    assert lethe.read_check(dataset, check.id) == check
    assert check.job_ids() == [check.job_id]


def test_suppressed_names_what_was_forgotten(
    lethe: Lethe, service: Service, ready: Ready, monkeypatch
):
    monkeypatch.setattr("lethe.suppression.MOST_IDS", 3)
    job = factories.job(model_id=ready.model.id, finished=True)
    service.put(job, *factories.tombstones(ready.model, job, "t3", "t7"))

    found = lethe.suppressed(ready.names[0], (f"t{n}" for n in range(10)))

    assert found == {"t3", "t7"}
    assert lethe.suppressed(ready.names[0], []) == set()
    with pytest.raises(ValueError, match="several"):
        lethe.suppressed(ready.names[0], "t3")


def test_weights_are_downloaded_and_damaged_ones_refused(lethe: Lethe, ready: Ready, tmp_path):
    place = tmp_path / "cnn.safetensors"
    model = ready.names[1]

    pulled = lethe.weights(model, place)
    again = lethe.weights(model, place, version=1)

    assert pulled == again == lethe.read_version(model, 1)
    assert place.read_bytes() == ready.weights.read_bytes()
    ready.weights.write_bytes(b"damaged")
    with pytest.raises(errors.WeightsDiffer):
        lethe.weights(model, tmp_path / "other.safetensors")
    ready.weights.unlink()
    with pytest.raises(errors.Unavailable):
        lethe.weights(model, tmp_path / "other.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == [place.name]
    with pytest.raises(errors.NotFound):
        lethe.weights(model, place, version=7)


@pytest.mark.parametrize("letter", ["a", "\u00e4", '"', "\n", "\U0001f600"])
def test_pieces_of_long_ids_fit_into_a_body(letter):
    """Sixteen MiB are the limit of the service."""
    long = [f"{n:05}-{letter * 500}" for n in range(20_000)]

    cut = list(pieces(long))

    assert [sample_id for piece in cut for sample_id in piece] == long
    for piece in cut:
        body = Datasets.check_ids.describe(None, "digits", piece).content
        assert body is not None
        assert len(body) <= 16 * 2**20
    assert len(list(pieces(str(n) for n in range(250_000)))) == 3


async def test_the_asynchronous_client_does_the_same(service: Service, ready: Ready):
    dataset, model = ready.names
    async with AsyncLethe(service.url, KEY, retries=QUICKLY) as lethe:
        made = [await lethe.forget([f"t{n}"], model=model) for n in range(3)]
        read = await asyncio.gather(*(lethe.read_request(request.id) for request in made))
        listed = [request.id async for request in lethe.list_requests(model=model)]
        cancelled = await lethe.cancel_request(made[0].id)
        waited = await lethe.wait(cancelled, timeout=5)
        with pytest.raises(errors.NotFound):
            await lethe.read_model("none")

        assert [request.id for request in read] == [request.id for request in made]
        assert listed == [request.id for request in made][::-1]
        assert waited.status == "cancelled"
        assert await lethe.suppressed(dataset, ["t1"]) == set()


async def test_the_blocking_client_works_where_a_loop_runs(lethe: Lethe, ready: Ready):
    """As in a notebook."""
    assert lethe.read_model(ready.names[1]).champion
    assert [version.number for version in lethe.list_versions(ready.names[1])] == [1]


def test_methods_show_their_own_signature_and_text():
    import inspect

    assert list(inspect.signature(Lethe.read_model.method).parameters) == ["self", "name"]
    assert Lethe.read_model.__doc__ == AsyncLethe.read_model.__doc__
    with Lethe("http://localhost", KEY) as lethe:
        assert list(inspect.signature(lethe.read_model).parameters) == ["name"]


def test_wait_ends_with_the_status_and_tells_what_happens(
    lethe: Lethe, service: Service, ready: Ready
):
    job = factories.job(model_id=ready.model.id, status=JobStatus.RUNNING, progress=0.5)
    job.started_at, job.phase = factories.NOW, "cycle 3 of 6"
    job.lease_until, job.worker, job.attempt = factories.NOW, "worker@here", 1
    request = factories.request(ready.dataset, status=RequestStatus.RUNNING)
    target = factories.target(request, ready.model, status=RequestStatus.RUNNING, job_id=job.id)
    service.put(job, request, target)
    seen = []

    with pytest.raises(errors.StillWaiting) as waiting:
        lethe.wait(lethe.read_request(request.id), timeout=0.1, on_progress=seen.append)

    assert waiting.value.subject.status == "running"
    assert isinstance(waiting.value, TimeoutError)
    assert [(news.fraction, news.phase) for news in seen] == [(0.5, "cycle 3 of 6")]
    assert seen[0].jobs[0].kind == JobKind.UNLEARN


def test_wait_for_what_is_settled_returns_at_once(lethe: Lethe, ready: Ready):
    dataset, model = ready.names

    assert lethe.wait(lethe.read_dataset(dataset)).status == RegistrationStatus.READY
    assert lethe.wait(lethe.read_model(model)).champion.number == 1
