"""A dataset's next state: only what is different changes, and models stay with what they know."""

import pyarrow as pa
import pytest
from sqlalchemy import func, select, update

from domain import former, jobs, requests
from domain.errors import JobError
from domain.states import JobKind, RegistrationStatus, RequestStatus
from domain.tables import (
    AuditEvent,
    Dataset,
    DatasetState,
    DeletionTarget,
    FormerSample,
    Job,
    Model,
    Sample,
)
from tests import factories
from worker.data.content import ContentDigests
from worker.housekeeping import planner
from worker.jobs.index_dataset import index_dataset
from worker.jobs.index_state import index_state
from worker.jobs.unlearn.inputs import read_order


@pytest.fixture
def dataset(rows, write, register, bench_for, refreshed):
    """Twelve rows, indexed: `person-0` to `person-11`, every second one for training."""
    dataset = register(write(rows()))
    index_dataset(bench_for(dataset))
    return refreshed(dataset)


@pytest.fixture
def model(dataset, sync_sessions):
    with sync_sessions.begin() as session:
        model = factories.model(dataset)
        session.add(model)
    return model


@pytest.fixture
def state(dataset, sync_sessions, bench_of):
    """A workbench for the job that reads this state."""

    def make(path, **columns):
        with sync_sessions.begin() as session:
            job = jobs.queue(session, JobKind.INDEX_STATE, actor="api", dataset_id=dataset.id)
            wanted = {
                "dataset_id": dataset.id, "job_id": job.id, "idempotency_key": str(job.id),
                "fingerprint": "f", "uri": str(path), "refuse_suppressed": False,
            }  # fmt: skip
            session.add(DatasetState(**wanted | columns))
        return bench_of(job.id)

    return make


@pytest.fixture
def found(sync_sessions):
    def read(bench):
        with sync_sessions() as session:
            return session.scalars(select(DatasetState).filter_by(job_id=bench.claim.job_id)).one()

    return read


def samples(sessions, dataset):
    with sessions() as session:
        rows = session.scalars(select(Sample).filter_by(dataset_id=dataset.id))
        return {row.sample_id: row for row in rows}


def next_state(rows):
    """`person-0` is gone, `person-1` has another input, `person-2` another label; two came."""
    later = rows(14)
    pixels = later["pixels"].to_pylist()
    pixels[1], labels = [9] * 4, list(later["digit"])
    labels[2] += 1
    return {
        "id": later["id"][1:], "pixels": pa.array(pixels[1:], pa.list_(pa.uint8())),
        "digit": labels[1:], "part": later["part"][1:],
    }  # fmt: skip


def test_only_what_is_different_changes(
    dataset, model, rows, write, state, found, sync_sessions, refreshed
):
    before = samples(sync_sessions, dataset)
    path = write(next_state(rows), "later.parquet")
    bench = state(path)

    index_state(bench)

    read = found(bench)
    assert (read.status, read.number) == (RegistrationStatus.READY, 2)
    assert read.found == {
        "added": 2, "removed": 1, "changed": 2, "unchanged": 9, "unknown": 0, "regrouped": 0,
        "suppressed_returned": 0, "suppressed_still_there": 0, "still_known": {"cnn": 2},
    }  # fmt: skip
    now = refreshed(dataset)
    assert (now.state, now.uri, now.status) == (2, str(path), RegistrationStatus.READY)
    assert now.report["samples"] == {"train": 7, "holdout": 3, "test": 3}
    after = samples(sync_sessions, dataset)
    assert after.keys() == {f"person-{n}" for n in range(1, 14)}
    assert {name for name, row in after.items() if row.since == 2} == {
        "person-1", "person-2", "person-12", "person-13",
    }  # fmt: skip
    assert after["person-5"].content == before["person-5"].content
    assert after["person-1"].content != before["person-1"].content
    assert [after[f"person-{n}"].position for n in (1, 5, 13)] == [0, 4, 12]
    with sync_sessions() as session:
        gone = session.execute(
            select(FormerSample.sample_id, FormerSample.since, FormerSample.removed_in)
        ).all()
        [told] = session.scalars(
            select(AuditEvent.data).filter_by(event="dataset.state_indexed")
        ).all()
    assert sorted(gone) == [("person-0", 1, 2), ("person-1", 1, 2)]
    assert (told["state"], told["still_known"]) == (2, 2)


def test_the_same_rows_in_another_order_change_nothing_but_positions(
    dataset, rows, write, state, found, sync_sessions
):
    columns = rows()
    turned = {name: pa.array(column)[::-1] for name, column in columns.items()}
    bench = state(write(turned, "turned.parquet", row_group_size=5))

    index_state(bench)

    assert found(bench).found["unchanged"] == 12
    after = samples(sync_sessions, dataset)
    assert [after[f"person-{n}"].position for n in (0, 11)] == [11, 0]
    assert {row.since for row in after.values()} == {1}


def test_what_an_older_release_indexed_is_compared_by_label_and_split(
    dataset, rows, write, state, found, sync_sessions
):
    with sync_sessions.begin() as session:
        session.execute(update(Sample).values(content=None))
    bench = state(write(next_state(rows), "later.parquet"))

    index_state(bench)

    read = found(bench).found
    assert (read["unknown"], read["changed"], read["unchanged"]) == (10, 1, 0)
    assert all(row.content for row in samples(sync_sessions, dataset).values())


