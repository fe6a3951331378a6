import json
import os
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sqlalchemy import select, text

from domain.errors import JobError, LeaseLost
from domain.states import JobStatus, RegistrationStatus, Split
from domain.tables import AuditEvent, Job, Sample
from worker.data import staging
from worker.engine import lease
from worker.jobs.index_dataset import index_dataset


@pytest.fixture
def index(bench_for, refreshed):
    """Run the job on a dataset; the dataset and the job as they are afterwards."""

    def run(dataset):
        bench = bench_for(dataset)
        index_dataset(bench)
        for attempt in bench.transaction():
            with attempt as session:
                job = session.get_one(Job, bench.claim.job_id, populate_existing=True)
        return refreshed(dataset), job

    return run


@pytest.fixture
def samples(sync_sessions):
    """The stored samples of a dataset, in the order of their positions."""

    def read(dataset):
        with sync_sessions.begin() as session:
            return session.execute(
                select(Sample.sample_id, Sample.position, Sample.label, Sample.split)
                .filter_by(dataset_id=dataset.id)
                .order_by(Sample.position)
            ).all()

    return read


def test_a_sound_dataset_becomes_ready(rows, write, register, index, samples, sync_sessions):
    dataset, job = index(register(write(rows(12), row_group_size=5)))

    assert (dataset.status, job.status) == (RegistrationStatus.READY, JobStatus.COMPLETED)
    assert dataset.ready_at is not None
    assert dataset.report == {
        "rows": 12,
        "samples": {"train": 6, "holdout": 3, "test": 3},
        "classes": 3,
        "labels": {
            "train": {"0": 2, "1": 2, "2": 2},
            "holdout": {"0": 1, "1": 1, "2": 1},
            "test": {"0": 1, "1": 1, "2": 1},
        },
        "bad_rows": {},
        "inputs": {"type": "uint8", "lowest": [0], "highest": [11]},
        "files": {
            "found": 1,
            "left_out": 0,
            "names": ["data.parquet"],
            "names_left_out": [],
        },
        "suppressed": {},
    }
    assert samples(dataset)[2] == ("person-2", 2, 2, Split.HOLDOUT)
    assert [position for _, position, _, _ in samples(dataset)] == list(range(12))
    with sync_sessions.begin() as session:
        event = session.scalars(select(AuditEvent).filter_by(event="dataset.indexed")).one()
    assert event.subject_id == dataset.id
    assert event.data == {
        "rows": 12, "bad_rows": 0,
        "suppressed": 0, "samples": {"train": 6, "holdout": 3, "test": 3},
    }  # fmt: skip


def test_any_text_is_an_id(rows, write, register, index, samples):
    names = [
        "a,b", 'q"uote', "line\nbreak", "tab\tstop", "back\\slash", "\\.", "dot\n\\.\ndot",
        "\\N", "NULL", " spaces ", "日本", "🙂",
    ]  # fmt: skip
    dataset, _ = index(register(write(rows(12, id=names))))

    assert [name for name, *_ in samples(dataset)] == names


def test_integers_are_ids_and_splits_as_well(rows, write, register, index, samples, definition):
    splits = {"train": 0, "holdout": 1, "test": None}
    columns = rows(4, id=[10, 11, 12, 13], part=[0, 0, 1, 1])
    dataset, _ = index(register(write(columns), definition={**definition, "splits": splits}))

    assert samples(dataset)[3] == ("13", 3, 0, Split.HOLDOUT)


def bad_columns() -> dict:
    """Twenty rows, the first eleven of which are bad."""
    ids: list[str | None] = [f"person-{n}" for n in range(20)]
    ids[:5] = [None, "", "x" * 513, "nul\0", "person-19"]
    labels: list[int | None] = [n % 3 for n in range(20)]
    labels[5:8] = [None, -1, 2**31]
    parts: list[str | None] = [["train", "valid"][n % 2] for n in range(20)]
    parts[8:10] = [None, "unheard-of"]
    pixels: list[list[int] | None] = [[n] * 4 for n in range(20)]
    pixels[10] = [1, 2, 3]
    return {
        "id": ids, "digit": labels, "part": parts,
        "pixels": pa.array(pixels, pa.list_(pa.uint8())),
    }  # fmt: skip


def test_bad_rows_are_counted_with_examples_and_refused(write, register, index, samples):
    dataset, job = index(register(write(bad_columns())))

    assert (dataset.status, job.status) == (RegistrationStatus.FAILED, JobStatus.FAILED)
    assert job.failure["kind"] == "input"
    assert job.failure["reason"] == dataset.failure
    assert dataset.failure.startswith("12 of 20 rows are bad (2 sample id missing, ")
    assert 'bad_rows "skip"' in dataset.failure
    bad = dataset.report["bad_rows"]
    assert {kind: found["count"] for kind, found in bad.items()} == {
        "sample_id_missing": 2,
        "sample_id_too_long": 1,
        "sample_id_invalid": 1,
        "sample_id_duplicate": 2,
        "label_missing": 1,
        "label_out_of_range": 2,
        "split_unknown": 2,
        "input_wrong_length": 1,
    }
    assert bad["sample_id_duplicate"]["examples"] == [
        {"row": 4}, {"row": 19},
    ]  # fmt: skip
    assert bad["label_missing"]["examples"] == [{"row": 5}]
    assert "person-" not in json.dumps([dataset.report, job.failure])
    assert bad["sample_id_missing"]["examples"][0] == {"row": 0}
    assert samples(dataset) == []


