"""The job that makes a model forget, on the kinds of models and inputs that can be registered."""

import dataclasses
import hashlib
import shutil
import sys
from datetime import timedelta
from functools import cache
from io import BytesIO
from itertools import count
from pathlib import Path
from types import ModuleType
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save_model
from sklearn.datasets import load_digits
from sqlalchemy import any_, delete, func, literal, select, text, update
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from domain import forgetting, sample_digests
from domain.errors import JobError, LeaseLost, Stopped
from domain.policy import Escalation
from domain.states import (
    JobKind,
    JobStatus,
    Mode,
    Objective,
    RequestStatus,
    Split,
    Verdict,
    VersionStatus,
)
from domain.tables import (
    AlignmentScore,
    AuditEvent,
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Evaluation,
    Job,
    MembershipStatistics,
    Model,
    ModelVersion,
    OutOfSamplePrediction,
    ReferenceTables,
    RequestSample,
    Round,
    Sample,
    Tombstone,
    VerdictTest,
    derived_data,
)
from tests import factories
from worker.data import decode, reservoir, version_statistics
from worker.engine import environment, lease
from worker.engine.workbench import Workbench
from worker.housekeeping import planner
from worker.jobs.index_dataset import index_dataset
from worker.jobs.register_model import register_model
from worker.jobs.unlearn.job import unlearn_model
from worker.networks import architectures, functions
from worker.networks.recipes import TrainingData
from worker.store import job_checkpoints
from worker.unlearning.evaluation import Outputs, retain_moments
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples

COUNT = 300
DIGITS = load_digits()
PIXELS, LABELS = DIGITS.data[:COUNT], DIGITS.target[:COUNT]
PARTS = np.array(["train", "train", "train", "valid", "test"])[np.arange(COUNT) % 5]
TRAIN = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == "train"]
NAMED = TRAIN[:20]
ALLOWED = {
    "factories": [
        "toy_models:perceptron",
        "toy_models:ruined_when_trained",
        "toy_models:not_finite_when_trained",
    ],
    "recipes": ["toy_models:learn", "toy_models:learn_nothing", "toy_models:learn_as_another"],
}


def perceptron() -> nn.Module:
    """An MLP without any batch normalisation, for flat arrays."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def ruined_when_trained() -> nn.Module:
    """The same, but once it was in training mode it gives one answer to everything."""

    def spoil(module, args, logits):
        module.spoilt |= module.training
        ruined = module.spoilt and not module.training
        return (
            nn.functional.one_hot(torch.zeros(len(logits)).long(), 10) * 9.0 if ruined else logits
        )

    model = perceptron()
    model.spoilt = False
    model.register_forward_hook(spoil)
    return model


def not_finite_when_trained() -> nn.Module:
    model = perceptron()
    model.register_forward_hook(lambda m, _, logits: logits * torch.nan if m.training else logits)
    return model


def learn(model: nn.Module, data, *, seed: int) -> nn.Module:
    """A recipe that is over in half a second, and never uses training mode."""
    torch.manual_seed(seed)
    inputs, labels = data.batch(torch.arange(len(data)))
    optimizer = torch.optim.Adam(model.eval().parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model


def learn_nothing(model: nn.Module, data, *, seed: int) -> nn.Module:
    return model


def learn_as_another(model: nn.Module, data, *, seed: int) -> nn.Module:
    return nn.Linear(64, 10)


@cache
def trained() -> nn.Module:
    """The perceptron, with all training samples learned by heart."""
    torch.manual_seed(0)
    samples = Samples(
        torch.tensor(PIXELS[PARTS == "train"]), torch.tensor(LABELS[PARTS == "train"])
    )
    return learn(perceptron(), TrainingData(samples, lambda pixels: pixels.float() / 16), seed=0)


def flat_floats(folder):
    save_model(trained(), str(folder / "mlp.safetensors"))
    return {
        "inputs": pa.array(PIXELS.astype(np.float32).tolist(), pa.list_(pa.float32())),
        "input_shape": [64],
        "weights_uri": str(folder / "mlp.safetensors"),
        "architecture": {"kind": "python", "factory": "toy_models:perceptron"},
        "head": "2",
        "preprocessing": {"scale": 1 / 16},
    }


def ruinous(folder):
    """The same model, which every run of the method spoils."""
    factory = "toy_models:ruined_when_trained"
    return flat_floats(folder) | {"architecture": {"kind": "python", "factory": factory}}


def poisonous(folder):
    """The same model, whose answers in training mode are not finite."""
    factory = "toy_models:not_finite_when_trained"
    return flat_floats(folder) | {"architecture": {"kind": "python", "factory": factory}}


def encoded_images(folder):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8, num_channels=3, num_labels=10,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder / "vit")

    def png(pixels):
        file = BytesIO()
        Image.fromarray((pixels.reshape(8, 8) * 15).astype(np.uint8)).save(file, "PNG")
        return file.getvalue()

    return {
        "inputs": pa.array([png(pixels) for pixels in PIXELS]),
        "input_shape": None,
        "weights_uri": str(folder / "vit"),
        "architecture": {"kind": "transformers"},
        "head": "classifier",
        "preprocessing": {"resize": [16, 16], "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3},
    }


def token_ids(folder):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=17, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=10, max_position_embeddings=64,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder / "bert")
    return {
        "inputs": pa.array(PIXELS.astype(np.int32).tolist(), pa.list_(pa.int32())),
        "input_shape": [64],
        "weights_uri": str(folder / "bert"),
        "architecture": {"kind": "transformers"},
        "head": "classifier",
        "preprocessing": {},
    }


def token_ids_for_a_decoder(folder):
    """GPT-2 puts its head on every token; the logits at the last one that is not padding count."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=17, n_embd=16, n_layer=1, n_head=2, n_positions=64, num_labels=10,
        pad_token_id=0,
    )  # fmt: skip
    GPT2ForSequenceClassification(config).save_pretrained(folder / "gpt2")
    return token_ids(folder) | {"weights_uri": str(folder / "gpt2"), "head": "score"}


