"""The job that makes a model forget, on the kinds of models and inputs that can be registered."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sqlalchemy import func, select, text

from domain.errors import JobError
from domain.preprocessing import InputKind
from domain.states import JobStatus, Objective, Split, Verdict, VersionStatus
from domain.tables import AlignmentScore, Evaluation, Job, ModelVersion, Tombstone, VerdictTest
from tests.worker.jobs.unlearn import digit_models
from tests.worker.jobs.unlearn.digit_models import (
    ALLOWED,
    COUNT,
    LABELS,
    NAMED,
    PARTS,
    TRAIN,
    encoded_images,
    flat_floats,
    perceptron,
    token_ids,
    token_ids_for_a_decoder,
)
from worker.data import decode, reservoir, specimens, version_statistics
from worker.engine import environment
from worker.jobs.unlearn.job import unlearn_model
from worker.networks import architectures, weights
from worker.unlearning.evaluation import Outputs, retain_moments
from worker.unlearning.network import Network


@pytest.mark.parametrize("kind", [flat_floats, encoded_images, token_ids, token_ids_for_a_decoder])
def test_every_kind_of_model_and_input_can_forget(registered, ask, sync_sessions, kind):
    """Most of them were never trained, so that the audit may say anything of them."""
    model = registered(kind, escalation=[])
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    with sync_sessions() as session:
        job = session.get_one(Job, bench.claim.job_id)
        assert job.status is JobStatus.COMPLETED
        assert job.environment["device"] == "cpu"
        cycles = session.scalars(select(AlignmentScore.cycle).filter_by(job_id=job.id)).all()
        assert sorted(cycles) == list(range(1, len(cycles) + 1))
        assert 1 <= len(cycles) <= job.config["cycles"]
        moments = session.scalars(select(Evaluation.moment).filter_by(job_id=job.id)).all()
        assert sorted(moments) == ["after", "before"]
        made = session.scalars(select(ModelVersion).filter_by(job_id=job.id)).one()
        failed = job.verdict is Verdict.FAIL
        assert made.status is (VersionStatus.CANDIDATE if failed else VersionStatus.CHAMPION)
        buried = session.scalar(select(func.count(Tombstone.digest)))
        assert buried == (0 if failed else len(NAMED))
    network = architectures.build(model.architecture, ALLOWED["factories"])
    weights.load(network, bench.store.path(made.weights_sha256))


def test_a_job_says_which_code_it_ran(registered, ask, outcome):
    model = registered(flat_floats, recipe="learn")
    users = hashlib.sha256(Path(digit_models.__file__).read_bytes()).hexdigest()
    unlearn_model(bench := ask(model, *NAMED))

    ran = outcome(bench)[0].environment

    assert ran["code_sha256"] == environment.code_sha256()
    assert ran["factory toy_models:perceptron"] == f"sha256.{users}"
    assert ran["recipe toy_models:learn"] == f"sha256.{users}"


def test_requests_in_sequence_each_make_a_version(registered, ask, sync_sessions):
    model = registered(flat_floats)

    for start in range(0, 20, 5):
        unlearn_model(ask(model, *NAMED[start : start + 5]))

    with sync_sessions() as session:
        versions = session.execute(
            select(ModelVersion.number, ModelVersion.status)
            .filter_by(model_id=model.id)
            .order_by(ModelVersion.number)
        ).all()
        assert [number for number, _ in versions] == [1, 2, 3, 4, 5]
        assert [status for _, status in versions] == [VersionStatus.SUPERSEDED] * 4 + [
            VersionStatus.CHAMPION
        ]


def test_a_class_is_removed_whole_or_not_at_all(registered, ask):
    model = registered(flat_floats)
    sevens = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == "train" and LABELS[n] == 7]

    with pytest.raises(JobError, match="every training sample of the classes"):
        unlearn_model(ask(model, *sevens[1:], objective=Objective.REMOVE_CLASS))


def test_a_whole_class_can_be_removed(registered, ask, sync_sessions):
    model = registered(flat_floats)
    sevens = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == "train" and LABELS[n] == 7]

    bench = ask(model, *sevens, objective=Objective.REMOVE_CLASS)
    unlearn_model(bench)

    with sync_sessions() as session:
        assert session.get_one(Job, bench.claim.job_id).status is JobStatus.COMPLETED


def test_a_superseded_version_is_no_base_even_if_its_row_says_champion(
    registered, ask, sync_sessions
):
    model = registered(flat_floats)
    bench = ask(model, *NAMED[:5])
    with sync_sessions.begin() as session:
        session.execute(text("ALTER TABLE model_versions DISABLE TRIGGER USER"))
        for status, at in (("superseded", "now()"), ("champion", "NULL")):
            session.execute(
                text(
                    f"UPDATE model_versions SET status = '{status}', superseded_at = {at}, "
                    "purge_after = now()"
                )
            )
        session.execute(text("ALTER TABLE model_versions ENABLE TRIGGER USER"))

    with pytest.raises(JobError, match="is marked as the champion, but it was superseded"):
        unlearn_model(bench)


def test_forgetting_everything_is_refused_with_advice(registered, ask):
    with pytest.raises(JobError, match="cannot calibrate or judge"):
        unlearn_model(ask(registered(flat_floats, recipe="learn"), *TRAIN))


@pytest.mark.parametrize("objective", list(Objective))
def test_two_whole_classes_can_go(registered, ask, outcome, objective):
    two = [name for name in TRAIN if LABELS[int(name.removeprefix("digit-"))] in (3, 7)]
    bench = ask(registered(flat_floats, escalation=[]), *two, objective=objective)

    unlearn_model(bench)

    job, version, _, (tried,) = outcome(bench)
    assert job.status is JobStatus.COMPLETED
    counts = version_statistics.read(bench.store, version.statistics_sha256).class_counts
    assert counts[[3, 7]].tolist() == [0, 0]
    assert tried.verdict is job.verdict


def test_one_sample_can_go(registered, ask, outcome, sync_sessions):
    bench = ask(registered(flat_floats), NAMED[0])

    unlearn_model(bench)

    job, *_ = outcome(bench)
    assert job.verdict is Verdict.NO_POWER
    with sync_sessions() as session:
        tests = session.scalars(select(VerdictTest).filter_by(job_id=job.id, moment="after")).all()
    assert {test.forget_samples for test in tests} == {1}
    assert all(np.isfinite(test.value) for test in tests)


def test_no_image_is_decoded_twice_in_a_job_but_for_specimens(
    registered, ask, outcome, monkeypatch
):
    bench = ask(registered(encoded_images, escalation=[]), *NAMED)
    opened = []
    original = Image.open

    def counted(file, **how):
        opened.append(file.getvalue())
        return original(file, **how)

    monkeypatch.setattr(Image, "open", counted)
    unlearn_model(bench)

    _, version, _, _ = outcome(bench)
    kept = reservoir.read(bench.store, version.reservoir_sha256)
    assert len(set(opened)) == len(NAMED) + kept.num_rows
    assert len(opened) == len(set(opened)) + 2 * len(specimens.of_table(kept))


def test_a_new_version_keeps_the_moments_of_its_own_features(registered, ask, outcome):
    model = registered(flat_floats, escalation=[])
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    _, version, _, _ = outcome(bench)
    module = perceptron()
    weights.load(module, bench.store.path(version.weights_sha256))
    network = Network(
        module, head="2", prepare=decode.preparer(model.preprocessing, InputKind.PIXELS)
    )
    kept = reservoir.read(bench.store, version.reservoir_sha256)
    retain = reservoir.samples(kept, Split.TRAIN, model.preprocessing, {"input_shape": [64]})
    known = version_statistics.read(bench.store, version.statistics_sha256)
    expected = retain_moments(Outputs.of(network, retain, 100), known.class_counts)
    assert known.moments.count == pytest.approx(len(TRAIN) - len(NAMED))
    torch.testing.assert_close(known.moments.mean, expected.mean)
    torch.testing.assert_close(known.moments.second, expected.second)
