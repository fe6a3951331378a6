"""Checkpoints of running jobs: files from which the next attempt resumes, and their deletion.

They hold models that know the forget set, so they are deleted when the job ends, and a listing of
the directory proves it. Never imports torch: the parent of a job deletes, the child writes and
reads.
"""

import contextlib
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from uuid import UUID

import structlog
from sqlalchemy import delete, select
from sqlalchemy.orm import Session, sessionmaker

from domain import trail
from domain.events import CheckpointsDeleted
from domain.states import OPEN_JOBS
from domain.tables import Job, JobCheckpoint
from worker.store.artifacts import Store, digest_of, sync

log = structlog.get_logger()


class Folder:
    """The checkpoint files of one job, at `checkpoints/<job id>` in the store."""

    def __init__(self, store: Store, job_id: UUID) -> None:
        self.store = store
        self.path = store.root / "checkpoints" / str(job_id)

    def put(self, name: str, write: Callable[[Path], None]) -> str:
        """Write a file and wait until it is on the disk; its SHA-256.

        Raises:
            StoreUnwritable: there is no space for it, or no permission.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / name
        with self.store.writing():
            write(file)
            sync(file)
            for directory in (self.path, self.path.parent, self.store.root):
                sync(directory)
        return digest_of(file)

    def find(self, name: str, sha256: str) -> Path | None:
        """The file, if it exists and is undamaged."""
        file = self.path / name
        return file if file.is_file() and digest_of(file) == sha256 else None

    def drop(self, pattern: str, *, but: Collection[str]) -> None:
        """Delete the files whose names match, except these."""
        for file in self.path.glob(pattern):
            if file.name not in but:
                file.unlink(missing_ok=True)

    def delete(self) -> tuple[int, int]:
        """Delete the folder; return how many files it had, and how many are left."""
        had = self._count()
        shutil.rmtree(self.path, ignore_errors=True)
        if self.path.parent.is_dir():
            sync(self.path.parent)
        return had, self._count()

    def _count(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return sum(1 for _ in self.path.iterdir())
        return 0


def delete_of_ended(sessions: sessionmaker[Session], store: Store) -> None:
    """Delete the checkpoints of all jobs that have ended or do not exist."""
    found = {UUID(folder.name) for folder in (store.root / "checkpoints").glob("*-*-*-*-*")}
    with sessions.begin() as session:
        recorded = session.scalars(select(JobCheckpoint.job_id).distinct()).all()
    for job_id in found.union(recorded):
        delete_if_ended(sessions, store, job_id)


def delete_if_ended(sessions: sessionmaker[Session], store: Store, job_id: UUID) -> None:
    """Delete the checkpoints of a job unless it is open; record in the audit trail what is left.

    The files are deleted first: as long as a row exists, deletion is retried.
    """
    with sessions.begin() as session:
        job = session.scalars(select(Job).filter_by(id=job_id).with_for_update()).one_or_none()
        if job is not None and job.status in OPEN_JOBS:
            return
        had, left = Folder(store, job_id).delete()
        recorded = select(JobCheckpoint.job_id).filter_by(job_id=job_id)
        if not had and not session.scalars(recorded).all():
            return
        if not left:
            session.execute(delete(JobCheckpoint).filter_by(job_id=job_id))
        trail.record(session, "worker", job_id, CheckpointsDeleted(files=had, left=left))
    log.info("checkpoints.deleted", job_id=str(job_id), files=had, left=left)
