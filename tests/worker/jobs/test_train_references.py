import numpy as np
import pyarrow as pa
import pytest
import torch
from sqlalchemy import func, select
from torch import nn

from domain.errors import JobError, LeaseLost
from domain.preprocessing import InputKind
from domain.states import JobKind, JobStatus, Split
from domain.tables import (
    AuditEvent,
    Dataset,
    Job,
    MembershipStatistics,
    OutOfSamplePrediction,
    ReferenceTables,
    Sample,
    Tombstone,
)
from tests import factories
from worker import budgets
from worker.data import decode, reference_tables, reservoir
from worker.data.source import open_source
from worker.jobs import train_references as train_references_module
from worker.jobs.index_dataset import index_dataset
from worker.jobs.train_references import train_references
from worker.networks import recipes
from worker.networks.recipes import TrainingData
from worker.store.artifacts import Store
from worker.unlearning.audit.verdict import scaled_confidence
from worker.unlearning.reference_models import Side, Summarised, halves

CLASSES = 3
ALLOWED = {
    "factories": ["toy_references:mlp"],
    "recipes": ["toy_references:quick", "toy_references:broken", "toy_references:exploding"],
}


def mlp() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU())
    model.add_module("head", nn.Linear(16, CLASSES))
    return model


def quick(model, data, *, seed):
    return model


def broken(model, data, *, seed):
    raise RuntimeError("out of luck")


def exploding(model, data, *, seed):
    nn.init.constant_(model.head.weight, torch.inf)
    return model


@pytest.fixture(autouse=True)
def modules(module_of) -> None:
    module_of("toy_references", mlp, quick, broken, exploding)


@pytest.fixture
def model(rows, write, register, bench_for, refreshed, sync_sessions, tmp_path):
    """A ready model, trained on 40 of 80 indexed samples; 20 are its hold-out. An earlier release
    made its version: there are no specimens in its reservoir."""
    kept = reservoir.write(Store(tmp_path / "store"), pa.table({"sample_id": ["person-0"]}))
    rng = np.random.default_rng(0)
    pixels = pa.array(rng.integers(0, 255, (80, 4)).tolist(), pa.list_(pa.uint8()))
    dataset = register(write(rows(80, pixels=pixels)))
    index_dataset(bench_for(dataset))

    def make(count: int, recipe: str | None = "toy_references:quick"):
        made = factories.model(
            dataset,
            recipe=recipe,
            architecture={"kind": "python", "factory": "toy_references:mlp"},
            policy={"reference_models": count},
        )
        job = factories.job(model_id=made.id, kind=JobKind.REGISTER_MODEL, finished=True)
        with sync_sessions.begin() as session:
            session.add(made)
            session.flush()
            session.add(job)
            session.flush()
            figures = {"classes": CLASSES}
            session.add(factories.version(made, job, figures=figures, reservoir_sha256=kept))
        return made

    return make


@pytest.fixture
def bench(bench_of):
    """A workbench with a claimed job that trains a model's references."""
    return lambda model: bench_of(Job(kind=JobKind.TRAIN_REFERENCES, model_id=model.id), **ALLOWED)


def ids(session, model, split: Split) -> list[str]:
    chosen = select(Sample.sample_id).filter_by(dataset_id=model.dataset_id, split=split)
    return list(session.scalars(chosen.order_by(Sample.position)))


def stored(session, table, model) -> set[str]:
    return set(session.scalars(select(table.sample_id).filter_by(model_id=model.id)))