def test_bad_rows_are_left_out_when_asked(write, register, index, samples, definition):
    path = write(bad_columns())
    dataset, job = index(register(path, definition={**definition, "bad_rows": "skip"}))

    assert job.status is JobStatus.COMPLETED
    assert [position for _, position, _, _ in samples(dataset)] == list(range(11, 19))
    assert dataset.report["samples"] == {"train": 4, "holdout": 4, "test": 0}


def test_an_id_shared_with_a_bad_row_is_ambiguous(
    rows, write, register, index, samples, definition
):
    columns = rows(12, id=["twice", "twice", *(f"p{n}" for n in range(10))])
    columns["digit"][0] = -1
    path = write(columns)
    dataset, _ = index(register(path, definition={**definition, "bad_rows": "skip"}))

    assert len(samples(dataset)) == 10
    assert dataset.report["bad_rows"]["sample_id_duplicate"]["count"] == 2


def test_duplicates_are_found_across_files(rows, write, register, index):
    write(rows(4), "a.parquet")
    dataset, _ = index(register(write(rows(5), "b.parquet").parent))

    assert dataset.failure.startswith("8 of 9 rows are bad (8 sample id duplicate)")


def test_samples_are_stored_in_the_order_of_their_ids(rows, write, register, index, sync_sessions):
    """Or each would hit a page of the primary key at random, and a million take twice as long."""
    dataset, _ = index(register(write(rows(40))))

    with sync_sessions.begin() as session:
        stored = session.scalars(
            select(Sample.sample_id).filter_by(dataset_id=dataset.id).order_by(text("ctid"))
        ).all()
    assert stored == sorted(f"person-{row}" for row in range(40))


def test_nothing_is_checked_row_by_row_as_samples_are_stored(sync_sessions):
    """A foreign key is a trigger for each row: half of the time that storing a million takes."""
    with sync_sessions.begin() as session:
        triggers = text("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'samples'::regclass")
        assert session.scalar(triggers) == 0


def test_duplicates_are_looked_for_only_where_there_are_any(
    rows, write, register, index, samples, definition, monkeypatch
):
    looked = []
    find = staging.find_duplicates
    monkeypatch.setattr(staging, "find_duplicates", lambda *given: looked.append(1) or find(*given))

    sound, _ = index(register(write(rows(12), "sound.parquet")))
    assert not looked
    ids = [f"person-{row % 11}" for row in range(12)]
    path = write(rows(12, id=ids), "twice.parquet")
    twice, job = index(register(path, definition=definition | {"bad_rows": "skip"}))

    assert (len(samples(sound)), looked, job.status) == (12, [1], JobStatus.COMPLETED)
    assert [position for _, position, _, _ in samples(twice)] == list(range(1, 11))


def test_at_most_ten_examples_of_a_kind_are_kept(rows, write, register, index):
    dataset, _ = index(register(write(rows(40, digit=[-1] * 40), row_group_size=7)))

    found = dataset.report["bad_rows"]["label_out_of_range"]
    assert found["count"] == 40
    assert [example["row"] for example in found["examples"]] == list(range(10))


def test_ids_that_are_not_utf8_are_bad_rows(rows, write, register, index):
    offsets = pa.py_buffer(np.array([0, 2, 4, 6, 8], dtype=np.int32).tobytes())
    ids = pa.Array.from_buffers(pa.string(), 4, [None, offsets, pa.py_buffer(b"a1\xff\xfea3a4")])
    dataset, _ = index(register(write(rows(4, id=ids))))

    assert dataset.report["bad_rows"]["sample_id_invalid"] == {
        "count": 1, "examples": [{"row": 1}],
    }  # fmt: skip


def test_every_image_is_decoded(rows, write, register, index, definition):
    file = BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(file, "JPEG")
    pictures = [file.getvalue()] * 8
    pictures[3] = pictures[3][:-30]
    images = pa.array([{"bytes": picture, "path": None} for picture in pictures])
    dataset, _ = index(
        register(
            write(rows(8, pixels=images)),
            definition={**definition, "kind": "image", "input_shape": None},
        )
    )

    assert dataset.report["bad_rows"]["input_undecodable"]["examples"] == [{"row": 3}]


