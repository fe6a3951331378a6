"""What the files of a dataset hold, and its index."""

import pyarrow.parquet as pq
from sqlalchemy import select

from domain.tables import Sample

GONE = ["person-0", "person-5", "person-6", "person-23"]


def ids_in(files):
    return [name for file in files for name in pq.read_table(file)["id"].to_pylist()]


def positions(sessions, dataset):
    with sessions.begin() as session:
        rows = session.execute(
            select(Sample.sample_id).filter_by(dataset_id=dataset.id).order_by(Sample.position)
        )
        places = session.scalars(select(Sample.position).filter_by(dataset_id=dataset.id))
        return [row.sample_id for row in rows], sorted(places)


def contents(files):
    return [file.read_bytes() for file in files]


def assert_in_step(sessions, dataset, files):
    stored, places = positions(sessions, dataset)
    assert stored == ids_in(files)
    assert places == list(range(len(stored)))