@pytest.fixture(autouse=True)
def toy_models(monkeypatch):
    module = ModuleType("toy_models")
    for function in (
        perceptron,
        ruined_when_trained,
        not_finite_when_trained,
        learn,
        learn_nothing,
        learn_as_another,
    ):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "toy_models", module)


@pytest.fixture
def registered(write, register, bench_for, definition, sync_sessions, refreshed, tmp_path):
    """A model of this kind, registered by the jobs that do so. Its id, and so the samples kept for
    its jobs, are the same in every run of the test."""

    def make(kind, *, recipe=None, **policy) -> Model:
        known = kind(tmp_path)
        columns = {
            "id": [f"digit-{n}" for n in range(COUNT)],
            "pixels": known.pop("inputs"),
            "digit": LABELS,
            "part": PARTS,
        }
        shape = {"input_shape": known.pop("input_shape")}
        dataset = register(write(columns), definition=definition | shape)
        index_dataset(bench_for(dataset))
        if recipe:
            recipe = f"toy_models:{recipe}"
        policy = {"reservoir_samples": 100, "evaluation_samples": 100} | policy
        with sync_sessions.begin() as session:
            model = Model(
                id=UUID(int=1), name="net", dataset_id=dataset.id, policy=policy, recipe=recipe,
                **known,
            )  # fmt: skip
            session.add(model)
        register_model(bench_for(model, **ALLOWED))
        return refreshed(model)

    return make


@pytest.fixture
def claim(sync_sessions, workbench):
    """A workbench for the model's open job, whoever had it before."""

    def take(model) -> Workbench:
        over = func.now() - timedelta(seconds=1)
        with sync_sessions.begin() as session:
            session.execute(
                update(Job).where(Job.lease_until.is_not(None)).values(lease_until=over)
            )
            planner.free_expired(session, max_losses=9)
            queued = select(Job.id).filter_by(model_id=model.id, status=JobStatus.QUEUED)
            job_id = session.scalars(queued).one()
            held = lease.claim(session, job_id, worker="w", lease=timedelta(minutes=5))
        return workbench(held, **ALLOWED)

    return take


