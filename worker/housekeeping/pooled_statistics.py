"""Measurements of forgotten samples are kept as long as the model's policy says."""

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from domain.policy import Policy
from domain.tables import Model, PooledStatistic


def forget_old(session: Session) -> None:
    """Delete those that are older than the days of their model's policy."""
    for model_id, policy in session.execute(select(Model.id, Model.policy)).all():
        days = Policy.model_validate(policy).pooled_audit_days
        session.execute(
            delete(PooledStatistic).where(
                PooledStatistic.model_id == model_id,
                PooledStatistic.created_at <= func.now() - timedelta(days=days),
            )
        )
