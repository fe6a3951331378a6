"""What is left of a person's digest when rows are erased."""

import pytest
from sqlalchemy import select

from domain.sample_digests import digest
from domain.tables import Sample
from worker.jobs.erase_rows import erase_rows
from worker.jobs.index_dataset import index_dataset

WHO = ["Ann", "Ben", "Ann", None] * 6


@pytest.fixture
def dataset(rows, write, register, bench_for, definition, refreshed):
    path = write(rows(24, who=WHO), row_group_size=4)
    columns = definition["columns"] | {"group": "who"}
    asked = {**definition, "columns": columns, "erase": {"parquet": True}}
    dataset = register(path, definition=asked)
    index_dataset(bench_for(dataset))
    return refreshed(dataset)


def test_it_goes_with_the_last_row_and_stays_with_others(
    dataset, add_model, claimed, sync_sessions
):
    """Each row keeps its own, wherever it moves."""
    of_ben = [f"person-{n}" for n in range(24) if WHO[n] == "Ben"]
    add_model("one", *of_ben, "person-0")

    erase_rows(claimed())

    with sync_sessions.begin() as session:
        rows = session.scalars(select(Sample).order_by(Sample.position)).all()
        assert [row.position for row in rows] == list(range(17))
        for row in rows:
            who = WHO[int(row.sample_id.removeprefix("person-"))]
            assert row.group_digest == (who and digest(dataset.group_key, who))
        assert not {row.sample_id for row in rows} & {*of_ben, "person-0"}
