"""The routes for those who run the service."""

from dataclasses import replace

from lethe.calls import Call
from lethe.routes.building import get
from lethe.routing import route
from lethe.schemas.operations import Figures, Liveness, Readiness


class Operations:
    """How the service is doing."""

    @route
    def read_figures(self) -> Call[Figures]:
        """Queue depth, oldest wait, overdue requests, durations: read from the database now."""
        return get("/v1/admin/metrics", Figures)

    @route
    def read_metrics(self) -> Call[str]:
        """The same figures in the text format of Prometheus."""
        return replace(get("/metrics", str), accept="text/plain")

    @route
    def live(self) -> Call[Liveness]:
        """Whether the process answers. It needs nothing else."""
        return get("/livez", Liveness)

    @route
    def ready(self) -> Call[Readiness]:
        """Whether requests can be served.

        Raises:
            Unavailable: they cannot.
        """
        return get("/readyz", Readiness)
