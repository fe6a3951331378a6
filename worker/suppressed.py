"""Which rows of a Parquet file may not be trained on: `python -m worker.suppressed DATASET FILE`.

Prints their sample ids, one a line, and exits with 1 when there are any, with 0 when there are not.
Reads `LETHE_DATABASE_URL` and nothing else of the service; no job, no API.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from domain.errors import JobError, NotFound
from domain.settings import MigrationSettings
from domain.suppression import ASKED_AT_ONCE, open_database, suppressed
from worker.data.bad_rows import usable_ids
from worker.data.parquet import Source


def suppressed_in(session: Session, dataset: str, path: Path, column: str) -> set[str]:
    """Of the sample ids in a column of a Parquet file, those that models of the dataset have
    forgotten. In bounded memory, but for the answer.

    Raises:
        NotFound: there is no such dataset.
        JobError: the file cannot be read, or has no such column.
    """
    source = Source.open(path, {"columns": {"sample_id": column}})
    named = (sample_id for _, ids in sample_ids(source) for sample_id in ids if sample_id)
    return suppressed(session, dataset, named)


def sample_ids(source: Source) -> Iterator[tuple[int, list[str | None]]]:
    """The ids of all rows, some at a time with the position of the first; None where a row has no
    id that a sample could have."""
    for first, batch in source.batches(("sample_id",), rows=ASKED_AT_ONCE):
        ids, _ = usable_ids(batch["sample_id"])
        yield first, ids.to_pylist()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.suppressed", description=__doc__)
    parser.add_argument("dataset", help="as it was registered")
    parser.add_argument("file", type=Path, help="Parquet")
    parser.add_argument("--column", default="sample_id", help="of the sample ids")
    asked = parser.parse_args()
    with open_database(MigrationSettings().database_url) as session:
        try:
            found = suppressed_in(session, asked.dataset, asked.file, asked.column)
        except (NotFound, JobError) as error:
            parser.error(str(error))
    sys.stdout.writelines(f"{sample_id}\n" for sample_id in sorted(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
