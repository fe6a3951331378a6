"""Which decision of a person a version is served by, in spite of its verdict.

It may be about that version, or about one that other requests had overtaken, in whose place it was
made: see `worker.jobs.unlearn.acceptance`.
"""

from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from domain.states import Decision, Verdict
from domain.tables import DeletionTarget, Job, ModelVersion, ReviewDecision


def of(session: Session, target: DeletionTarget, job: Job | None) -> ReviewDecision | None:
    """The decision that completed this target; None where the verdict needed none."""
    if job is None or job.verdict is not Verdict.FAIL:
        return None
    decisions = session.scalars(
        select(ReviewDecision).where(
            ReviewDecision.request_id == target.request_id,
            ReviewDecision.job_id.in_([job.id, job.accepted_job_id]),
            ReviewDecision.decision == Decision.ACCEPT,
        )
    ).all()
    return max(decisions, key=lambda each: each.job_id == job.id, default=None)


def given_by(instant: ColumnElement[Any] | Any) -> ColumnElement[bool]:
    """The condition on a version and its job that it was accepted by then. One that is made in the
    place of another is so only where it was served: it may have exceeded the acceptance."""
    in_its_place = and_(ReviewDecision.job_id == Job.accepted_job_id, Job.forgotten_at <= instant)
    return exists().where(
        or_(ReviewDecision.job_id == ModelVersion.job_id, in_its_place),
        ReviewDecision.decision == Decision.ACCEPT,
        ReviewDecision.decided_at <= instant,
    )
