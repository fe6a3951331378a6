"""A job measures the version that it makes. The next one starts from it, and need not again."""

import torch

from domain.states import JobKind
from domain.tables import Estimate, EstimateSample, EstimateTarget, Job
from tests.worker.jobs.unlearn.digit_models import ALLOWED, NAMED, flat_floats
from worker.jobs.estimate import estimate
from worker.jobs.unlearn import record
from worker.jobs.unlearn.inputs import Inputs
from worker.jobs.unlearn.job import unlearn_model
from worker.unlearning.evaluation import Outputs


def test_a_job_measures_no_more_of_its_champion_than_what_it_is_to_forget(
    registered, ask, monkeypatch
):
    model = registered(flat_floats, escalation=[])
    measured, before_changes, compared = [], [], []
    of, shown_to, start = Outputs.of, Inputs.shown_to, record.start

    def count(network, samples, batch_size):
        measured.append(len(samples))
        return of(network, samples, batch_size)

    def compare(inputs, network, known=None):
        if known:
            again = shown_to(inputs, network)
            compared.extend((outputs, getattr(again, name)) for name, outputs in known.items())
            measured.clear()
        return shown_to(inputs, network, known or {})

    def begin(*arguments, **named):
        before_changes.append([*measured])
        start(*arguments, **named)

    monkeypatch.setattr(Outputs, "of", count)
    monkeypatch.setattr(Inputs, "shown_to", compare)
    monkeypatch.setattr(record, "start", begin)

    unlearn_model(ask(model, *NAMED[:5]))
    unlearn_model(ask(model, *NAMED[5:12]))

    assert len(before_changes[0]) == 4  # nothing was kept of the version that was registered
    assert before_changes[1] == [7]
    assert len(compared) == 3
    for kept, again in compared:
        assert torch.equal(kept.labels, again.labels)
        torch.testing.assert_close(kept.logits, again.logits)
        torch.testing.assert_close(kept.features, again.features)


def test_an_estimate_looks_at_no_more_than_what_is_named_and_expects_a_job_to(
    registered, ask, bench_of, sync_sessions, monkeypatch
):
    model = registered(flat_floats, escalation=[], mode="approximate")
    unlearn_model(ask(model, *NAMED[:5]))
    measured, of = [], Outputs.of

    def count(network, samples, batch_size):
        measured.append(len(samples))
        return of(network, samples, batch_size)

    monkeypatch.setattr(Outputs, "of", count)
    bench = bench_of(Job(kind=JobKind.ESTIMATE, model_id=model.id), **ALLOWED)
    with sync_sessions.begin() as session:
        asked = Estimate(
            dataset_id=model.dataset_id, objective="untrain_samples", exact=False, samples=7,
            duplicates=0,
        )  # fmt: skip
        session.add(asked)
        session.flush()
        target = EstimateTarget(
            estimate_id=asked.id, model_id=model.id, job_id=bench.claim.job_id,
            already_forgotten=0, not_trained_on=0,
        )  # fmt: skip
        session.add(target)
        session.add_all(
            EstimateSample(job_id=bench.claim.job_id, sample_id=name) for name in NAMED[5:12]
        )

    estimate(bench)

    assert measured[0] == 7
    assert len(measured) == 2  # the other is timed: a job will have to look at what was spared here