@pytest.fixture
def ask(sync_sessions, claim):
    """Plan a request to this model, and claim its job; its id, and so its seed, are the same in
    every run of the test."""
    ids_of_jobs = count(1)

    def make(model, *ids, **changes) -> Workbench:
        with sync_sessions.begin() as session:
            session.add(
                Job(
                    id=UUID(int=next(ids_of_jobs)),
                    kind=JobKind.UNLEARN,
                    model_id=model.id,
                    objective=changes.get("objective", Objective.UNTRAIN_SAMPLES),
                )
            )
            dataset = factories.dataset(id=model.dataset_id)  # for its id alone
            request = factories.request(dataset, samples=len(ids), **changes)
            session.add(request)
            session.flush()
            session.add(factories.target(request, model))
            session.add_all(factories.request_samples(request, *ids))
            session.flush()
            planner.plan(session)
        return claim(model)

    return make


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
    architectures.load_weights(network, bench.store.path(made.weights_sha256))


@pytest.fixture
def overtaken(claim):
    """Carry a job out, but lose it just before its end; the workbench of the next attempt."""

    class Overtaken(Workbench):
        def report(self, phase, progress):
            super().report(phase, progress)
            if phase == "storing the new version":
                later.append(claim(model_of[self.claim.job_id]))

    later, model_of = [], {}

    def carry_out(model, bench) -> Workbench:
        model_of[bench.claim.job_id] = model
        fields = {f.name: getattr(bench, f.name) for f in dataclasses.fields(bench)}
        with pytest.raises(LeaseLost):
            unlearn_model(Overtaken(**fields))
        return later.pop()

    return carry_out


def objects(bench):
    return sorted(path.name for path in bench.store.root.rglob("objects/*/*"))


def attempts_of_cycles(sync_sessions):
    with sync_sessions() as session:
        scores = select(AlignmentScore.attempt).filter_by(round=1).order_by(AlignmentScore.cycle)
        return session.scalars(scores).all()


def test_a_second_attempt_gives_the_same_weights_and_one_version(
    registered, ask, overtaken, sync_sessions
):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    second = overtaken(model, first)
    files = objects(first)
    shutil.rmtree(first.store.root / "checkpoints")

    unlearn_model(second)

    assert second.claim.attempt == 2
    assert objects(first) == files
    assert attempts_of_cycles(sync_sessions) == [2, 2]
    with sync_sessions() as session:
        numbers = session.scalars(select(ModelVersion.number).filter_by(model_id=model.id)).all()
        assert sorted(numbers) == [1, 2]


def test_an_attempt_goes_on_from_the_last_cycle_to_the_same_weights(
    registered, ask, claim, overtaken, sync_sessions
):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    bench = overtaken(model, first)
    undisturbed = objects(first)
    shutil.rmtree(first.store.root / "checkpoints")

    bench.stop.set()
    with pytest.raises(Stopped):
        unlearn_model(bench)
    unlearn_model(claim(model))

    assert attempts_of_cycles(sync_sessions) == [2, 3]
    assert objects(first) == undisturbed
    with sync_sessions() as session:
        resumed = session.scalars(select(AuditEvent.data).filter_by(event="job.resumed")).all()
    assert {"attempt": 3, "round": 1, "cycle": 1} in resumed


def test_a_damaged_checkpoint_is_not_gone_on_from(registered, ask, claim, sync_sessions):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    first.stop.set()
    with pytest.raises(Stopped):
        unlearn_model(first)
    (file,) = first.store.root.glob("checkpoints/*/*")
    file.write_bytes(file.read_bytes()[:-1] + b"!")

    unlearn_model(claim(model))

    assert attempts_of_cycles(sync_sessions) == [2, 2]


@pytest.mark.parametrize("whose", ["ours", "the user's"])
def test_a_checkpoint_of_other_code_is_not_gone_on_from(
    registered, ask, claim, sync_sessions, monkeypatch, whose
):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    first.stop.set()
    with pytest.raises(Stopped):
        unlearn_model(first)
    if whose == "ours":
        monkeypatch.setattr(environment, "code_sha256", lambda: "0" * 64)
    else:
        monkeypatch.setattr(functions, "source_sha256", lambda function: "0" * 64)

    unlearn_model(claim(model))

    assert attempts_of_cycles(sync_sessions) == [2, 2]
    with sync_sessions() as session:
        resumed = session.scalars(select(AuditEvent.data).filter_by(event="job.resumed")).all()
    assert not resumed


