"""A dataset's files read once: every row checked and staged, with no transaction open."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from domain.errors import JobError
from domain.tables import Dataset
from worker.data import staging
from worker.data.bad_rows import BadRows
from worker.data.content import ContentDigests
from worker.data.files import Listing
from worker.data.group_column import GroupDigests
from worker.data.parquet import Source
from worker.data.parquet_rewrite import Fingerprint, fingerprint
from worker.data.rehearsal import rehearse
from worker.engine.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Read:
    """What was found in the files."""

    staged: IO[bytes]
    """Every row whose id can be stored; see `staging.STAGED`."""

    faults: BadRows
    rows: int
    files: dict[str, Fingerprint]
    told: Mapping[str, Any]
    """What the dataset's report says of files and inputs."""


@contextmanager
def read(
    bench: Workbench, dataset: Dataset, source: Source, listing: Listing, *, again: str
) -> Iterator[Read]:
    """Check and stage every row; what is staged is gone at the end.

    Args:
        again: what is to be registered again if the files change meanwhile.

    Raises:
        JobError: they did, they cannot be read as the dataset's definition says, or their rows
            could not be erased as it asks.
    """
    groups = _groups(dataset)
    files = _fingerprints(source)
    told: dict[str, Any] = {"files": listing.report()}
    if dataset.definition.get("erase", {}).get("parquet"):
        bench.report("rehearsing the erasure of rows", 0.0)
        told["erasure"] = rehearse(listing, bench.claim.signature)
    faults, content = BadRows(), ContentDigests(dataset.tombstone_key)
    with tempfile.TemporaryFile() as staged:
        facts = staging.stage(bench, source, dataset.definition, faults, staged, groups, content)
        if _fingerprints(source) != files:
            raise JobError(
                f"The files changed while they were read; register {again} again once no other "
                "program writes to them."
            )
        told |= facts.report()
        if source.classes.source == "huggingface":
            told["class_names"] = source.classes.names
        yield Read(staged, faults, source.rows, files, told)


def _fingerprints(source: Source) -> dict[str, Fingerprint]:
    return {str(file): fingerprint(file) for file in source.files}


def _groups(dataset: Dataset) -> GroupDigests | None:
    """Makes the digests of its groups; None if it has no column of them."""
    if dataset.definition["columns"].get("group") is None:
        return None
    if dataset.group_key is None:
        raise JobError(
            "The dataset was first registered while the service was being upgraded, and has no key "
            "to keep groups under. Register it under another name."
        )
    return GroupDigests(dataset.group_key)
