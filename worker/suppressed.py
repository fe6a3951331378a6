"""Lists what a Parquet file has that may not be trained on: `python -m worker.suppressed DATASET
FILE`.

Prints their sample ids, one per line, and exits with 1 if there are any, else with 0. Needs only
`LETHE_DATABASE_URL`: no job, no API.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy.orm import Session

from domain import environment
from domain.database import sync_engine
from domain.errors import JobError, NotFound
from domain.settings import MigrationSettings
from domain.suppression import suppressed
from worker.data.parquet import Source
from worker.data.sample_ids import sample_ids


def suppressed_in(session: Session, dataset: str, path: Path, column: str) -> set[str]:
    """The sample ids in a column of a Parquet file that models of the dataset have forgotten.
    Memory is bounded, apart from the answer.

    Raises:
        NotFound: the dataset does not exist.
        JobError: the file cannot be read, or has no such column.
    """
    source = Source.open(path, {"columns": {"sample_id": column}})
    named = (sample_id for _, ids in sample_ids(source) for sample_id in ids if sample_id)
    return suppressed(session, dataset, named)


@contextmanager
def open_database(url: SecretStr | str) -> Iterator[Session]:
    """A session with Lethe's database."""
    engine = sync_engine(url, limits=None)
    try:
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()


def main() -> int:
    """Print the ids; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker.suppressed", description=__doc__)
    parser.add_argument("dataset", help="the dataset's name, as registered")
    parser.add_argument("file", type=Path, help="Parquet")
    parser.add_argument("--column", default="sample_id", help="the column of the sample ids")
    asked = parser.parse_args()
    with open_database(environment.read(MigrationSettings).database_url) as session:
        try:
            found = suppressed_in(session, asked.dataset, asked.file, asked.column)
        except (NotFound, JobError) as error:
            parser.error(str(error))
    sys.stdout.writelines(f"{sample_id}\n" for sample_id in sorted(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
