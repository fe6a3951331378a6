"""What becomes of a version that another one replaces, or that a person refuses."""

from sqlalchemy import func
from sqlalchemy.orm import Session

from domain import trail
from domain.events import VersionSuperseded
from domain.policy import Policy
from domain.states import VersionStatus
from domain.tables import Model, ModelVersion
from domain.trail import Actor


def supersede(session: Session, version: ModelVersion, *, actor: Actor) -> None:
    """Never serve this version again: it holds what was to be forgotten. Its files go when the
    grace of its model's policy is over."""
    policy = Policy.model_validate(session.get_one(Model, version.model_id).policy)
    version.status, version.superseded_at = VersionStatus.SUPERSEDED, func.now()
    version.purge_after = func.now() + policy.grace
    session.flush()
    trail.record(session, actor, version.id, VersionSuperseded(number=version.number))
