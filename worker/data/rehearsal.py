"""Finds out, when a dataset is registered, whether rows could be taken out of its files."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from domain.errors import JobError
from worker.data import parquet_rewrite
from worker.data.files import LISTED, Listing

ALWAYS = (
    "Row groups without a forgotten row stay as they are, byte by byte. In the others, pages are "
    "cut anew, and compressed with the codec's default level."
)
SUMMARIES = ("_metadata", "_common_metadata")


def rehearse(listing: Listing, signature: str) -> dict[str, Any]:
    """Take a row out of the first file, beside it, and delete what was written; look at the others.

    Args:
        signature: the name that the unfinished file carries.

    Returns:
        Which file was rehearsed, and what could not be kept in how many files.

    Raises:
        JobError: the job that erases rows would fail; what to do about it.
    """
    places = [each.path.resolve() for each in listing.found]
    lost: Counter[str] = Counter()
    for file in places:
        if file.stat().st_nlink > 1:
            raise JobError(parquet_rewrite.second_name(file))
        lost.update(parquet_rewrite.inspect(file))
        lost.update(_beside(file))
    for directory in sorted({file.parent for file in places}):
        _require_room(directory)
    first = places[0]
    parquet_rewrite.remove_unfinished(first)
    parquet_rewrite.rehearse(first, parquet_rewrite.beside(first, signature))
    return {
        "rehearsed": listing.name_of(listing.found[0].path),
        "kept": ALWAYS,
        "changes": [
            {"change": change, "files": count} for change, count in lost.most_common(LISTED)
        ],
    }


def _beside(file: Path) -> list[str]:
    """What lies beside a file and would not fit it any more."""
    if os.path.exists(parquet_rewrite.checksum_of(file)):
        return ["The checksum that Hadoop keeps beside the file (.crc) is deleted with its rows."]
    return []


def _require_room(directory: Path) -> None:
    if not os.access(directory, os.W_OK | os.X_OK):
        raise JobError(
            f"The worker may not write into {directory}, so it could not erase rows from its files "
            "later. Give it write permission there, or register the dataset without `erase`."
        )
    for name in SUMMARIES:
        if (directory / name).exists():
            raise JobError(
                f"{directory / name} repeats what the files say of their rows, and would keep it "
                "when rows are erased. Remove it, or register the dataset without `erase`."
            )