def test_without_a_shape_all_arrays_are_as_long_as_the_first(
    rows, write, register, index, definition
):
    pixels = pa.array([None, *([[1, 2]] * 9), [1, 2, 3], [1, 2]], pa.list_(pa.int32()))
    path = write(rows(12, pixels=pixels), row_group_size=4)
    dataset, _ = index(
        register(path, definition={**definition, "kind": "tokens", "input_shape": None})
    )

    assert dataset.report["bad_rows"]["input_missing"]["examples"][0]["row"] == 0
    assert dataset.report["bad_rows"]["input_wrong_length"]["examples"][0]["row"] == 10
    assert "Correct them, by padding sequences to one length, or" in dataset.failure


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["train"] * 4, "No usable row is in the split holdout;"),
        (["test"] * 4, "No usable row is in the split train and holdout;"),
        ([], "No usable row is in the split train and holdout;"),
    ],
)
def test_training_and_holdout_samples_are_needed(write, register, index, samples, parts, message):
    columns = {
        "id": pa.array([f"p{n}" for n in range(len(parts))], pa.string()),
        "pixels": pa.array([[0] * 4] * len(parts), pa.list_(pa.uint8())),
        "digit": pa.array([0] * len(parts), pa.int64()),
        "part": pa.array(parts, pa.string()),
    }
    dataset, job = index(register(write(columns)))

    assert job.status is JobStatus.FAILED
    assert dataset.failure.startswith(message)
    assert dataset.report["rows"] == len(parts)
    assert not samples(dataset)


def test_indexing_again_replaces_what_was_there(
    rows, write, register, index, samples, sync_sessions
):
    dataset, _ = index(register(write(rows(12))))
    write(rows(8))

    dataset, _ = index(dataset)

    assert len(samples(dataset)) == 8
    assert dataset.report["rows"] == 8


def test_a_link_that_leads_out_of_the_data_roots_is_refused(
    bench_for, register, rows, tmp_path, tmp_path_factory
):
    outside = tmp_path_factory.mktemp("outside") / "data.parquet"
    pq.write_table(pa.table(rows()), outside)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "data.parquet").symlink_to(outside)

    with pytest.raises(JobError, match="outside the allowed directories"):
        index_dataset(bench_for(register(tmp_path / "linked")))


def test_files_outside_the_data_roots_are_refused(bench_for, register, tmp_path):
    with pytest.raises(JobError, match="outside the allowed directories"):
        index_dataset(bench_for(register(tmp_path.parent / "elsewhere.parquet")))


def test_a_worker_that_lost_the_job_writes_nothing(
    rows, write, register, bench_for, samples, sync_sessions, monkeypatch
):
    dataset = register(write(rows(12)))
    bench = bench_for(dataset)
    report = lease.report

    def lost_after_reading(session, held, *, phase, progress):
        report(session, held, phase=phase, progress=progress)
        session.execute(text("UPDATE jobs SET attempt = attempt + 1"))

    monkeypatch.setattr(lease, "report", lost_after_reading)
    with pytest.raises(LeaseLost):
        index_dataset(bench)

    assert samples(dataset) == []


def test_the_report_says_what_was_read_and_what_erasing_rows_would_change(
    rows, write, register, index, definition
):
    how = {"bloom_filter_options": {"id": True}}
    path = write(rows(6), "a.parquet", **how)
    write(rows(6, id=[f"other-{n}" for n in range(6)]), "more/b.PARQUET", **how)
    (path.parent / ".a.parquet.crc").touch()
    (path.parent / "c.parq").touch()
    before = sorted(path.parent.rglob("*"))
    asked = {**definition, "erase": {"parquet": True}}

    dataset, _ = index(register(path.parent, definition=asked))

    assert dataset.status is RegistrationStatus.READY, dataset.failure
    assert dataset.report["files"]["names"] == ["a.parquet", "more/b.PARQUET"]
    assert dataset.report["files"]["left_out"] == 2
    assert dataset.report["erasure"]["rehearsed"] == "a.parquet"
    changes = dataset.report["erasure"]["changes"]
    assert [(each["change"].split(":")[0][:28], each["files"]) for each in changes] == [
        ("Bloom filters are made anew,", 2), ("The checksum that Hadoop kee", 1),
    ]  # fmt: skip
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: os.link(file, file.parents[1] / "copy"), "a second name"),
        (lambda file: (file.parent / "_metadata").touch(), "_metadata repeats what the files say"),
        (lambda file: file.write_bytes(file.read_bytes()[:-4] + b"PARE"), "is encrypted"),
    ],
)
def test_a_dataset_whose_rows_could_not_be_erased_is_refused(
    rows, write, register, bench_for, definition, spoil, message
):
    file = write(rows(12), "a.parquet")
    spoil(file)
    asked = {**definition, "erase": {"parquet": True}}

    with pytest.raises(JobError, match=message):
        index_dataset(bench_for(register(file.parent, definition=asked)))
