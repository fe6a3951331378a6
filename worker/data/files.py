"""Which files a dataset consists of: the Parquet files in a directory, however deep, or one file.

They come in the order of their paths, name by name. Hidden is what Hive, Spark and Arrow take for
hidden: names that begin with `.` or `_`, but for folders such as `_part=1`.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from domain.errors import JobError

SUFFIX = ".parquet"
ALIKE = (".parq", ".pq")
"""Suffixes, or parts of them, of files that are probably Parquet, and are not read."""

LISTED = 100
"""Files of each sort that a report names; the others are counted."""

NULL = "__HIVE_DEFAULT_PARTITION__"
TABLES = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}
"""Folders of table formats whose log says which files count."""

HIDDEN = "hidden: its name begins with . or _"
OTHER = "not named *.parquet"
LOOKS_ALIKE = "may be Parquet, but is not named *.parquet"
NO_FILE = "neither a file nor a directory"
DANGLING = "a link that leads nowhere"


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a dataset."""

    path: Path
    """As it was found; a link is not resolved."""

    partitions: Mapping[str, str | None]
    """The columns that its folders stand for, by name, with the value of all its rows."""


@dataclass(slots=True)
class Listing:
    """What a directory holds."""

    top: Path
    found: list[Found] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """For each its path below the directory, and why."""

    def report(self) -> dict[str, Any]:
        """All files by number, and the first of them by name."""
        return {
            "found": len(self.found),
            "left_out": len(self.left_out),
            "names": [self.name_of(each.path) for each in self.found[:LISTED]],
            "names_left_out": [
                {"name": name, "reason": reason} for name, reason in self.left_out[:LISTED]
            ],
        }

    def name_of(self, file: Path) -> str:
        """Its path below the directory."""
        return file.name if file == self.top else str(file.relative_to(self.top))


def find(path: Path, roots: Iterable[Path] | None = None) -> Listing:
    """The files of a dataset at this place, which has no links in it.

    Args:
        roots: the directories that links may lead to; None if anywhere.

    Raises:
        JobError: there is none, or one that may not be read: a link that leads outside or back, a
        pipe or device, a file that is there twice, or a table with a log of its own.
    """
    try:
        if not path.is_dir():
            if path.exists() and not path.is_file():
                raise JobError(f"{path} is {NO_FILE}; correct the URI.")
            return Listing(path, [Found(path, {})])
    except PermissionError as error:
        raise JobError(f"The worker may not read {path}; give it read permission.") from error
    walk = _Walk(path, None if roots is None else [root.resolve() for root in roots])
    walk.directory(path)
    listing = walk.listing
    listing.found.sort(key=lambda each: each.path.parts)
    listing.left_out.sort()
    if not listing.found:
        others = ", ".join(name for name, _ in listing.left_out[:5])
        also = f" Left out: {others}." if others else ""
        raise JobError(f"There is no *.parquet file in {path}; correct the URI.{also}")
    return listing