def test_a_job_says_which_code_it_ran(registered, ask, outcome):
    model = registered(flat_floats, recipe="learn")
    here = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    unlearn_model(bench := ask(model, *NAMED))

    ran = outcome(bench)[0].environment

    assert ran["code_sha256"] == environment.code_sha256()
    assert ran["factory toy_models:perceptron"] == f"sha256.{here}"
    assert ran["recipe toy_models:learn"] == f"sha256.{here}"


def test_a_request_that_left_the_job_meanwhile_is_not_in_what_it_goes_on_from(
    registered, ask, claim, sync_sessions
):
    model = registered(flat_floats)
    first = ask(model, *NAMED)
    first.stop.set()
    with pytest.raises(Stopped):
        unlearn_model(first)
    with sync_sessions.begin() as session:
        session.execute(delete(RequestSample).filter_by(sample_id=NAMED[0]))

    unlearn_model(claim(model))

    assert attempts_of_cycles(sync_sessions) == [2, 2]


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


def test_samples_forgotten_meanwhile_leave_nothing_to_do(registered, ask, sync_sessions):
    model = registered(flat_floats)
    unlearn_model(ask(model, *NAMED[:5]))

    unlearn_model(ask(model, *NAMED[:5]))

    with sync_sessions() as session:
        assert session.scalar(select(func.count(ModelVersion.id))) == 2
        assert session.scalar(select(func.count(Tombstone.digest))) == 5
        done = select(AuditEvent.id).filter_by(event=f"request.{RequestStatus.COMPLETED}")
        assert len(session.scalars(done).all()) == 2


def test_a_job_that_has_nothing_left_to_do_shows_nothing_of_an_earlier_attempt(
    registered, ask, claim, sync_sessions
):
    model = registered(flat_floats)
    lost = ask(model, *NAMED[:5])
    with sync_sessions.begin() as session:  # as an attempt leaves it whose end was not stored
        job = session.get_one(Job, lost.claim.job_id)
        job.mode, job.mode_reason, job.config = Mode.APPROXIMATE, "The model is changed.", {}
        session.add(factories.tried(job, kept=False))
        key = session.get_one(Dataset, model.dataset_id).tombstone_key
        session.add_all(factories.tombstone(model, job, name, key=key) for name in NAMED[:5])

    unlearn_model(claim(model))

    with sync_sessions() as session:
        job = session.get_one(Job, lost.claim.job_id)
        assert job.status is JobStatus.COMPLETED
        assert (job.mode, job.mode_reason, job.config) == (None, None, None)
        assert session.scalar(select(func.count()).select_from(Round)) == 0


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


def test_a_holdout_sample_leaves_the_reservoir_and_the_old_file_goes(
    registered, ask, sync_sessions
):
    model = registered(flat_floats)
    with sync_sessions() as session:
        before = session.scalars(select(ModelVersion.reservoir_sha256)).one()
    held_out = next(f"digit-{n}" for n in range(COUNT) if PARTS[n] == "valid")
    bench = ask(model, held_out)

    unlearn_model(bench)

    with sync_sessions() as session:
        version = session.scalars(select(ModelVersion)).one()
    assert version.number == 1
    assert (
        held_out
        not in reservoir.read(bench.store, version.reservoir_sha256)["sample_id"].to_pylist()
    )
    assert list(bench.store.root.rglob(before)) == []


