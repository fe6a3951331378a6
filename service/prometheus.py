"""The figures in Prometheus' text format, with those of this process."""

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.attempts import FailedAttempts
from service.figures import DURATIONS, Figures


def exposition(figures: Figures, failed: FailedAttempts) -> bytes:
    """What a scrape is answered."""
    registry = CollectorRegistry()
    registry.register(_Gauges(figures))
    registry.register(_Failures(failed))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Gauges(Collector):
    """No ids among the labels: their number must not grow with the work."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def collect(self) -> Iterable[Metric]:
        now = self.figures
        yield _by_label("requests", "Deletion requests.", "status", now.requests)
        yield _gauge(
            "requests_overdue", "Deletion requests past their due date, not completed.", now.overdue
        )
        if now.decision_due_seconds is not None:
            yield _gauge(
                "decision_due_seconds",
                "Until the first due date of a request that awaits a person's decision.",
                now.decision_due_seconds,
            )
        yield _gauge(
            "oldest_request_wait_seconds",
            "Age of the oldest open deletion request.",
            now.oldest_wait_seconds,
        )
        yield _by_label(
            "rows",
            "Completed requests, by what became of their samples' rows in the dataset's files.",
            "status",
            now.rows,
        )
        jobs = GaugeMetricFamily("lethe_jobs", "Jobs.", labels=["kind", "status"])
        for kind, statuses in now.jobs.items():
            for status, count in statuses.items():
                jobs.add_metric([kind, status], count)
        yield jobs
        yield _gauge(
            "oldest_queued_job_seconds",
            "Age of the oldest job without a worker.",
            now.oldest_queued_job_seconds,
        )
        yield _by_label(
            "queued_job_seconds",
            "Age of the oldest job without a worker, by kind.",
            "kind",
            now.queued_job_seconds,
        )
        yield _gauge(
            "jobs_lease_expired", "Running jobs whose worker fell silent.", now.expired_leases
        )
        took = now.unlearn_seconds
        if took.median is not None and took.p95 is not None:
            yield _by_label(
                "unlearn_duration_seconds",
                f"Duration of the last {DURATIONS} completed unlearning jobs.",
                "quantile",
                {"0.5": took.median, "0.95": took.p95},
            )
        yield _by_label("datasets", "Datasets.", "status", now.datasets)
        yield _by_label("models", "Models.", "status", now.models)
        yield _by_label(
            "pooled_audits",
            "Models, by the verdict on all that they have forgotten lately.",
            "verdict",
            now.pooled_audits,
        )
        yield _gauge(
            "purge_pending", "Superseded model versions with files to delete.", now.purge_pending
        )
        yield _gauge(
            "purge_overdue_seconds",
            "For how long the oldest purge is due.",
            now.purge_overdue_seconds,
        )
        yield _gauge("audit_events", "Events in the audit trail.", now.audit_events)
        if now.checkpoint_age_seconds is not None:
            yield _gauge(
                "checkpoint_age_seconds",
                "Since the audit trail was signed last.",
                now.checkpoint_age_seconds,
            )
        if now.anchor_age_seconds is not None:
            yield _gauge(
                "anchor_age_seconds",
                "Since a checkpoint was last put outside the database.",
                now.anchor_age_seconds,
            )
        yield _by_label(
            "webhook_deliveries",
            "Deliveries to webhooks that wait or were given up.",
            "status",
            now.webhook_deliveries,
        )


class _Failures(Collector):
    """No addresses among the labels: they are personal data, and whoever asks chooses them."""

    def __init__(self, failed: FailedAttempts) -> None:
        self.failed = failed

    def collect(self) -> Iterable[Metric]:
        failures = CounterMetricFamily(
            "lethe_authentication_failures",
            "Requests to this process without a valid key.",
            labels=["reason"],
        )
        for reason, count in self.failed.failures.items():
            failures.add_metric([reason], count)
        yield failures
        yield CounterMetricFamily(
            "lethe_authentication_throttled",
            "Those of them that were answered with 429.",
            value=self.failed.throttled,
        )


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"lethe_{name}", help_text, value=value)


def _by_label(name: str, help_text: str, label: str, values: dict[Any, Any]) -> Metric:
    family = GaugeMetricFamily(f"lethe_{name}", help_text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
