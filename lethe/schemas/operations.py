"""How the service is doing."""

from typing import Literal

from pydantic import Field

from lethe.schemas.common import JobStatus, RegistrationStatus, Result, Verdict, Word
from lethe.schemas.jobs import JobKind
from lethe.schemas.requests import RequestStatus, RowsStatus
from lethe.schemas.webhooks import DeliveryStatus


class Durations(Result):
    """Seconds from start to end of the last completed unlearning jobs."""

    jobs: int
    median: float | None
    p95: float | None


class Figures(Result):
    """How the service is doing."""

    requests: dict[RequestStatus, int]
    overdue: int
    """Deletion requests past their legal date that are not completed, failed ones included."""

    decision_due_seconds: float | None
    """Until the first due date of what awaits a decision; None where nothing does."""

    oldest_wait_seconds: float
    rows: dict[RowsStatus, int]
    """Completed requests to datasets that erase, by what became of their rows."""

    jobs: dict[JobKind, dict[JobStatus, int]]
    oldest_queued_job_seconds: float
    queued_job_seconds: dict[JobKind, float] = Field(default={})
    expired_leases: int
    unlearn_seconds: Durations
    datasets: dict[RegistrationStatus, int]
    models: dict[RegistrationStatus, int]
    pooled_audits: dict[Verdict, int]
    purge_pending: int
    purge_overdue_seconds: float
    audit_events: int
    checkpoint_age_seconds: float | None
    anchor_age_seconds: float | None
    webhook_deliveries: dict[DeliveryStatus, int]


class Liveness(Result):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadinessStatus(Word):
    """`degraded`: the broker is away; requests are accepted and start a little later."""

    READY = "ready"
    DEGRADED = "degraded"


class Broker(Word):
    """Whether the broker answers, or why it does not."""

    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"
    AUTHENTICATION_FAILED = "authentication_failed"
    NO_SUCH_DATABASE = "no_such_database"
    TLS_FAILED = "tls_failed"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    STARTING = "starting"
    REFUSED = "refused"


class Readiness(Result):
    """Whether requests can be served, and what is missing."""

    status: ReadinessStatus
    revision: str
    """The revision of the database schema."""

    broker: Broker