def test_what_holds_a_forgotten_sample_is_one_query(registered, ask, sync_sessions):
    def where(sample_id):
        """Everything derived from data that holds this forgotten sample."""
        with sync_sessions() as session:
            key = session.scalars(select(Dataset.tombstone_key)).one()
            digest = sample_digests.digest(key, sample_id)
            job_id = session.scalars(select(Tombstone.job_id).filter_by(digest=digest)).one()
            holding = literal(job_id) == any_(derived_data.c.tainted_by)
            rows = session.execute(
                select(derived_data.c.kind, derived_data.c.version).where(
                    holding, derived_data.c.purged_at.is_(None)
                )
            )
            return {(row.kind.value, row.version) for row in rows}

    def an_hour_passes():
        """The test is one transaction, in which Postgres' clock stands still."""
        with sync_sessions.begin() as session:
            for statement in (
                "RESET ROLE",
                "ALTER TABLE model_versions DISABLE TRIGGER USER",
                "UPDATE model_versions SET created_at = created_at - interval '1 hour', "
                "superseded_at = superseded_at - interval '1 hour'",
                "UPDATE jobs SET forgotten_at = forgotten_at - interval '1 hour'",
                "ALTER TABLE model_versions ENABLE TRIGGER USER",
                "SET ROLE lethe_app",
            ):
                session.execute(text(statement))

    model = registered(flat_floats, escalation=[], max_test_accuracy_drop=1.0)
    an_hour_passes()
    held_out = next(f"digit-{n}" for n in range(COUNT) if PARTS[n] == "valid")
    unlearn_model(ask(model, held_out))  # makes no version: the champion's reservoir is replaced
    first = {("source_weights", None)}
    assert where(held_out) == first

    for name in NAMED[:2]:
        an_hour_passes()
        bench = ask(model, name)
        unlearn_model(bench)
        assert ("checkpoint", None) in where(name)
        job_checkpoints.delete_if_ended(sync_sessions, bench.store, bench.claim.job_id)

    with sync_sessions() as session:
        statuses = session.scalars(select(ModelVersion.status).order_by(ModelVersion.number)).all()
    assert statuses == ["superseded", "superseded", "champion"]
    assert where(held_out) == first
    files = ("weights", "statistics", "reservoir")
    first |= {(kind, 1) for kind in files}
    assert where(NAMED[0]) == first
    assert where(NAMED[1]) == first | {(kind, 2) for kind in files}


def test_another_model_keeps_what_only_this_one_was_asked_to_forget(
    registered, ask, bench_for, sync_sessions, refreshed
):
    model = registered(flat_floats, escalation=[])
    with sync_sessions.begin() as session:
        same = ("dataset_id", "weights_uri", "architecture", "head", "preprocessing", "policy")
        other = Model(id=UUID(int=2), name="other", **{name: getattr(model, name) for name in same})
        session.add(other)
    register_model(bench_for(other, **ALLOWED))
    bench = ask(model, *NAMED[:5])

    unlearn_model(bench)

    with sync_sessions() as session:
        kept = session.scalars(
            select(ModelVersion.reservoir_sha256).filter_by(model_id=other.id)
        ).one()
        tainted = session.scalars(
            select(derived_data.c.tainted_by).where(derived_data.c.model_id == other.id)
        ).all()
    ids = reservoir.read(bench.store, kept)["sample_id"].to_pylist()
    assert {*NAMED[:5]} & {*ids}
    assert tainted == [[]] * 4


def test_a_superseded_version_is_no_base_even_if_its_row_says_champion(
    registered, ask, sync_sessions
):
    model = registered(flat_floats)
    bench = ask(model, *NAMED[:5])
    with sync_sessions.begin() as session:
        session.execute(text("RESET ROLE"))
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
    with pytest.raises(JobError, match="so nothing can be kept"):
        unlearn_model(ask(registered(flat_floats, recipe="learn"), *TRAIN))


@pytest.fixture
def outcome(sync_sessions):
    """A job as it ended, with its version, its request and its rounds."""

    def read(bench):
        with sync_sessions() as session:
            job = session.get_one(Job, bench.claim.job_id)
            version = session.scalars(select(ModelVersion).filter_by(job_id=job.id)).one()
            request = session.scalars(
                select(DeletionRequest)
                .join(DeletionTarget, DeletionTarget.request_id == DeletionRequest.id)
                .where(DeletionTarget.job_id == job.id)
            ).first()
            rounds = session.scalars(
                select(Round).filter_by(job_id=job.id).order_by(Round.number)
            ).all()
        return job, version, request, rounds

    return read


def test_the_audit_is_stored_with_every_test(registered, ask, outcome, sync_sessions):
    bench = ask(registered(flat_floats), *NAMED)

    unlearn_model(bench)

    job, version, request, rounds = outcome(bench)
    assert job.verdict in (Verdict.PASS, Verdict.NO_POWER)
    assert (version.status, version.mode) == (VersionStatus.CHAMPION, Mode.APPROXIMATE)
    assert request.status is RequestStatus.COMPLETED
    assert [tried.kept for tried in rounds] == [False] * (len(rounds) - 1) + [True]
    assert rounds[-1].verdict is job.verdict
    assert rounds[-1].reason
    assert rounds[-1].config == job.config
    with sync_sessions() as session:
        tests = session.scalars(
            select(VerdictTest).filter_by(job_id=job.id, round=len(rounds))
        ).all()
    by_moment = {moment: [t for t in tests if t.moment == moment] for moment in ("before", "after")}
    assert {t.name for t in by_moment["before"]} == {t.name for t in by_moment["after"]}
    assert "alignment" in {t.name for t in tests}
    assert {t.name for t in tests if t.moment == "guard"} >= {"test_accuracy", "class_accuracy"}
    holdout = PARTS.tolist().count("valid")
    assert all(0 < t.holdout_samples < holdout for t in by_moment["after"])  # the audit half


