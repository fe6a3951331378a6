"""What was measured of a model, as certificates tell it."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.tables import Evaluation, Job, PooledAudit
from evidence import accuracy, advantage, fine_tuned

POOLED = ("requests", "samples", "remeasured", "units", "pairs", "observed", "low", "high", "days")


def of(session: Session, job: Job) -> dict[str, Any]:
    """What was measured before and after a job, in the form `evidence.statement.Outcome` takes."""
    rows = session.scalars(select(Evaluation).filter_by(job_id=job.id))
    figures = {row.moment: row.figures for row in rows}
    pair = figures.get("before"), figures.get("after")
    return {
        "accuracy": accuracy.report(*pair),
        "advantage": advantage.report(*pair),
        "fine_tuned": fine_tuned.report(figures.get("after")),
        "pooled_audit": _pooled(session.get(PooledAudit, job.id)),
    }


def _pooled(row: PooledAudit | None) -> dict[str, Any] | None:
    """The annex of a certificate, by numbers."""
    if row is None:
        return None
    return {
        "version": row.version,
        "verdict": row.verdict,
        "returned": row.returned,
        **{name: row.figures[name] for name in POOLED},
    }
