"""What a model has forgotten lately, judged together: the last answer."""

from typing import Self

from sqlalchemy import select

from domain.errors import no_such
from domain.policy import Policy
from domain.states import Verdict
from domain.tables import Model, PooledAudit
from service.dependencies import Sessions
from service.fields import Instant, Out


class PooledFigures(Out):
    """What all groups that were forgotten in the policy's days say together.

    Each counts once: a group, or a sample on its own. Its figure is the share of unseen samples of
    its classes that have a higher loss.
    """

    version: int
    """The number of the version that was judged."""

    verdict: Verdict
    """What the test found: `no_power` if it cannot tell, now or before the samples were
    forgotten."""

    returned: bool
    """Whether what was forgotten can be told apart in this version and could not before. Then the
    audit trail says `model.memory_returned`."""

    reason: str
    """Which figures decided the verdict, in words. Without power it says what would give it."""

    requests: int
    """How many deletion requests are pooled."""

    samples: int
    """How many of their samples are pooled."""

    units: int
    """How many groups they are, or samples on their own."""

    remeasured: int
    """How many of the samples were measured in this version. The others are no longer in the
    dataset's files, or too many: for them stands what their own job measured."""

    pairs: int
    """How many pairs of a forgotten and an unseen group the test rests on: pairs that have nobody
    in common."""

    observed: float | None
    """The mean of the units' figures; 0.5 on average for what a model never saw. Null without
    units."""

    low: float
    """Lower end of its interval (97 %)."""

    high: float
    """Upper end of its interval (97 %)."""

    p_value: float
    """The p-value of the test, which is two-sided."""

    observed_before: float | None
    """That mean under the versions that knew the samples; null without units."""

    p_value_before: float
    """The p-value under the versions that knew the samples."""

    days: int
    """For how many days measurements are kept: the policy's `pooled_audit_days`."""

    created_at: Instant
    """When the version was made and this was judged."""

    @classmethod
    def of(cls, row: PooledAudit) -> Self:
        return cls.model_validate(
            {
                **row.figures,
                "version": row.version,
                "verdict": row.verdict,
                "returned": row.returned,
                "created_at": row.created_at,
            }
        )


class PooledAuditRead(Out):
    """What a model has forgotten lately, judged together."""

    model: str
    """The name of the model."""

    days: int
    """For how many days the model's policy keeps measurements; 0 if it keeps none."""

    audit: PooledFigures | None
    """The judgement made with the newest version; null before a job has made one, and where the
    policy keeps nothing."""


async def read(sessions: Sessions, name: str) -> PooledAuditRead:
    """The newest pooled audit of a model. Raises NotFound when there is no such model."""
    newest = (
        select(PooledAudit)
        .join(Model, Model.id == PooledAudit.model_id)
        .where(Model.name == name)
        .order_by(PooledAudit.version.desc())
        .limit(1)
    )
    async with sessions.begin() as session:
        policy = await session.scalar(select(Model.policy).filter_by(name=name))
        if policy is None:
            raise no_such(f"model {name!r}", listed_at="/v1/models")
        found = await session.scalar(newest)
    return PooledAuditRead(
        model=name,
        days=Policy.model_validate(policy).pooled_audit_days,
        audit=PooledFigures.of(found) if found else None,
    )
