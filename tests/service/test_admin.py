from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from domain.states import JobKind, JobStatus, RequestStatus, RowsStatus, VersionStatus
from domain.tables import LogAnchor, LogCheckpoint
from tests import factories


@pytest.fixture
async def history(store, model):
    """One request waits and is overdue, one failed and is overdue, one is done; some jobs ran."""
    dataset = factories.dataset(id=model.dataset_id)
    past = factories.NOW - timedelta(days=1)
    took = [(factories.NOW, factories.NOW + timedelta(seconds=seconds)) for seconds in (10, 20, 90)]
    jobs = [
        factories.job(model_id=model.id, finished=True, started_at=start, finished_at=end)
        for start, end in took
    ]
    old = {"status": VersionStatus.SUPERSEDED, "superseded_at": factories.NOW}
    due = {"purge_after": factories.NOW - timedelta(hours=1)}
    await store(
        factories.request(dataset, due_at=past, created_at=factories.NOW - timedelta(hours=2)),
        factories.request(dataset, due_at=past, status=RequestStatus.FAILED),
        factories.request(
            dataset, due_at=past, status=RequestStatus.COMPLETED, rows_status=RowsStatus.FAILED
        ),
        *jobs,
        factories.job(
            model_id=model.id, status=JobStatus.RUNNING, lease_until=past, started_at=past
        ),
        factories.job(kind=JobKind.INDEX_DATASET, created_at=past),
        factories.version(model, jobs[0], number=2, **old),
        factories.version(model, jobs[1], number=3, **old | due),
        factories.version(model, jobs[2], number=4, **old | due, purged_at=factories.NOW),
    )


async def test_how_long_a_decision_may_take_is_shown(client, store, model):
    dataset = factories.dataset(id=model.dataset_id)
    assert (await client.get("/v1/admin/metrics")).json()["decision_due_seconds"] is None
    await store(
        *(
            factories.request(dataset, status=status, due_at=factories.NOW + timedelta(days=days))
            for status, days in (
                (RequestStatus.NEEDS_REVIEW, 9), (RequestStatus.NEEDS_REVIEW, 5),
                (RequestStatus.PENDING, 1),
            )
        )
    )  # fmt: skip

    left = (await client.get("/v1/admin/metrics")).json()["decision_due_seconds"]

    since = (datetime.now(UTC) - factories.NOW).total_seconds()
    assert left == pytest.approx(5 * 86400 - since, abs=60)


async def test_figures_as_json(client, history):
    figures = (await client.get("/v1/admin/metrics")).json()
    since = (datetime.now(UTC) - factories.NOW).total_seconds()

    assert figures["requests"] == {
        **dict.fromkeys([status.value for status in RequestStatus], 0),
        "pending": 1,
        "failed": 1,
        "completed": 1,
    }
    assert figures["overdue"] == 2
    assert figures["rows"] == {"waiting": 0, "failed": 1, "held": 0, "gone": 0}
    assert figures["oldest_wait_seconds"] == pytest.approx(7200 + since, abs=60)
    assert figures["jobs"]["unlearn"] == {
        "queued": 0,
        "running": 1,
        "completed": 3,
        "failed": 0,
        "cancelled": 0,
    }
    assert figures["oldest_queued_job_seconds"] == pytest.approx(86400 + since, abs=60)
    waiting = {kind: age for kind, age in figures["queued_job_seconds"].items() if age}
    assert waiting == {"index_dataset": pytest.approx(86400 + since, abs=60)}
    assert figures["expired_leases"] == 1
    assert figures["unlearn_seconds"] == {"jobs": 3, "median": 20, "p95": 83}
    assert figures["datasets"] == {"pending": 0, "ready": 1, "failed": 0, "deleted": 0}
    assert figures["models"] == {"pending": 0, "ready": 1, "failed": 0, "deleted": 0}
    assert figures["purge_pending"] == 2
    assert 3600 <= figures["purge_overdue_seconds"] < 8000
    assert figures["audit_events"] == 0


async def test_figures_of_an_empty_service(client):
    figures = (await client.get("/v1/admin/metrics")).json()

    assert figures["oldest_wait_seconds"] == 0
    assert figures["purge_overdue_seconds"] == 0
    assert figures["unlearn_seconds"] == {"jobs": 0, "median": None, "p95": None}


async def test_how_long_ago_the_audit_trail_was_signed_and_anchored(client, store):
    past = factories.NOW - timedelta(hours=1)
    empty = (await client.get("/v1/admin/metrics")).json()
    silent = (await client.get("/metrics")).text
    await store(
        LogCheckpoint(size=5, note="", created_at=past),
        LogAnchor(size=5, kind="directory", anchored_at=past + timedelta(minutes=5)),
    )
    figures = (await client.get("/v1/admin/metrics")).json()
    told = (await client.get("/metrics")).text

    assert (empty["checkpoint_age_seconds"], empty["anchor_age_seconds"]) == (None, None)
    assert "checkpoint_age" not in silent
    ages = figures["checkpoint_age_seconds"], figures["anchor_age_seconds"]
    assert 3600 <= ages[0] < 8000
    assert ages[0] - ages[1] == pytest.approx(300, abs=1)
    assert "\nlethe_checkpoint_age_seconds " in told
    assert "\nlethe_anchor_age_seconds " in told


async def test_the_same_figures_for_prometheus(client, history):
    response = await client.get("/metrics")

    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    expected = {
        ("lethe_requests", "pending"): 1,
        ("lethe_requests", "running"): 0,
        ("lethe_requests_overdue",): 2,
        ("lethe_rows", "failed"): 1,
        ("lethe_rows", "waiting"): 0,
        ("lethe_jobs", "unlearn", "completed"): 3,
        ("lethe_jobs_lease_expired",): 1,
        ("lethe_unlearn_duration_seconds", "0.5"): 20,
        ("lethe_unlearn_duration_seconds", "0.95"): 83,
        ("lethe_datasets", "ready"): 1,
        ("lethe_models", "ready"): 1,
        ("lethe_purge_pending",): 2,
        ("lethe_audit_events",): 0,
    }
    assert {name: samples[name] for name in expected} == expected
    assert samples["lethe_oldest_request_wait_seconds",] >= 7200
    assert samples["lethe_oldest_queued_job_seconds",] >= 86400
    assert samples["process_resident_memory_bytes",] > 0


async def test_prometheus_gets_no_duration_before_there_is_one(client):
    assert "unlearn_duration" not in (await client.get("/metrics")).text
