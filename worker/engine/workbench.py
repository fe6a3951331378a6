"""What every job is handed: the database, the store, the settings and the device."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from sqlalchemy.orm import Session, sessionmaker

from domain.settings import WorkerSettings
from worker.engine import lease
from worker.engine.lease import Claim
from worker.engine.retrying import transaction
from worker.store.artifacts import Store


@dataclass(frozen=True, slots=True)
class Workbench:
    """A claimed job's means of work. No transaction stays open while a job computes."""

    claim: Claim
    _sessions: sessionmaker[Session]
    store: Store
    settings: WorkerSettings
    device: torch.device
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the job should be left where it can go on."""

    def transaction(self) -> Iterator[AbstractContextManager[Session]]:
        """A job's only way to a transaction: it outlasts a restart of Postgres.

            for attempt in bench.transaction():
                with attempt as session:
                    ...

        See `retrying` for what the block must bear.
        """
        return transaction(self._sessions)

    def report(self, phase: str, progress: float) -> None:
        """Say how far the job is; raises LeaseLost when it is somebody else's by now."""
        for attempt in self.transaction():
            with attempt as session:
                lease.report(session, self.claim, phase=phase, progress=progress)