def test_after_every_fail_comes_the_next_step_and_then_a_person(
    registered, ask, outcome, sync_sessions
):
    model = registered(ruinous)
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    job, version, request, rounds = outcome(bench)
    assert [tried.step for tried in rounds] == [
        None, Escalation.MORE_CYCLES, Escalation.STRONGER,
    ]  # fmt: skip
    assert {tried.verdict for tried in rounds} == {Verdict.FAIL}
    assert [tried.kept for tried in rounds].count(True) == 1
    assert (job.status, job.verdict) == (JobStatus.COMPLETED, Verdict.FAIL)
    assert (version.number, version.status) == (2, VersionStatus.CANDIDATE)
    assert request.status is RequestStatus.NEEDS_REVIEW
    assert request.finished_at is None
    with sync_sessions() as session:
        champion = session.scalars(
            select(ModelVersion).filter_by(model_id=model.id, status=VersionStatus.CHAMPION)
        ).one()
        assert champion.number == 1
        assert session.scalar(select(func.count(Tombstone.digest))) == 0
        keys = select(AlignmentScore.round, AlignmentScore.cycle).order_by(
            AlignmentScore.round, AlignmentScore.cycle
        )
        stored = session.execute(keys.filter_by(job_id=job.id)).all()
    assert {number for number, _ in stored} == {1, 2, 3}
    kept = reservoir.read(bench.store, champion.reservoir_sha256)["sample_id"].to_pylist()
    assert set(kept) & set(NAMED)


def test_a_candidate_does_not_stand_in_the_way_of_other_requests(
    registered, ask, outcome, sync_sessions
):
    model = registered(ruinous, escalation=[])
    unlearn_model(ask(model, *NAMED[:5]))

    bench = ask(model, *NAMED[5:10])
    unlearn_model(bench)

    _, version, _, _ = outcome(bench)
    assert (version.number, version.status) == (3, VersionStatus.CANDIDATE)
    with sync_sessions() as session:
        parents = session.scalars(
            select(ModelVersion.parent_id).where(ModelVersion.parent_id.is_not(None))
        )
        assert len(set(parents)) == 1


def test_the_last_step_is_a_training_with_the_recipe(registered, ask, outcome):
    bench = ask(registered(ruinous, recipe="learn"), *NAMED)

    unlearn_model(bench)

    job, version, request, rounds = outcome(bench)
    assert [tried.mode for tried in rounds] == [Mode.APPROXIMATE] * 3 + [Mode.EXACT]
    assert rounds[-1].step is Escalation.RETRAIN
    assert (job.mode, version.mode) == (Mode.EXACT, Mode.EXACT)
    assert job.verdict is not Verdict.FAIL
    assert version.status is VersionStatus.CHAMPION
    assert request.status is RequestStatus.COMPLETED


def test_a_round_that_breaks_off_is_stored_and_the_next_one_tried(registered, ask, outcome):
    model = registered(poisonous, recipe="learn")
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    job, _, _, rounds = outcome(bench)
    assert [tried.verdict for tried in rounds[:3]] == [Verdict.FAIL] * 3
    assert all("broke off" in tried.reason and tried.alpha is None for tried in rounds[:3])
    assert (rounds[3].step, rounds[3].kept) == (Escalation.RETRAIN, True)
    assert job.verdict is not Verdict.FAIL


