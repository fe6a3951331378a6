"""Where a dataset's files lie, checked before they are read."""

from domain.errors import JobError, LocationRefused
from domain.locations import allowed_path
from domain.tables import Dataset, DatasetCheck
from worker.data.parquet import Source
from worker.engine.workbench import Workbench


def open_source(bench: Workbench, subject: Dataset | DatasetCheck) -> Source:
    """The files of a dataset, or those to check, if they are in a readable location.

    Raises:
        JobError: they are elsewhere, or do not match their definition.
    """
    try:
        path = allowed_path(subject.uri, bench.settings.data_roots)
        source = Source.open(path, subject.definition)
        for file in source.files:  # links in a directory may point outside it
            allowed_path(str(file), bench.settings.data_roots)
    except LocationRefused as error:
        raise JobError(error.detail) from error
    return source
