"""A head on a frozen backbone: fitted anew, exactly, whatever was asked before."""

from dataclasses import replace
from uuid import UUID

import pytest
import torch
from safetensors.torch import load_file, save_model
from sqlalchemy import select

from domain import jobs
from domain.errors import JobError
from domain.states import JobKind, JobStatus, Mode, Verdict, VersionStatus
from domain.tables import (
    AuditEvent,
    Model,
    ModelVersion,
    Tombstone,
    VersionRegistration,
    derived_data,
)
from tests.worker.jobs.unlearn.digit_models import (
    ALLOWED,
    COUNT,
    LABELS,
    NAMED,
    PARTS,
    PIXELS,
    TRAIN,
    learn,
    on_a_backbone,
    perceptron,
)
from worker.data import head_features, version_statistics
from worker.jobs.register_model import register_model
from worker.jobs.register_version import register_version
from worker.jobs.unlearn import refit
from worker.jobs.unlearn.inputs import read_order
from worker.jobs.unlearn.job import unlearn_model
from worker.networks.recipes import TrainingData
from worker.unlearning import softmax_regression
from worker.unlearning.alignment import Moments
from worker.unlearning.samples import Samples


@pytest.fixture
def versions(sync_sessions):
    def of(model):
        with sync_sessions() as session:
            chosen = select(ModelVersion).filter_by(model_id=model.id)
            return session.scalars(chosen.order_by(ModelVersion.number)).all()

    return of


@pytest.fixture
def twin(sync_sessions, bench_for):
    """The same model once more, under another name."""

    def register(model):
        same = ("dataset_id", "weights_uri", "architecture", "head", "preprocessing", "policy",
                "recipe", "backbone")  # fmt: skip
        with sync_sessions.begin() as session:
            other = Model(
                id=UUID(int=2), name="other", **{name: getattr(model, name) for name in same}
            )
            session.add(other)
        register_model(bench_for(other, **ALLOWED))
        return other

    return register


def from_scratch(backbone, staying):
    """The head of the training samples with these numbers, by other means than the job's."""
    pixels = torch.tensor(PIXELS[staying]).float() / 16
    features = torch.relu(pixels @ backbone["0.weight"].T + backbone["0.bias"])
    labels = torch.tensor(LABELS[staying])
    size = softmax_regression.BLOCK
    return features, softmax_regression.fit(
        lambda: zip(features.split(size), labels.split(size), strict=True), classes=10, l2=1e-3
    )


def test_one_after_another_or_together_the_bits_are_those_of_a_fit_without(
    registered, ask, outcome, versions, twin, sync_sessions
):
    model = registered(on_a_backbone)
    other = twin(model)
    told = versions(model)[0].figures["backbone"]

    unlearn_model(ask(model, *NAMED[:5]))
    unlearn_model(bench := ask(model, *NAMED[5:15]))
    unlearn_model(ask(other, *NAMED[:15]))

    job, version, _, (tried,) = outcome(bench)
    assert (job.status, job.verdict, version.mode) == (
        JobStatus.COMPLETED, Verdict.PASS, Mode.EXACT,
    )  # fmt: skip
    assert "fitted anew" in job.mode_reason
    assert "what whoever registered the model declared" in tried.reason
    (first, second, last), (_, joint) = versions(model), versions(other)
    assert (last.weights_sha256, last.features_sha256) == (
        joint.weights_sha256, joint.features_sha256,
    )  # fmt: skip
    assert last.figures["drift"] == {"since_version": 3, "trained_on": len(TRAIN) - 15,
                                     "forgotten": 0, "accuracy_change": 0.0}  # fmt: skip

    store = bench.store
    before, now = (load_file(store.path(each.weights_sha256)) for each in (first, last))
    staying = [n for n in range(COUNT) if PARTS[n] == "train" and f"digit-{n}" not in NAMED[:15]]
    features, fit = from_scratch(before, staying)
    assert torch.equal(now["0.weight"], before["0.weight"])
    assert torch.equal(now["0.bias"], before["0.bias"])
    assert torch.allclose(now["2.weight"].double(), fit.weight, atol=1e-5)
    kept = [head_features.read(store, each.features_sha256) for each in (first, second, last)]
    again = softmax_regression.fit(kept[-1].blocks, classes=10, l2=1e-3)
    assert torch.equal(now["2.weight"], again.weight.float())
    assert torch.equal(now["2.bias"], again.bias.float())
    known = version_statistics.read(store, last.statistics_sha256)
    assert torch.allclose(known.moments.mean, Moments.of(features).mean, atol=1e-6)
    assert int(known.class_counts.sum()) == known.moments.count == len(staying)

    with sync_sessions() as session:
        mine = select(Tombstone.digest).filter_by(model_id=model.id)
        buried = set(session.scalars(mine))
        events = dict(
            session.execute(
                select(AuditEvent.event, AuditEvent.data)
                .where(AuditEvent.subject_id.in_([last.id, model.id]))
                .order_by(AuditEvent.id)
            ).all()
        )
        holding = session.scalars(
            select(derived_data.c.version).filter_by(kind="features", model_id=model.id)
        ).all()
    assert [len(each) for each in kept] == [len(TRAIN), len(TRAIN) - 5, len(TRAIN) - 15]
    digests = [{row.tobytes() for row in each.rows["digest"]} for each in kept]
    assert [len(each & buried) for each in digests] == [15, 10, 0]
    assert sorted(holding) == [1, 2, 3]

    assert told["refit"]["test_accuracy"] > 0.7
    assert told["refit"]["same_answers"] is False  # it was trained without that penalty
    assert job.config["backbone"] == {name: told[name] for name in job.config["backbone"]}
    assert events["version.created"]["features_sha256"] == last.features_sha256
    assert events["version.created"]["backbone_sha256"] == told["sha256"]
    checked = events["backbone.checked"]
    assert (checked["source"], checked["tensors"]) == ("hub/perceptron@1", 2)
    assert (checked["trained_on_dataset"], checked["sha256"]) == (False, told["sha256"])

    bench = ask(model, NAMED[15])
    with sync_sessions() as session:
        order = read_order(session, bench.claim.job_id)
    with pytest.raises(JobError, match="lack samples that it was fitted on"):
        refit.remaining(bench, replace(order, forget=[("another", 0), *order.forget]))


