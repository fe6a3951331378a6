"""What every job works with: the database, the store, the settings and the device."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session, sessionmaker

from domain.settings import WorkerSettings
from worker.engine import lease
from worker.engine.lease import Claim
from worker.engine.retrying import transaction
from worker.store.artifacts import Store

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Workbench:
    """What a claimed job works with. No transaction stays open while a job computes."""

    claim: Claim
    _sessions: sessionmaker[Session]
    store: Store
    settings: WorkerSettings
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the job should stop at the next point from which it can resume."""

    @property
    def device(self) -> "torch.device":
        """Where networks compute, as LETHE_DEVICE says."""
        import torch  # seconds, which jobs without a network are spared

        wanted = self.settings.device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(wanted)

    def transaction(self) -> Iterator[AbstractContextManager[Session]]:
        """The only way a job opens a transaction. It outlasts a restart of Postgres.

            for attempt in bench.transaction():
                with attempt as session:
                    ...

        See `retrying` for what the block must tolerate.
        """
        return transaction(self._sessions)

    def report(self, phase: str, progress: float) -> None:
        """Store how far the job is; raises LeaseLost when another worker has it."""
        for attempt in self.transaction():
            with attempt as session:
                lease.report(session, self.claim, phase=phase, progress=progress)
