"""Where a dataset's files lie, checked before they are read."""

from domain.errors import JobError, LocationRefused
from domain.locations import allowed_path
from domain.states import RegistrationStatus
from domain.tables import Dataset, DatasetCheck
from worker.data import files
from worker.data.files import LOOKS_ALIKE, Listing
from worker.data.parquet import Source
from worker.engine.workbench import Workbench


def open_source(bench: Workbench, subject: Dataset | DatasetCheck) -> Source:
    """The files of a dataset, or those to check, if they are in a readable location.

    Raises:
        JobError: they are elsewhere, or do not match their definition.
    """
    return open_listed(bench, subject)[0]


def open_listed(bench: Workbench, subject: Dataset | DatasetCheck) -> tuple[Source, Listing]:
    """The same, and what their directory holds. A dataset that was indexed is read as it was then:
    files that came later have no positions.

    Raises:
        JobError: as `open_source`.
    """
    roots = bench.settings.data_roots
    try:
        path = allowed_path(subject.uri, roots)
        if isinstance(subject, Dataset) and subject.status is RegistrationStatus.READY:
            listing = files.known(path, subject.files)
            for found in listing.found:
                files.require_inside(found.path, roots)
        else:
            listing = files.find(path, roots)
    except LocationRefused as error:
        raise JobError(error.detail) from error
    if isinstance(subject, DatasetCheck):
        _require_all_read(listing)
    return Source.open(path, subject.definition, listing), listing


def open_new_state(bench: Workbench, dataset: Dataset, uri: str) -> tuple[Source, Listing]:
    """The files at another place, read as the dataset's definition says: those that lie there now.

    Raises:
        JobError: they are elsewhere, or do not match the definition.
    """
    roots = bench.settings.data_roots
    try:
        path = allowed_path(uri, roots)
        listing = files.find(path, roots)
    except LocationRefused as error:
        raise JobError(error.detail) from error
    return Source.open(path, dataset.definition, listing), listing


def _require_all_read(listing: Listing) -> None:
    """Who asks what may not be trained on must not think that a file was looked at."""
    alike = [name for name, reason in listing.left_out if reason == LOOKS_ALIKE]
    if alike:
        raise JobError(
            f"{len(alike)} files of the directory may be Parquet but are not named *.parquet, and "
            f"were not read: {', '.join(alike[:5])}. Rename them, or move them elsewhere."
        )
