"""What a model has forgotten lately, judged together, as the API tells it."""

import pytest

from domain.states import Verdict
from tests import factories

URL = "/v1/models/cnn/pooled-audit"
FIGURES = {
    "requests": 3, "samples": 40, "units": 40, "remeasured": 30, "pairs": 36, "observed": 0.51,
    "low": 0.3, "high": 0.72, "p_value": 1.0, "observed_before": 0.8, "p_value_before": 0.001,
    "days": 90, "reason": "So it is.",
}  # fmt: skip


@pytest.fixture
async def two(store):
    """A model with two pooled audits, of which the second failed."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    jobs = [factories.job(model_id=model.id, finished=True) for _ in range(2)]
    verdicts = (Verdict.PASS, Verdict.FAIL)
    await store(
        dataset,
        model,
        *jobs,
        *(
            factories.pooled_audit(
                job, version=number, verdict=verdict, returned=number == 3, figures=FIGURES
            )
            for number, (job, verdict) in enumerate(zip(jobs, verdicts, strict=True), 2)
        ),
    )


async def test_the_newest_is_told(client, two):
    told = (await client.get(URL)).json()

    assert (told["model"], told["days"]) == ("cnn", 90)
    audit = told["audit"]
    assert audit.pop("created_at")
    assert audit == FIGURES | {"version": 3, "verdict": "fail", "returned": True}


async def test_each_model_counts_once_in_the_metrics_by_its_newest(client, two):
    text = (await client.get("/metrics")).text

    assert 'lethe_pooled_audits{verdict="fail"} 1.0' in text
    assert 'lethe_pooled_audits{verdict="pass"} 0.0' in text


async def test_there_is_none_before_a_job_has_made_one(client, store):
    dataset = factories.dataset()
    await store(dataset, factories.model(dataset))

    assert (await client.get(URL)).json() == {"model": "cnn", "days": 90, "audit": None}


async def test_an_unknown_model_has_none(client):
    assert (await client.get(URL)).status_code == 404