def by_hand(bench, model, count, sync_sessions):
    """Every reference model's answers, (K, N, C) and (K, H, C), with labels and who saw what."""
    with sync_sessions.begin() as session:
        dataset = session.get_one(factories.Dataset, model.dataset_id)
        named = {
            split: session.execute(
                select(Sample.sample_id, Sample.position)
                .filter_by(dataset_id=dataset.id, split=split)
                .order_by(Sample.position)
            ).all()
            for split in (Split.TRAIN, Split.HOLDOUT)
        }
    source = open_source(bench, dataset)
    training, holdout = (decode.fetch(source, rows, {}) for rows in named.values())
    seed = bench.claim.job_id.int % 2**31
    generator = torch.Generator().manual_seed(seed)
    seen, shared_out = (
        halves(len(training), count, generator),
        halves(len(holdout), count, generator),
    )
    answers = []
    for index in range(count):
        data = TrainingData(training.select(seen[index]), decode.preparer({}, InputKind.PIXELS))
        trained = recipes.fresh(
            model.architecture, ALLOWED["factories"], recipes.DEFAULT, [], data,
            device=torch.device("cpu"), seed=seed + index,
        )  # fmt: skip
        with torch.no_grad():
            answers.append([trained(samples.inputs / 255) for samples in (training, holdout)])
    return answers, (training.labels, holdout.labels), (seen, shared_out)


@pytest.mark.parametrize("count", [2, 4])
def test_the_tables_hold_what_training_by_hand_gives(count, model, bench, sync_sessions):
    mine = model(count, recipe=None)
    at = bench(mine)

    train_references(at)

    answers, labels, (seen, shared_out) = by_hand(at, mine, count, sync_sessions)
    with sync_sessions.begin() as session:
        training = reference_tables.read(session, mine.id, ids(session, mine, Split.TRAIN))
        holdout = reference_tables.read(session, mine.id, ids(session, mine, Split.HOLDOUT))
    probabilities = torch.stack([of_training.softmax(1) for of_training, _ in answers])
    expected = (probabilities * ~seen[:, :, None]).sum(0) / (count / 2)
    assert torch.allclose(training.predictions, expected, atol=1e-3)
    scores = torch.stack([scaled_confidence(logits, labels[0]) for logits, _ in answers])
    assert torch.allclose(training.in_mean, (scores * seen).sum(0) / (count / 2), atol=1e-3)
    assert torch.allclose(training.out_mean, (scores * ~seen).sum(0) / (count / 2), atol=1e-3)
    scores = torch.stack([scaled_confidence(logits, labels[1]) for _, logits in answers])
    assert torch.allclose(holdout.out_mean, (scores * ~shared_out).sum(0) / (count / 2), atol=1e-3)
    assert holdout.predictions is None
    assert holdout.in_mean.isnan().all()
    assert training.out_std.min() > 0
    assert holdout.out_std.min() > 0


def test_samples_are_read_in_the_order_asked_for(model, bench, sync_sessions):
    mine = model(2)
    train_references(bench(mine))

    with sync_sessions.begin() as session:
        named = ids(session, mine, Split.TRAIN)
        forwards = reference_tables.read(session, mine.id, named)
        backwards = reference_tables.read(session, mine.id, named[::-1])

    assert torch.equal(forwards.predictions.flip(0), backwards.predictions)
    assert torch.equal(forwards.out_mean.flip(0), backwards.out_mean)
    assert torch.allclose(forwards.predictions.sum(1), torch.ones(len(named)))


def test_the_job_says_that_nothing_of_the_models_was_kept(model, bench, sync_sessions):
    mine = model(2)
    at = bench(mine)

    train_references(at)

    with sync_sessions.begin() as session:
        job = session.get_one(Job, at.claim.job_id)
        kept = session.get_one(ReferenceTables, mine.id)
        event = session.scalars(select(AuditEvent).filter_by(event="references.completed")).one()
        assert job.status is JobStatus.COMPLETED
        assert (kept.models, kept.recipe, kept.job_id) == (2, mine.recipe, job.id)
        assert event.data["reference_models_kept"] == 0
        assert event.data["models"] == 2
        assert event.data["samples"] == 60
    assert len([*at.store.root.rglob("objects/*/*")]) == 1  # the version's reservoir, as before


