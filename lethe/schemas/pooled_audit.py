"""What a model has forgotten lately, judged together."""

from datetime import datetime

from lethe.schemas.common import Result, Verdict


class PooledFigures(Result):
    """What all that was forgotten in the policy's days says together."""

    version: int
    verdict: Verdict
    returned: bool
    """Whether it can be told apart now and could not be before."""

    reason: str
    requests: int
    samples: int
    units: int
    remeasured: int
    """How many of the samples were measured in this version."""

    pairs: int
    observed: float | None
    low: float
    high: float
    p_value: float
    observed_before: float | None
    p_value_before: float
    days: int
    created_at: datetime


class PooledAudit(Result):
    """What a model has forgotten lately, judged together."""

    model: str
    days: int
    audit: PooledFigures | None
    """None before a job has made one."""
