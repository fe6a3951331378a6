"""Which rows of a Parquet file may not be trained on: `python -m worker.suppressed DATASET FILE`.

Prints their sample ids, one a line, and exits with 1 when there are any, with 0 when there are not.
Reads `LETHE_DATABASE_URL` and nothing else of the service; no job, no API.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.settings import MigrationSettings
from service.suppression import open_database, suppressed

ROWS = 65_536
"""Read at a time."""


def suppressed_in(session: Session, dataset: str, path: Path, column: str) -> set[str]:
    """Of the sample ids in a column of a Parquet file, those that models of the dataset have
    forgotten. In bounded memory, but for the answer.

    Raises:
        NotFound: there is no such dataset, or no such column.
    """
    return suppressed(session, dataset, chain.from_iterable(_ids(path, column)))


def _ids(path: Path, column: str) -> Iterator[list[str]]:
    with pq.ParquetFile(path) as file:
        if column not in file.schema_arrow.names:
            raise NotFound(f"There is no column {column!r}; there are {file.schema_arrow.names}.")
        for batch in file.iter_batches(batch_size=ROWS, columns=[column]):
            yield pc.drop_null(batch.column(0).cast(pa.string())).to_pylist()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.suppressed", description=__doc__)
    parser.add_argument("dataset", help="as it was registered")
    parser.add_argument("file", type=Path, help="Parquet")
    parser.add_argument("--column", default="sample_id", help="of the sample ids")
    asked = parser.parse_args()
    with open_database(MigrationSettings().database_url) as session:
        try:
            found = suppressed_in(session, asked.dataset, asked.file, asked.column)
        except NotFound as error:
            parser.error(error.detail)
    sys.stdout.writelines(f"{sample_id}\n" for sample_id in sorted(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
