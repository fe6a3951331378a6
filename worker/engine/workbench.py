"""What every job is handed: the database, the store, the settings and the device."""

import threading
from dataclasses import dataclass, field

import torch
from sqlalchemy.orm import Session, sessionmaker

from domain.settings import WorkerSettings
from worker.engine import lease
from worker.engine.lease import Claim
from worker.engine.retrying import patiently
from worker.store.artifacts import Store


@dataclass(frozen=True, slots=True)
class Workbench:
    """A claimed job's means of work. No transaction stays open while a job computes."""

    claim: Claim
    sessions: sessionmaker[Session]
    store: Store
    settings: WorkerSettings
    device: torch.device
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the job should be left where it can go on."""

    def report(self, phase: str, progress: float) -> None:
        """Say how far the job is; raises LeaseLost when it is somebody else's by now."""
        for attempt in patiently():
            with attempt, self.sessions.begin() as session:
                lease.report(session, self.claim, phase=phase, progress=progress)
