"""Takes rows out of a Parquet file: writes a new file beside the old one. Knows only files.

Row groups without such a row are copied byte by byte. Of the others the stored values are read and
written, not what they mean, so that those that stay keep every bit; the schema and all metadata are
the old file's. What a rewritten row group cannot keep, `parquet_manner.unkept` says beforehand.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import JobError
from worker import budgets
from worker.data.parquet import as_text, opened
from worker.data.parquet_footer import Footer, stored_footer
from worker.data.parquet_groups import Groups, verify
from worker.data.parquet_manner import unkept
from worker.store.artifacts import digest_of, sync

IDS_AT_ONCE = 65_536
MEMORY_PER_BYTE, MEMORY_FOR_ALL = 32, 2**30
"""Bytes of memory that a rewrite may take for each byte of the file, and however small it is. One
column of one row group is in memory, as it was, as it will be, and once more to compare."""

Fingerprint = dict[str, Any]
"""Size, modification time and digest of the footer: enough to notice a change."""

Masks = Mapping[int, pa.BooleanArray]
"""Which rows stay, for each row group that has others."""


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
        footer = hashlib.sha256(stored_footer(opened_file, file.name)[0]).hexdigest()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "footer_sha256": footer}


def rewrite(file: Path, column: str, gone: Collection[str], new: Path) -> Rewritten | None:
    """Write a copy of the file without the rows whose id is in `gone`; None if it has none of them.

    One column of one row group is in memory at a time. The new file is complete, compared with the
    old one, and on disk.

    Raises:
        JobError: the file changed meanwhile, has a second name, holds something that cannot be
        written again as it is, or the new one cannot be written beside it.
    """
    ids = pa.array(sorted(gone), pa.string())
    before = fingerprint(file)
    with _bounded(file):
        masks = _staying(file, column, ids)
        if not masks:
            return None
        footer = Footer.of(file)
        unkept(footer)
        _take_out(footer, masks, new)
        left_over = _staying(new, column, ids)
    if left_over:
        raise JobError(
            f"The new {file.name} still has rows that were to be erased; nothing was replaced. "
            "Check the worker's disk and memory, then retry the job."
        )
    before_sha256 = digest_of(file)
    if fingerprint(file) != before:
        raise JobError(
            f"{file.name} changed while it was read; nothing was replaced. Retry the job once no "
            "other program writes to it."
        )
    rows = footer.fields[3].data
    left = rows - sum(_removed(mask) for mask in masks.values())
    return Rewritten(file, new, before, fingerprint(new), before_sha256, digest_of(new), rows, left)


def inspect(file: Path) -> list[str]:
    """What the row groups of a file could not keep, in sentences. Raises JobError as `rewrite`."""
    with _bounded(file):
        return unkept(Footer.of(file))


def rehearse(file: Path, new: Path) -> None:
    """Take one row out of the first row group, beside the file, and delete what was written.

    Raises:
        JobError: as `rewrite`.
    """
    with _bounded(file):
        footer = Footer.of(file)
        unkept(footer)
        sizes = [group[3].data for group in footer.row_groups]
        if not any(sizes):
            return
        first = next(index for index, rows in enumerate(sizes) if rows)
        stays = pa.array([row > 0 for row in range(sizes[first])], pa.bool_())
        try:
            _take_out(footer.of_group(first), {0: stays}, new)
        finally:
            new.unlink(missing_ok=True)


def put_in_place(files: Sequence[Rewritten]) -> None:
    """Replace the old files with the new ones, all or none. Idempotent.

    A checksum that Hadoop left beside a file is deleted: it is of the old one.

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
        with suppress(OSError):  # the name may be too long to exist
            checksum_of(each.file).unlink(missing_ok=True)
    for directory in {each.file.parent for each in files}:
        sync(directory)


def beside(file: Path, signature: str) -> Path:
    """Where a new file is written: in the same directory, under a name that no dataset reads."""
    return file.with_name(f"{_unfinished(file)}{signature}.erasing")


def checksum_of(file: Path) -> Path:
    """Where Hadoop keeps the checksum of a file on a local disk."""
    return file.with_name(f".{file.name}.crc")


def second_name(file: Path) -> str:
    """What to do about a file with a hard link."""
    return (
        f"{file.name} has a second name (a hard link) under which its rows would stay. Remove the "
        "link, then try again."
    )


def remove_unfinished(file: Path) -> None:
    """Delete what earlier attempts left beside the file."""
    for left in file.parent.iterdir():
        begins = left.name.startswith((_unfinished(file), f".{file.name}."))
        if begins and left.name.endswith(".erasing"):
            left.unlink(missing_ok=True)


def _unfinished(file: Path) -> str:
    """How the names of unfinished files begin: a name may be as long as a file system allows."""
    return f".{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:16]}."


def _staying(file: Path, column: str, ids: pa.Array) -> dict[int, pa.BooleanArray]:
    """Which rows have none of these ids, for each row group that has rows with one."""
    masks = {}
    with opened(file) as parquet:
        for index in range(parquet.metadata.num_row_groups):
            stays = [
                pc.invert(pc.is_in(as_text(batch.column(column)), ids))
                for batch in parquet.iter_batches(IDS_AT_ONCE, [index], [column])
            ]
            mask = pa.chunked_array(stays, pa.bool_()).combine_chunks()
            if _removed(mask):
                masks[index] = mask
    return masks


def _removed(mask: pa.BooleanArray) -> int:
    return len(mask) - int(mask.true_count)


def _take_out(footer: Footer, masks: Masks, new: Path) -> None:
    """Write the new file, and compare it with the old one."""
    file = footer.file
    if file.stat().st_nlink > 1:
        raise JobError(second_name(file))
    try:
        _write(footer, masks, new)
        verify(footer, masks, new)
    except OSError as error:
        if not error.errno:
            raise _impossible(file, error) from error
        raise JobError(
            f"A new {file.name} could not be written beside the old one "
            f"({error.strerror or error}). Give the worker write permission on the dataset's "
            "directory, and free space there."
        ) from error
    except MemoryError:
        raise
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise _impossible(file, error) from error


@contextmanager
def _bounded(file: Path) -> Iterator[None]:
    """Keep a small file from taking all memory: a dictionary holds a value once that a million rows
    have."""
    try:
        with budgets.within(MEMORY_FOR_ALL + MEMORY_PER_BYTE * file.stat().st_size):
            yield
    except MemoryError as error:
        raise JobError(
            f"A row group of {file.name} takes too much memory to be rewritten. Write the file "
            'again with smaller row groups, or register the dataset without "erase".'
        ) from error


def _impossible(file: Path, error: Exception) -> JobError:
    reason = str(error).partition("\n")[0][:200]
    return JobError(
        f"No row can be taken out of {file.name} ({reason}). Write the file again with a current "
        'writer, or register the dataset without "erase".'
    )


def _write(footer: Footer, masks: Masks, new: Path) -> None:
    status = footer.file.stat()
    with footer.file.open("rb") as old, new.open("wb") as out:
        os.chmod(new, 0o600)
        groups = Groups(footer, old, out)
        for index in range(len(footer.row_groups)):
            if index in masks:
                groups.filter(index, masks[index])
            else:
                groups.copy(index)
        groups.finish()
    with suppress(PermissionError):
        os.chown(new, status.st_uid, status.st_gid)
    shutil.copymode(footer.file, new)
    sync(new)