def test_nothing_is_read_before_the_tables_are_complete(model, bench, sync_sessions):
    mine = model(2)

    with sync_sessions.begin() as session:
        named = ids(session, mine, Split.TRAIN)
        assert reference_tables.read(session, mine.id, named) is None
    train_references(bench(mine))
    with sync_sessions.begin() as session:
        assert reference_tables.read(session, mine.id, named) is not None
        assert reference_tables.read(session, mine.id, [*named, "nobody"]) is None
        assert reference_tables.read(session, mine.id, []) is None


def test_samples_forgotten_meanwhile_get_no_rows(model, bench, sync_sessions, monkeypatch):
    mine = model(2)
    at = bench(mine)
    with sync_sessions.begin() as session:
        before, meanwhile = ids(session, mine, Split.TRAIN)[:2]
        key = session.get_one(Dataset, mine.dataset_id).tombstone_key
        job = session.get_one(Job, at.claim.job_id)
        session.add(factories.tombstone(mine, job, before, key=key))
    fresh = recipes.fresh

    def forgetting(*args, **kwargs):
        with sync_sessions.begin() as session:
            grave = factories.tombstone(mine, job, meanwhile, key=key)
            if not session.get(Tombstone, (mine.id, grave.digest)):
                session.add(grave)
        return fresh(*args, **kwargs)

    monkeypatch.setattr(recipes, "fresh", forgetting)
    train_references(at)

    with sync_sessions.begin() as session:
        for table, count in ((OutOfSamplePrediction, 38), (MembershipStatistics, 58)):
            assert len(stored(session, table, mine)) == count
            assert not stored(session, table, mine) & {before, meanwhile}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("broken", r"recipe 'toy_references:broken' raised RuntimeError: out of luck"),
        ("exploding", r"'toy_references:exploding' trained raised NotFinite"),
    ],
)
def test_a_failing_recipe_is_named_and_leaves_nothing(recipe, message, model, bench, sync_sessions):
    mine = model(2, recipe=f"toy_references:{recipe}")

    with pytest.raises(JobError, match=message):
        train_references(bench(mine))

    with sync_sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(ReferenceTables)) == 0
        assert not stored(session, MembershipStatistics, mine)


def test_a_worker_that_lost_the_job_stores_nothing(model, bench, sync_sessions, monkeypatch):
    mine = model(2)
    at = bench(mine)
    fresh = recipes.fresh

    def too_long(*args, **kwargs):
        with sync_sessions.begin() as session:
            session.get_one(Job, at.claim.job_id).attempt += 1
        return fresh(*args, **kwargs)

    monkeypatch.setattr(recipes, "fresh", too_long)
    with pytest.raises(LeaseLost):
        train_references(at)

    with sync_sessions.begin() as session:
        assert not stored(session, OutOfSamplePrediction, mine)
        assert session.get(ReferenceTables, mine.id) is None


def test_what_each_model_says_is_kept_and_who_knew_the_sample(model, bench, sync_sessions):
    mine = model(2, recipe=None)
    at = bench(mine)

    train_references(at)

    answers, labels, (seen, _) = by_hand(at, mine, 2, sync_sessions)
    with sync_sessions.begin() as session:
        training = reference_tables.read(session, mine.id, ids(session, mine, Split.TRAIN))
        holdout = reference_tables.read(session, mine.id, ids(session, mine, Split.HOLDOUT))
    known = reference_tables.scores(training, holdout)
    for model_number, (of_training, of_holdout) in enumerate(answers):
        said = scaled_confidence(of_training, labels[0])
        assert torch.allclose(known.forget_scores[model_number], said, atol=1e-3)
        said = scaled_confidence(of_holdout, labels[1])
        assert torch.allclose(known.holdout_scores[model_number], said, atol=1e-3)
    assert torch.equal(known.forget_seen, seen)
    assert not holdout.seen.any()


