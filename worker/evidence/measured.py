"""What was measured of a model, as certificates tell it."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.tables import Evaluation, Job
from evidence import accuracy, advantage, fine_tuned


def of(session: Session, job: Job) -> dict[str, Any]:
    """What was measured before and after a job, in the form `evidence.statement.Outcome` takes."""
    rows = session.scalars(select(Evaluation).filter_by(job_id=job.id))
    figures = {row.moment: row.figures for row in rows}
    pair = figures.get("before"), figures.get("after")
    return {
        "accuracy": accuracy.report(*pair),
        "advantage": advantage.report(*pair),
        "fine_tuned": fine_tuned.report(figures.get("after")),
    }
