"""Every route of the API, described once: what is sent, and what comes back."""

from lethe.routes.audit import Audit
from lethe.routes.datasets import Datasets
from lethe.routes.jobs import Jobs
from lethe.routes.models import Models
from lethe.routes.operations import Operations
from lethe.routes.requests import DeletionRequests
from lethe.routes.subjects import Subjects
from lethe.routes.webhooks import Webhooks


class Routes(DeletionRequests, Subjects, Datasets, Models, Jobs, Webhooks, Audit, Operations):
    """All of them."""