def test_an_exact_request_is_trained_on_all_that_stays(
    registered, ask, outcome, sync_sessions, monkeypatch
):
    seen = []

    def remember(model, data, *, seed):
        seen.extend(tuple(data[index][0].tolist()) for index in range(len(data)))
        return learn(model, data, seed=seed)

    monkeypatch.setattr(sys.modules["toy_models"], "learn", remember)
    model = registered(flat_floats, recipe="learn")
    unlearn_model(ask(model, *NAMED[:5]))

    bench = ask(model, *NAMED[5:], exact=True)
    unlearn_model(bench)

    job, version, _, (tried,) = outcome(bench)
    assert (job.mode, tried.mode, version.mode) == (Mode.EXACT, Mode.EXACT, Mode.EXACT)
    assert job.config == {"recipe": "toy_models:learn", "seed": job.id.int % 2**31}
    assert "a request asks for it" in job.mode_reason
    staying = [n for n in range(COUNT) if PARTS[n] == "train" and f"digit-{n}" not in NAMED]
    assert sorted(seen) == sorted(tuple((PIXELS[n] / 16).astype(np.float32)) for n in staying)
    known = version_statistics.read(bench.store, version.statistics_sha256)
    assert int(known.class_counts.sum()) == known.moments.count == len(staying)


def test_one_exact_request_makes_the_job_exact_for_all_that_share_it(
    registered, ask, outcome, sync_sessions
):
    model = registered(flat_floats, recipe="learn")
    with sync_sessions.begin() as session:
        dataset = factories.dataset(id=model.dataset_id)
        other = factories.request(dataset)
        session.add(other)
        session.flush()
        session.add(factories.target(other, model))
        session.add_all(factories.request_samples(other, TRAIN[30]))

    bench = ask(model, *NAMED, exact=True)
    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    assert (job.mode, version.mode) == (Mode.EXACT, Mode.EXACT)
    with sync_sessions() as session:
        of_job = select(func.count()).where(DeletionTarget.job_id == job.id)
        assert session.scalar(of_job) == 2
    assert version.figures["drift"]["trained_on"] == len(TRAIN) - len(NAMED) - 1


def test_a_poor_recipe_gets_no_better_verdict(registered, ask, outcome):
    bench = ask(registered(flat_floats, recipe="learn_nothing"), *NAMED, exact=True)

    unlearn_model(bench)

    job, version, _, (tried,) = outcome(bench)
    assert job.verdict is Verdict.FAIL
    assert "accuracy" in tried.reason
    assert (version.status, version.mode) == (VersionStatus.CANDIDATE, Mode.EXACT)


def test_a_recipe_gives_back_the_network_it_was_given(registered, ask):
    model = registered(flat_floats, recipe="learn_as_another")

    with pytest.raises(JobError, match=r"learn_as_another.* another network"):
        unlearn_model(ask(model, *NAMED, exact=True))


MOST = TRAIN[: int(0.6 * len(TRAIN))]


def test_most_of_the_data_is_forgotten_by_training_anew(registered, ask, outcome):
    bench = ask(registered(flat_floats, recipe="learn"), *MOST)

    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    assert version.mode is Mode.EXACT
    assert "60%" in job.mode_reason


def test_without_a_recipe_most_of_the_data_cannot_be_forgotten(registered, ask):
    with pytest.raises(JobError, match=r"retraining is cheaper .* `recipe`"):
        unlearn_model(ask(registered(flat_floats), *MOST))


DRIFT = {"max_forgotten_share": 0.1, "max_accuracy_drop": 1.0}


def test_drift_adds_up_until_the_model_is_trained_anew(registered, ask, outcome):
    model = registered(flat_floats, recipe="learn", drift=DRIFT)
    versions = []
    for start in (0, 8, 16, 24):
        bench = ask(model, *TRAIN[start : start + 8])
        unlearn_model(bench)
        versions.append(outcome(bench)[1])

    forgotten = [(v.mode, v.figures["drift"]["forgotten"]) for v in versions]
    assert forgotten == [
        (Mode.APPROXIMATE, 8), (Mode.APPROXIMATE, 16), (Mode.EXACT, 0), (Mode.APPROXIMATE, 8),
    ]  # fmt: skip
    last = versions[-1].figures["drift"]
    assert (last["since_version"], last["trained_on"]) == (4, len(TRAIN) - 24)


def test_drift_without_a_recipe_is_said_with_the_result(registered, ask, outcome):
    bench = ask(registered(flat_floats, drift=DRIFT), *NAMED)

    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    assert version.mode is Mode.APPROXIMATE
    assert "beyond its policy's limits of drift" in job.mode_reason


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


