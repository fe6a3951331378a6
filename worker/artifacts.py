"""Files named by the SHA-256 of what is in them: weights, statistics, reservoirs.

Nothing is ever changed in place, so a name in Postgres always means the same bytes.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from service.errors import JobError

UNFINISHED = "incoming-"
STALE_S = 24 * 3600
"""Longer than any job may run: what is unfinished for so long belongs to a killed process."""


class Store:
    """A directory of such files, at `objects/<first two digits>/<digest>`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, write: Callable[[Path], None]) -> str:
        """Keep what `write` writes to the path it is given; its digest.

        The file is complete and on the disk before it has its name. Doing it twice is harmless,
        and repairs a damaged file.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self._remove_stale()
        descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=self.root)
        os.close(descriptor)
        unfinished = Path(name)
        try:
            write(unfinished)
            digest = _digest(unfinished)
            _sync(unfinished)
            final = self._location(digest)
            final.parent.mkdir(parents=True, exist_ok=True)
            unfinished.replace(final)
        finally:
            unfinished.unlink(missing_ok=True)
        for directory in (final.parent, final.parent.parent, self.root):
            _sync(directory)
        return digest

    def add(self, source: Path) -> str:
        """Keep a copy of a file; its digest."""

        def copy(path: Path) -> None:
            shutil.copyfile(source, path)

        return self.put(copy)

    def path(self, digest: str) -> Path:
        """Where the file is, after reading it whole to see that it is undamaged.

        Raises:
            JobError: the file is missing or damaged.
        """
        path = self._location(digest)
        if not path.is_file():
            raise JobError(_lost(path, self.root, "is missing"))
        if _digest(path) != digest:
            raise JobError(_lost(path, self.root, "is damaged"))
        return path

    def remove(self, digest: str) -> None:
        """Delete a file that no version names any more; one that is gone is no error."""
        path = self._location(digest)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync(path.parent)

    def _location(self, digest: str) -> Path:
        return self.root / "objects" / digest[:2] / digest

    def _remove_stale(self) -> None:
        """Unfinished files may hold samples; a killed process cannot remove its own."""
        for path in self.root.glob(f"{UNFINISHED}*"):
            try:
                if time.time() - path.stat().st_mtime > STALE_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            except FileNotFoundError:  # another process was faster
                continue


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lost(path: Path, root: Path, what: str) -> str:
    return (
        f"The file {path.name[:12]}… of the store {what}; "
        f"restore {path.relative_to(root)} below LETHE_STORE from a backup."
    )
