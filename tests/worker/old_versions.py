"""A model with a version whose files are due to be purged, and the champion after it."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from domain.states import VersionStatus
from domain.tables import ModelVersion
from tests import factories
from worker.engine import lease
from worker.housekeeping import planner
from worker.store.artifacts import Store

PAST = factories.NOW - timedelta(days=4)
ROLES = ("weights", "statistics", "reservoir", "features")

Put = Callable[..., dict[str, str]]


def putting(store: Store) -> Put:
    """What puts files with these contents into the store, and gives their digests; three, or four
    where there are features."""

    def files(*contents: bytes) -> dict[str, str]:
        return {
            f"{role}_sha256": store.put(lambda path, part=part: path.write_bytes(part))
            for role, part in zip(ROLES, contents, strict=False)
        }

    return files


def made(sessions: sessionmaker[Session], put: Put) -> tuple[ModelVersion, ModelVersion]:
    """Version 1, superseded four days ago, and the champion; they share a reservoir, and only the
    first has features."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    jobs = [factories.job(model_id=model.id, finished=True) for _ in range(2)]
    old = factories.version(
        model, jobs[0], status=VersionStatus.SUPERSEDED, superseded_at=PAST,
        **put(b"old weights", b"old statistics", b"both", b"old features"),
    )  # fmt: skip
    new = factories.version(
        model, jobs[1], number=2, parent_id=old.id,
        **put(b"new weights", b"new statistics", b"both"),
    )  # fmt: skip
    with sessions.begin() as session:
        for rows in ([dataset], [model], jobs, [old], [new]):
            session.add_all(rows)
            session.flush()
    return old, new


def sweep(sessions: sessionmaker[Session]) -> list[UUID]:
    return planner.sweep(sessions, max_losses=3)


def taken(sessions: sessionmaker[Session], job_id: UUID) -> lease.Claim:
    with sessions.begin() as session:
        held = lease.claim(session, job_id, worker="w", lease=timedelta(minutes=1))
    assert held is not None
    return held
