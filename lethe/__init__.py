"""A client for Lethe, the service that makes trained classifiers forget.

Speaks to the API and knows nothing else: no part of the service is imported.
"""

from lethe.client import AsyncLethe, Lethe
from lethe.errors import (
    Busy,
    Conflict,
    Gone,
    InsecureAddress,
    Invalid,
    LetheError,
    NotFound,
    NotSent,
    NotUnderstood,
    NotYet,
    Problem,
    ServiceFailed,
    StillWaiting,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownSamples,
    UnknownSubjects,
    Unreachable,
    WebhookRefused,
    WeightsDiffer,
)
from lethe.retrying import Retries
from lethe.version import __version__
from lethe.waiting import Progress
from lethe.webhooks import WebhookEvent, verify_webhook

__all__ = [
    "AsyncLethe",
    "Busy",
    "Conflict",
    "Gone",
    "InsecureAddress",
    "Invalid",
    "Lethe",
    "LetheError",
    "NotFound",
    "NotSent",
    "NotUnderstood",
    "NotYet",
    "Problem",
    "Progress",
    "Retries",
    "ServiceFailed",
    "StillWaiting",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnknownSamples",
    "UnknownSubjects",
    "Unreachable",
    "WebhookEvent",
    "WebhookRefused",
    "WeightsDiffer",
    "__version__",
    "verify_webhook",
]