def test_rows_of_older_releases_have_no_single_scores(model, bench, sync_sessions):
    mine = model(2)
    train_references(bench(mine))
    with sync_sessions.begin() as session:
        named = ids(session, mine, Split.TRAIN)
        row = session.get_one(MembershipStatistics, (mine.id, named[3]))
        row.scores = row.seen_by = None

    with sync_sessions.begin() as session:
        some = reference_tables.read(session, mine.id, named[:3])
        all_ = reference_tables.read(session, mine.id, named)

    assert some.scores.shape == (2, 3)
    assert reference_tables.scores(all_, all_).forget_scores is None
    assert all_.seen is None
    assert torch.equal(all_.out_mean[:3], some.out_mean)


def test_too_many_scores_are_not_kept_and_the_event_says_so(
    model, bench, sync_sessions, monkeypatch
):
    monkeypatch.setattr(budgets, "SCORES_BYTES", 4 * 2 * 60 - 1)
    mine = model(2)

    train_references(bench(mine))

    with sync_sessions.begin() as session:
        event = session.scalars(select(AuditEvent).filter_by(event="references.completed")).one()
        known = reference_tables.read(session, mine.id, ids(session, mine, Split.TRAIN))
    assert event.data["scores_kept"] is False
    assert known.scores is None


def test_a_model_has_seen_all_of_a_group_or_nothing(model, bench, sync_sessions):
    mine = model(4)
    with sync_sessions.begin() as session:
        samples = session.scalars(select(Sample).filter_by(dataset_id=mine.dataset_id)).all()
        for sample in samples:
            if sample.split is Split.TRAIN:
                sample.group_digest = bytes([sample.position // 16])  # five groups of eight

    train_references(bench(mine))

    with sync_sessions.begin() as session:
        named = ids(session, mine, Split.TRAIN)
        seen = reference_tables.read(session, mine.id, named).seen
        event = session.scalars(select(AuditEvent).filter_by(event="references.completed")).one()
    for first in range(0, 40, 8):
        assert seen[:, first : first + 8].unique(dim=1).shape[1] == 1
    assert seen.sum(0).tolist() == [2] * 40
    assert event.data["groups"] == 5


def test_one_group_alone_cannot_be_halved(model, bench, sync_sessions):
    mine = model(2)
    with sync_sessions.begin() as session:
        for sample in session.scalars(select(Sample).filter_by(dataset_id=mine.dataset_id)):
            if sample.split is Split.TRAIN:
                sample.group_digest = b"all"

    with pytest.raises(JobError, match="all belong to one group"):
        train_references(bench(mine))

    with sync_sessions.begin() as session:
        assert not stored(session, MembershipStatistics, mine)


def test_the_64th_model_is_the_sign(session, model):
    mine = model(2)
    scores = torch.arange(128.0).reshape(2, 64)
    side = Side(torch.zeros(2), torch.ones(2))
    said = Summarised(torch.ones(2, 1), side, side, Side(torch.zeros(0), torch.zeros(0)),
                      scores, torch.zeros(0, 64))  # fmt: skip
    seen = torch.zeros(64, 2, dtype=torch.bool)
    seen[0, 0] = seen[63, 0] = seen[62, 1] = True

    reference_tables.write(session, mine.id, said, seen, training=["a", "b"], holdout=[])
    job = session.scalars(select(Job).filter_by(model_id=mine.id)).one()
    session.add(ReferenceTables(model_id=mine.id, job_id=job.id, models=64, recipe="any"))
    session.flush()

    known = reference_tables.read(session, mine.id, ["b", "a"])
    assert torch.equal(known.seen, seen[:, [1, 0]])
    assert torch.equal(known.scores, scores.T[:, [1, 0]].double())


def test_the_training_for_what_a_model_was_before_is_given_up(model, sync_sessions):
    mine = model(2)
    with sync_sessions.begin() as session:
        for _ in range(2):
            train_references_module.queue(session, mine)

        before, after = session.scalars(
            select(Job).filter_by(kind=JobKind.TRAIN_REFERENCES).order_by(Job.created_at, Job.id)
        ).all()
    assert (before.status, after.status) == (JobStatus.CANCELLED, JobStatus.QUEUED)