def test_a_champion_that_was_replaced_meanwhile_sends_the_job_back(
    registered, ask, claim, outcome, sync_sessions
):
    class Promoted(Workbench):
        """Sees another version become the champion just before its end."""

        def report(self, phase, progress):
            super().report(phase, progress)
            if phase == "storing the new version":
                with sync_sessions.begin() as session:
                    candidate = session.scalars(select(ModelVersion).filter_by(number=2)).one()
                    old = session.scalars(select(ModelVersion).filter_by(number=1)).one()
                    forgetting.supersede(session, old, actor="api")
                    candidate.status = VersionStatus.CHAMPION

    model = registered(ruinous, escalation=[])
    unlearn_model(ask(model, *NAMED[:5]))
    bench = ask(model, *NAMED[5:10])
    fields = {f.name: getattr(bench, f.name) for f in dataclasses.fields(bench)}

    unlearn_model(Promoted(**fields))

    with sync_sessions() as session:
        job = session.get_one(Job, bench.claim.job_id)
        assert job.status is JobStatus.QUEUED
        assert session.scalar(select(func.count(ModelVersion.id))) == 2
    again = claim(model)
    unlearn_model(again)
    job, version, _, _ = outcome(again)
    assert (job.attempt, version.number) == (2, 3)


def test_what_reference_models_said_is_used_and_goes_with_the_samples(
    registered, ask, outcome, sync_sessions
):
    model = registered(flat_floats, escalation=[])
    with sync_sessions.begin() as session:
        job_id = session.scalars(select(Job.id).filter_by(kind=JobKind.REGISTER_MODEL)).one()
        session.add(
            ReferenceTables(model_id=model.id, job_id=job_id, models=4, recipe="toy_models:learn")
        )
        samples = session.scalars(select(Sample).filter_by(dataset_id=model.dataset_id)).all()
        for sample in samples:
            mean, std = 2.0 + sample.position % 3, 1.0
            session.add(
                MembershipStatistics(
                    model_id=model.id, sample_id=sample.sample_id, out_mean=mean, out_std=std
                )
            )
            if sample.split is Split.TRAIN:
                answer = np.full(10, 0.1, dtype="<f2").tobytes()
                session.add(
                    OutOfSamplePrediction(
                        model_id=model.id, sample_id=sample.sample_id, probabilities=answer
                    )
                )
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    with sync_sessions() as session:
        names = session.scalars(select(VerdictTest.name).filter_by(job_id=job.id, moment="after"))
        assert "membership_per_sample" in set(names)
        left = [
            set(session.scalars(select(table.sample_id)))
            for table in (OutOfSamplePrediction, MembershipStatistics)
        ]
    gone = set() if version.status is VersionStatus.CANDIDATE else set(NAMED)
    assert all(set(TRAIN) - names == gone for names in left)


def test_no_image_is_decoded_twice_in_a_job(registered, ask, outcome, monkeypatch):
    bench = ask(registered(encoded_images, escalation=[]), *NAMED)
    opened = []
    original = Image.open

    def counted(file, **how):
        opened.append(file.getvalue())
        return original(file, **how)

    monkeypatch.setattr(Image, "open", counted)
    unlearn_model(bench)

    _, version, _, _ = outcome(bench)
    kept = reservoir.read(bench.store, version.reservoir_sha256).num_rows
    assert len(opened) == len(set(opened)) == len(NAMED) + kept


def test_a_new_version_keeps_the_moments_of_its_own_features(registered, ask, outcome):
    model = registered(flat_floats, escalation=[])
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    _, version, _, _ = outcome(bench)
    module = perceptron()
    architectures.load_weights(module, bench.store.path(version.weights_sha256))
    network = Network(module, head="2", prepare=decode.preparer(model.preprocessing))
    kept = reservoir.read(bench.store, version.reservoir_sha256)
    retain = reservoir.samples(kept, Split.TRAIN, model.preprocessing, {"input_shape": [64]})
    known = version_statistics.read(bench.store, version.statistics_sha256)
    expected = retain_moments(Outputs.of(network, retain, 100), known.class_counts)
    assert known.moments.count == pytest.approx(len(TRAIN) - len(NAMED))
    torch.testing.assert_close(known.moments.mean, expected.mean)
    torch.testing.assert_close(known.moments.second, expected.second)
