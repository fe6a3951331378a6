"""Rewrites a Parquet file without some of its rows, beside the old one. Knows only files."""

import hashlib
import os
import shutil
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from domain.errors import JobError
from worker.data.parquet import as_text, opened
from worker.store.artifacts import digest_of, sync

MAGIC = b"PAR1"
TAIL = 8
"""Bytes at the end of a Parquet file: the length of the footer, and the magic number."""

Fingerprint = dict[str, Any]
"""Size, modification time and digest of the footer: enough to notice a change."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file without the erased rows that has not yet replaced the old one."""

    file: Path
    new: Path
    before: Fingerprint
    after: Fingerprint
    before_sha256: str
    after_sha256: str
    rows_before: int
    rows_after: int


def fingerprint(file: Path) -> Fingerprint:
    """The file's present state. Raises JobError when it is not a Parquet file."""
    status = file.stat()
    with file.open("rb") as opened_file:
        opened_file.seek(max(status.st_size - TAIL, 0))
        tail = opened_file.read(TAIL)
        if len(tail) < TAIL or not tail.endswith(MAGIC):
            raise JobError(f"{file.name} is not a Parquet file; restore it from a backup.")
        (length,) = struct.unpack("<I", tail[:4])
        opened_file.seek(max(status.st_size - TAIL - length, 0))
        footer = hashlib.sha256(opened_file.read(length)).hexdigest()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "footer_sha256": footer}


def rewrite(file: Path, column: str, gone: Collection[str], new: Path) -> Rewritten | None:
    """Write a copy of the file without the rows whose id is in `gone`; None if it has none of them.

    Schema, row groups, compression and dictionaries stay as they are, as far as pyarrow allows; one
    row group is in memory at a time. The new file is complete, checked and on disk.

    Raises:
        JobError: the file changed meanwhile, has a second name, or the new one cannot be written
        beside it.
    """
    ids = pa.array(sorted(gone), pa.string())
    before = fingerprint(file)
    with opened(file) as old:
        rows = old.metadata.num_rows
        matched = _matching(old, column, ids)
        if not matched:
            return None
        if file.stat().st_nlink > 1:
            raise JobError(
                f"{file.name} has a second name (a hard link) under which its rows would stay. "
                "Remove the link, then retry the job."
            )
        try:
            _write(old, column, ids, new)
            shutil.copymode(file, new)
            sync(new)
        except OSError as error:
            raise JobError(
                f"A new {file.name} could not be written beside the old one "
                f"({error.strerror or error}). Give the worker write permission on the dataset's "
                "directory, and free space there."
            ) from error
        _verify(new, column, ids, schema=old.schema_arrow, rows=rows - matched)
    before_sha256 = digest_of(file)
    if fingerprint(file) != before:
        raise JobError(
            f"{file.name} changed while it was read; nothing was replaced. Retry the job once no "
            "other program writes to it."
        )
    return Rewritten(
        file, new, before, fingerprint(new), before_sha256, digest_of(new), rows, rows - matched
    )


def put_in_place(files: Sequence[Rewritten]) -> None:
    """Replace the old files with the new ones, all or none. Idempotent.

    Raises:
        JobError: an old file changed since it was read.
    """
    waiting = [each for each in files if fingerprint(each.file) != each.after]
    for each in waiting:
        if fingerprint(each.file) != each.before:
            raise JobError(
                f"{each.file.name} changed while it was rewritten; nothing was replaced. Retry the "
                "job once no other program writes to it."
            )
    for each in waiting:
        each.new.replace(each.file)
    for directory in {each.file.parent for each in files}:
        sync(directory)


def beside(file: Path, signature: str) -> Path:
    """Where a new file is written: in the same directory, under a name that no dataset reads."""
    return file.with_name(f".{file.name}.{signature}.erasing")


def remove_unfinished(file: Path) -> None:
    """Delete what earlier attempts left beside the file."""
    for left in file.parent.glob(f".{file.name}.*.erasing"):
        left.unlink(missing_ok=True)


def _ids_of(table: pa.Table, column: str) -> pa.Array:
    return as_text(table[column].combine_chunks())


def _matching(file: pq.ParquetFile, column: str, ids: pa.Array) -> int:
    """How many rows have one of the ids."""
    return sum(
        pc.sum(pc.is_in(_ids_of(file.read_row_group(index, [column]), column), ids)).as_py() or 0
        for index in range(file.metadata.num_row_groups)
    )


def _write(old: pq.ParquetFile, column: str, ids: pa.Array, new: Path) -> None:
    with pq.ParquetWriter(new, old.schema_arrow, **_manner(old.metadata)) as writer:
        for index in range(old.metadata.num_row_groups):
            group = old.read_row_group(index)
            stays = pc.invert(pc.is_in(_ids_of(group, column), ids))
            left = group.filter(stays)
            if left.num_rows:
                writer.write_table(left, row_group_size=left.num_rows)
    os.chmod(new, 0o600)


def _manner(metadata: pq.FileMetaData) -> dict[str, Any]:
    """The options the file was written with."""
    manner: dict[str, Any] = {"version": metadata.format_version, "write_page_checksum": True}
    if not metadata.num_row_groups:
        return manner
    group = metadata.row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    codecs = {chunk.path_in_schema: chunk.compression for chunk in chunks}
    with_dictionary = [
        chunk.path_in_schema
        for chunk in chunks
        if any("DICTIONARY" in encoding for encoding in chunk.encodings)
    ]
    return {
        **manner,
        "compression": {
            path: "NONE" if codec == "UNCOMPRESSED" else codec for path, codec in codecs.items()
        },
        "use_dictionary": with_dictionary or False,
        "write_statistics": [chunk.path_in_schema for chunk in chunks if chunk.is_stats_set]
        or False,
    }


def _verify(new: Path, column: str, ids: pa.Array, *, schema: pa.Schema, rows: int) -> None:
    """Check that the new file has the rows it should have, and no others."""
    with opened(new) as written:
        sound = (
            written.metadata.num_rows == rows
            and written.schema_arrow.equals(schema)
            and not _matching(written, column, ids)
        )
    if not sound:
        raise JobError(
            "The new file is not as expected; nothing was replaced. Check the worker's disk and "
            "memory, then retry the job."
        )
