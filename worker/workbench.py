"""What every job is handed: the database, the store, the settings and the device."""

from dataclasses import dataclass

import torch
from sqlalchemy.orm import Session, sessionmaker

from service.settings import WorkerSettings
from worker import protocol
from worker.artifacts import Store
from worker.protocol import Claim


@dataclass(frozen=True, slots=True)
class Workbench:
    """A claimed job's means of work. No transaction stays open while a job computes."""

    claim: Claim
    sessions: sessionmaker[Session]
    store: Store
    settings: WorkerSettings
    device: torch.device

    def report(self, phase: str, progress: float) -> None:
        """Say how far the job is; raises LeaseLost when it is somebody else's by now."""
        with self.sessions.begin() as session:
            protocol.report(session, self.claim, phase=phase, progress=progress)
