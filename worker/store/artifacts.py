"""Files named by the SHA-256 of their content: weights, statistics, reservoirs.

Files are never changed in place, so a name in Postgres always means the same bytes.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from safetensors import SafetensorError

from domain import objects
from domain.errors import JobError, StoreUnwritable

UNFINISHED = "incoming-"


class Store:
    """A directory of such files; `domain.objects` says where each one is."""

    def __init__(self, root: Path, writer: str = "") -> None:
        """Files under `root`; unfinished ones carry the name of their writer."""
        self.root = root
        self._prefix = f"{UNFINISHED}{writer}-"

    def put(self, write: Callable[[Path], None]) -> str:
        """Store what `write` writes to the path it is given; return its digest.

        The file is complete and on disk before it gets its name. Idempotent; a second call repairs
        a damaged file.

        Raises:
            StoreUnwritable: there is no space for it, or no permission.
        """
        with self.writing():
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=self._prefix, dir=self.root)
            os.close(descriptor)
            unfinished = Path(name)
            try:
                write(unfinished)
                digest = digest_of(unfinished)
                sync(unfinished)
                final = self._location(digest)
                final.parent.mkdir(parents=True, exist_ok=True)
                with self._alone():
                    unfinished.replace(final)
            finally:
                unfinished.unlink(missing_ok=True)
            for directory in (final.parent, final.parent.parent, self.root):
                sync(directory)
        return digest

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn a failure to write the store into StoreUnwritable."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise StoreUnwritable(
                f"the store at LETHE_STORE could not be written ({error.__class__.__name__}: "
                f"{getattr(error, 'strerror', None) or error}); free space, or give the worker "
                "write permission"
            ) from error

    def add(self, source: Path) -> str:
        """Store a copy of a file; return its digest."""

        def copy(path: Path) -> None:
            shutil.copyfile(source, path)

        return self.put(copy)

    def put_beside(self, digest: str, what: str, content: bytes) -> None:
        """Store what was made from a file, for people to look at. It goes when the file does.

        Raises:
            StoreUnwritable: there is no space for it, or no permission.
        """
        with self.writing():
            descriptor, name = tempfile.mkstemp(prefix=self._prefix, dir=self.root)
            unfinished = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                sync(unfinished)
                with self._alone():
                    unfinished.replace(objects.beside(self.root, digest, what))
            finally:
                unfinished.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """The path of the file, after reading all of it to check that it is undamaged.

        Raises:
            JobError: the file is missing or damaged.
        """
        path = self._location(digest)
        if not path.is_file():
            raise JobError(
                _lost(path, self.root, "is missing; unless its version was purged, restore")
            )
        if digest_of(path) != digest:
            raise JobError(_lost(path, self.root, "is damaged; restore"))
        return path

    def holds(self, digest: str) -> bool:
        """Whether a file with this name exists, damaged or not."""
        return self._location(digest).is_file()

    def remove(self, digest: str) -> None:
        """Delete a file that no version names any more, and what stands beside it; a missing file
        is not an error.

        Raises:
            StoreUnwritable: there is no permission to delete it.
        """
        path = self._location(digest)
        with self.writing():
            if path.parent.is_dir():
                with self._alone():
                    for file in (*path.parent.glob(f"{digest}.*"), path):
                        file.unlink(missing_ok=True)
                sync(path.parent)

    def listed(self, digests: Collection[str]) -> set[str]:
        """Which of these files, or of those beside them, the store's directories list now, whatever
        their content."""
        directories = {self._location(digest).parent for digest in digests}
        found = {
            objects.digest_in(path.name)
            for folder in directories
            if folder.is_dir()
            for path in folder.iterdir()
        }
        return found.intersection(digests)

    def remove_unfinished(self) -> None:
        """Delete the unfinished files that this writer left when it was killed."""
        for path in self.root.glob(f"{self._prefix}*"):
            _remove(path)

    def remove_orphans(self, named: Collection[str], *, before: datetime) -> int:
        """Delete unfinished files and files that are not named; return how many.

        A file written after `before` may belong to a job that is about to store its name. A file
        dated equally far in the future has a wrong date, because a job's own files are dated when
        it puts them.
        """
        unfinished = list(self.root.glob(f"{UNFINISHED}*"))
        files = self.root.glob(f"{objects.FOLDER}/*/*")
        nameless = [path for path in files if objects.digest_in(path.name) not in named]
        removed = 0
        for path in (*unfinished, *nameless):
            with self._alone():  # otherwise it might be put again between the check and the removal
                if _is_outdated(path, before):
                    _remove(path)
                    removed += 1
        return removed

    def _location(self, digest: str) -> Path:
        return objects.path_of(self.root, digest)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from naming or removing files meanwhile."""
        with (self.root / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_outdated(path: Path, before: datetime) -> bool:
    """Whether the file is dated before this time, or equally far ahead of now; False if gone."""
    now = time.time()
    try:
        return abs(path.stat().st_mtime - now) > now - before.timestamp()
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lost(path: Path, root: Path, what: str) -> str:
    return (
        f"The file {path.name[:12]}… of the store {what} {path.relative_to(root)} below "
        "LETHE_STORE from a backup."
    )