def test_suppressed_samples_that_come_back_are_counted_or_refused(
    dataset, model, rows, write, state, found, sync_sessions, refreshed
):
    with sync_sessions.begin() as session:
        job = factories.job(model_id=model.id, finished=True)
        key = dataset.tombstone_key
        session.add(job)
        session.flush()
        names = ("person-12", "person-1")
        session.add_all(factories.tombstone(model, job, each, key=key) for each in names)
    path = write(next_state(rows), "later.parquet")
    refused = state(path, refuse_suppressed=True)
    with pytest.raises(JobError, match="1 samples come back") as caught:
        index_state(refused)
    with sync_sessions.begin() as session:
        job = session.get_one(Job, refused.claim.job_id)
        jobs.fail(session, job, actor="worker", kind="input", reason=str(caught.value))
    assert found(refused).status is RegistrationStatus.FAILED
    assert (refreshed(dataset).state, refreshed(dataset).status) == (1, RegistrationStatus.READY)

    bench = state(path)
    index_state(bench)

    read = found(bench).found
    assert (read["suppressed_returned"], read["suppressed_still_there"]) == (1, 1)
    assert read["still_known"] == {"cnn": 1}  # person-1 is forgotten


def test_bad_rows_leave_the_dataset_as_it_was(
    dataset, rows, write, state, sync_sessions, refreshed
):
    before = samples(sync_sessions, dataset).keys()
    bench = state(write(rows(3, part=["train", "nonsense", "valid"]), "bad.parquet"))

    with pytest.raises(JobError, match="stays as it was"):
        index_state(bench)

    assert samples(sync_sessions, dataset).keys() == before
    assert refreshed(dataset).state == 1


def test_requests_for_what_is_gone_wait_for_a_version_of_a_later_state(
    dataset, model, rows, write, state, sync_sessions
):
    with sync_sessions.begin() as session:
        session.add(job := factories.job(model_id=model.id, objective="untrain_samples"))
        session.flush()
        champion = factories.job(model_id=model.id, finished=True)
        session.add(champion)
        session.flush()
        session.add(factories.version(model, champion))
        asked = {}
        for name in ("person-0", "person-4"):
            request = factories.request(dataset, status=RequestStatus.SCHEDULED)
            session.add(request)
            session.flush()
            session.add(
                factories.target(request, model, status=RequestStatus.SCHEDULED, job_id=job.id)
            )
            session.add_all(factories.request_samples(request, name, "person-12"))
            asked[name] = request.id

    index_state(state(write(next_state(rows), "later.parquet")))

    def targets():
        with sync_sessions.begin() as session:
            planner.plan(session)
        with sync_sessions() as session:
            rows = session.scalars(select(DeletionTarget)).all()
        return {row.request_id: (row.status, row.former, row.job_id) for row in rows}

    assert targets() == {
        asked["person-0"]: (RequestStatus.PENDING, 1, None),
        asked["person-4"]: (RequestStatus.SCHEDULED, 0, job.id),
    }
    with sync_sessions() as session:
        order = read_order(session, job.id)
    assert (order.forget_ids, order.outside) == (["person-4"], {"person-12"})
    with sync_sessions.begin() as session:  # as a version does that was trained on state 2
        session.execute(update(Model).values(state=2))
        requests.hold_planner(session)
        assert former.settle(session, dataset.id) == {}
    assert targets()[asked["person-0"]][:2] == (RequestStatus.SCHEDULED, 0)
    with sync_sessions() as session:
        assert session.scalar(select(func.count()).select_from(FormerSample)) == 0
        assert session.get_one(Dataset, dataset.id).state == 2


def test_what_comes_back_as_it_was_is_known_as_before(
    dataset, model, rows, write, state, found, sync_sessions
):
    index_state(state(write(next_state(rows), "later.parquet")))

    bench = state(write(rows(), "again.parquet"))
    index_state(bench)

    read = found(bench).found
    assert (read["added"], read["removed"], read["changed"]) == (1, 2, 2)
    assert read["still_known"] == {"cnn": 1}  # person-1, of which nobody knows what it was in 1
    after = samples(sync_sessions, dataset)
    assert (after["person-0"].since, after["person-1"].since) == (1, 3)
    with sync_sessions() as session:
        left = session.execute(select(FormerSample.sample_id, FormerSample.content)).all()
    assert sorted(name for name, _ in left) == ["person-1", "person-12", "person-13"]


INPUTS = {
    "lists": pa.array([[1.0, -0.0], [float("nan")], []], pa.large_list(pa.float32())),
    "bytes": pa.array([b"ab", b"", b"c"], pa.large_binary()),
    "structs": pa.array(
        [{"ids": [1], "mask": [2, 3]}, {"ids": [1, 2], "mask": [3]}, {"ids": [], "mask": []}],
        pa.struct([("ids", pa.large_list(pa.int64())), ("mask", pa.large_list(pa.int64()))]),
    ),
}


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_a_digest_is_of_what_a_sample_consists_of_wherever_it_stands(inputs):
    made = ContentDigests(b"key")
    labels, splits = pa.array([1, 1, 1]), pa.array(["train"] * 3)

    found = made.of(inputs, labels, splits).to_pylist()

    assert len({*found}) == 3
    apart = [made.of(inputs[n:], labels[n:], splits[n:]).to_pylist()[0] for n in range(len(inputs))]
    assert apart == found
    assert made.of(inputs, pa.array([2, 1, 1]), splits).to_pylist()[0] != found[0]
    assert made.of(inputs, labels, pa.array(["test"] * 3)).to_pylist()[0] != found[0]
    assert ContentDigests(b"other").of(inputs, labels, splits).to_pylist()[0] != found[0]
