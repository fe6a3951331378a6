"""A job compares what the network gets and answers with what it was, before it trains anything."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sqlalchemy import select
from torch import nn

from domain import objects
from domain.errors import JobError
from domain.states import Split, VersionStatus
from domain.tables import AlignmentScore, Evaluation, ModelVersion, Sample
from tests.worker.jobs.unlearn.digit_models import NAMED, flat_floats, perceptron
from worker.data import reservoir, specimens
from worker.jobs.unlearn import job as unlearning
from worker.jobs.unlearn.job import unlearn_model


def champion_of(sync_sessions, model):
    with sync_sessions() as session:
        chosen = select(ModelVersion).filter_by(model_id=model.id, status=VersionStatus.CHAMPION)
        return session.scalars(chosen).one()


def kept_by(bench, version):
    return reservoir.read(bench.store, version.reservoir_sha256)


def rewritten(tmp_path, pixels):
    """The dataset's file with the same rows, and these inputs in place of theirs."""
    path = tmp_path / "data" / "data.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("pixels")
    values = torch.tensor(table["pixels"].to_pylist())
    pq.write_table(
        table.set_column(
            place, "pixels", pa.array(pixels(values).tolist(), pa.list_(pa.float32()))
        ),
        path,
    )


def test_a_job_says_how_many_it_compared_and_the_new_version_has_its_own(
    registered, ask, outcome, sync_sessions
):
    bench = ask(registered(flat_floats, escalation=[]), *NAMED)

    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    with sync_sessions() as session:
        before = session.get_one(Evaluation, (job.id, "before"))
        first = session.scalars(select(ModelVersion).filter_by(number=1)).one()
    assert before.figures["specimens_compared"] == 10
    old, new = (specimens.of_table(kept_by(bench, each)) for each in (first, version))
    assert old["sample_id"].equals(new["sample_id"])
    assert torch.equal(specimens.inputs_of(old), specimens.inputs_of(new))
    assert not torch.equal(specimens.answers_of(old), specimens.answers_of(new))


def test_inputs_that_changed_in_the_files_fail_the_job_before_anything_is_trained(
    registered, ask, sync_sessions, tmp_path
):
    model = registered(flat_floats)
    bench = ask(model, *NAMED)
    rewritten(tmp_path, lambda pixels: pixels.view(-1, 8, 8).transpose(1, 2).reshape(-1, 64))

    with pytest.raises(JobError, match="the dataset's files have the same sample ids"):
        unlearn_model(bench)

    with sync_sessions() as session:
        assert not session.scalars(select(AlignmentScore)).all()
    assert champion_of(sync_sessions, model).number == 1


def test_code_that_changed_fails_the_job_before_anything_is_trained(
    registered, ask, module_of, sync_sessions
):
    def swaps_two_classes() -> nn.Module:
        model = perceptron()
        order = [1, 0, *range(2, 10)]
        model.register_forward_hook(lambda module, args, logits: logits[:, order])
        return model

    model = registered(flat_floats)
    bench = ask(model, *NAMED)
    swaps_two_classes.__name__ = "perceptron"
    module_of("toy_models", swaps_two_classes)

    with pytest.raises(JobError, match="answers 10 sample inputs otherwise"):
        unlearn_model(bench)

    assert champion_of(sync_sessions, model).number == 1


def test_the_next_job_compares_with_the_version_it_starts_from(registered, ask, outcome):
    model = registered(flat_floats)
    unlearn_model(ask(model, *NAMED[:5]))

    unlearn_model(bench := ask(model, *NAMED[5:10]))

    assert outcome(bench)[1].number == 3


def test_a_version_of_an_earlier_release_has_none_and_the_next_one_has(
    registered, ask, outcome, sync_sessions
):
    bench = ask(registered(flat_floats, escalation=[]), *NAMED)
    with sync_sessions.begin() as session:
        first = session.scalars(select(ModelVersion).filter_by(number=1)).one()
        kept = kept_by(bench, first).select(["sample_id", "input", "label", "split"])
        first.reservoir_sha256 = reservoir.write(bench.store, kept)

    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    with sync_sessions() as session:
        before = session.get_one(Evaluation, (job.id, "before"))
    assert before.figures["specimens_compared"] == 0
    assert len(specimens.of_table(kept_by(bench, version))) == 10


def test_a_forgotten_holdout_sample_leaves_specimens_and_picture(
    registered, ask, sync_sessions, monkeypatch
):
    """No training sample is named: the champion stays, with another reservoir."""
    model = registered(flat_floats)
    first = champion_of(sync_sessions, model)
    with sync_sessions() as session:
        named = session.scalars(
            select(Sample.sample_id)
            .where(Sample.dataset_id == model.dataset_id, Sample.split != Split.TRAIN)
            .order_by(Sample.position)
            .limit(1)
        ).one()
    monkeypatch.setattr(unlearning, "load_champion", None)
    bench = ask(model, named)
    before = specimens.of_table(kept_by(bench, first))
    assert named in before["sample_id"].to_pylist()
    old = objects.beside(bench.store.root, first.reservoir_sha256, objects.PREVIEW_FIGURES)
    assert old.is_file()

    unlearn_model(bench)

    now = champion_of(sync_sessions, model)
    after = specimens.of_table(kept_by(bench, now))
    assert named not in after["sample_id"].to_pylist()
    assert len(after) == len(before) - 1
    assert objects.beside(
        bench.store.root, now.reservoir_sha256, objects.PREVIEW_FIGURES
    ).is_file()  # fmt: skip
    assert not [*old.parent.glob(f"{first.reservoir_sha256}*")]