def known(path: Path, files: Collection[str] | None) -> Listing:
    """The files of a dataset as it was indexed, whatever else its directory holds by now.

    Args:
        files: their paths; None for a dataset of a release that did not record them, and read the
            top of a directory only.
    """
    if files is not None:
        paths = [Path(file) for file in files]
    else:
        paths = list(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    ordered = sorted(paths, key=lambda each: each.parts)
    if not ordered:
        raise JobError(f"There is no *.parquet file in {path}; restore the dataset's files.")
    return Listing(path, [Found(each, _partitions(each, path)) for each in ordered])


def require_inside(path: Path, roots: Iterable[Path]) -> None:
    """Raise JobError if a path leads outside all of these directories, once its links are resolved.

    It may have any name: it was found, not given as a URI.
    """
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        raise JobError(
            f"{path} leads outside the allowed directories (LETHE_DATA_ROOTS). Put the files "
            "themselves into the dataset's directory."
        )


@dataclass(slots=True)
class _Walk:
    """On its way through a directory."""

    top: Path
    roots: list[Path] | None
    listing: Listing = field(init=False)
    seen: dict[tuple[int, int], Path] = field(default_factory=dict)
    """Directories and files that were met, by device and number."""

    def __post_init__(self) -> None:
        self.listing = Listing(self.top)

    def directory(self, top: Path) -> None:
        self._meet(top, os.stat(top))
        waiting = [top]
        while waiting:
            waiting += self._below(waiting.pop())

    def _below(self, directory: Path) -> Iterator[Path]:
        """Sort what is in one directory; the directories in it."""
        try:
            with os.scandir(directory) as entries:
                names = sorted(entry.name for entry in entries)
        except PermissionError as error:
            raise JobError(
                f"The worker may not read {directory}; give it read permission."
            ) from error
        for name in names:
            path = directory / name
            if name in TABLES or (directory.name == "metadata" and name.endswith(".metadata.json")):
                raise JobError(
                    f"{directory} belongs to a table in the format "
                    f"{TABLES.get(name, 'Iceberg')}, whose log says which of its files count. "
                    "Export the table to plain Parquet files, and register those."
                )
            if name.startswith((".", "_")) and not (name.startswith("_") and "=" in name):
                self._leave_out(path, HIDDEN)
            elif self._sort(path):
                yield path

    def _sort(self, path: Path) -> bool:
        """Whether it is a directory; anything else is found or left out."""
        wanted = path.name.lower().endswith(SUFFIX)
        try:
            status = os.stat(path)
        except OSError as error:
            if error.errno == errno.ELOOP or (wanted and error.errno == errno.ENOENT):
                how = "back to itself" if error.errno == errno.ELOOP else "nowhere"
                raise JobError(
                    f"{_shown(path)} is a link that leads {how}; remove or correct it."
                ) from error
            if error.errno == errno.ENOENT:
                self._leave_out(path, DANGLING)
                return False
            if isinstance(error, PermissionError):
                raise JobError(
                    f"The worker may not read {_shown(path)}; give it read permission."
                ) from error
            raise
        if stat.S_ISDIR(status.st_mode):
            self._meet(path, status)
            return True
        if not stat.S_ISREG(status.st_mode):
            if wanted:
                raise JobError(f"{_shown(path)} is {NO_FILE}; remove it, or name it otherwise.")
            self._leave_out(path, NO_FILE)
        elif wanted:
            self._meet(path, status)
            self.listing.found.append(Found(path, _partitions(path, self.top)))
        else:
            lower = path.name.lower()
            alike = lower.endswith(ALIKE) or any(f"{end}." in lower for end in (SUFFIX, *ALIKE))
            self._leave_out(path, LOOKS_ALIKE if alike else OTHER)
        return False

    def _meet(self, path: Path, status: os.stat_result) -> None:
        """Refuse what lies outside, was met before, or has a name that cannot be stored."""
        if _shown(path) != str(path):
            raise JobError(f"{_shown(path)} has a name that is not UTF-8; rename it.")
        if self.roots is not None:
            require_inside(path, self.roots)
        before = self.seen.setdefault((status.st_dev, status.st_ino), path)
        if before != path:
            raise JobError(
                f"{path} and {before} are the same, so its rows would be read twice, or without "
                "end. Remove one of them."
            )

    def _leave_out(self, path: Path, reason: str) -> None:
        self.listing.left_out.append((_shown(path.relative_to(self.top)), reason))


def _shown(path: Path) -> str:
    """A path as text that can be stored, whatever its bytes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _partitions(file: Path, top: Path) -> dict[str, str | None]:
    """The columns that the folders between a directory and a file stand for."""
    found: dict[str, str | None] = {}
    folders = file.relative_to(top).parts[:-1] if file != top else ()
    for folder in folders:
        name, equals, value = folder.partition("=")
        if not (equals and name):
            continue
        try:
            name, value = unquote(name, errors="strict"), unquote(value, errors="strict")
        except UnicodeDecodeError as error:
            raise JobError(
                f"The folder {folder} is not encoded as UTF-8 after its percent signs; rename it."
            ) from error
        if name in found:
            raise JobError(
                f"Two folders above {file.name} name the column {name!r}; rename one of them."
            )
        found[name] = None if value == NULL else value
    return found