def test_a_penalty_that_ruins_the_head_is_refused_at_once(registered):
    def strict(folder):
        known = on_a_backbone(folder)
        return known | {"backbone": known["backbone"] | {"l2": 1e3}}

    with pytest.raises(JobError, match=r"l2 = 1000.* Try another `l2`"):
        registered(strict)


def test_a_network_that_is_not_its_backbone_is_refused_by_name(registered):
    def retouched(folder):
        known = on_a_backbone(folder)
        return known | {"weights_uri": str(folder / "mlp.safetensors")}  # trained whole

    with pytest.raises(JobError, match=r"2 of 2 tensors differ \(0\.weight, 0\.bias\)\. Train the"):
        registered(retouched)


@pytest.fixture
def offered(sync_sessions, bench_of, write, tmp_path):
    """Register a version that was trained elsewhere, on all training samples."""

    def register(model, network):
        place = tmp_path / f"elsewhere-{len(list(tmp_path.iterdir()))}.safetensors"
        save_model(network, str(place))
        ids = write({"id": TRAIN}, f"{place.stem}.parquet")
        with sync_sessions.begin() as session:
            job = jobs.queue(session, JobKind.REGISTER_VERSION, actor="api", model_id=model.id)
            offer = VersionRegistration(
                model_id=model.id, job_id=job.id, idempotency_key=str(job.id), fingerprint="f",
                weights_uri=str(place), trained_on={"column": "id", "uri": str(ids)},
                accept_accuracy=False, accept_memory=True,
            )  # fmt: skip
            session.add(offer)
        register_version(bench_of(job.id, **ALLOWED))

    return register


def test_a_version_from_elsewhere_brings_its_own_features(
    registered, ask, offered, versions, tmp_path
):
    model = registered(on_a_backbone, escalation=[], max_test_accuracy_drop=1.0)
    network = perceptron()
    network.load_state_dict(load_file(tmp_path / "headed.safetensors"))
    network[0].requires_grad_(False)
    rows = [n for n in range(COUNT) if PARTS[n] == "train"]
    samples = Samples(torch.tensor(PIXELS[rows]), torch.tensor(LABELS[rows]))
    learn(network, TrainingData(samples, lambda pixels: pixels.float() / 16), seed=1)

    offered(model, network)
    unlearn_model(bench := ask(model, TRAIN[30]))

    _, elsewhere, last = versions(model)
    assert elsewhere.figures["backbone"]["tensors"] == 2
    sizes = [len(head_features.read(bench.store, v.features_sha256)) for v in (elsewhere, last)]
    assert sizes == [len(rows), len(rows) - 1]
    assert (last.status, last.mode) == (VersionStatus.CHAMPION, Mode.EXACT)
