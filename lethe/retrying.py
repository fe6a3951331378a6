"""When a request is sent again, and after how long."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

REFUSED_BEFOREHAND = frozenset({429})
"""Statuses that say that nothing was done."""

PASSING = frozenset({429, 502, 503, 504})
"""Statuses that pass by themselves."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How patient a client is with a service that does not answer."""

    attempts: int = 5
    """How often a request is sent at most; 1 for never again."""

    first: float = 0.5
    """Seconds before the second attempt, about; doubled for each one after it."""

    longest: float = 20.0
    """Seconds between two attempts, at most."""

    patience: float = 60.0
    """Longest `Retry-After`, in seconds, that is waited for."""

    def pause(self, attempt: int, asked: float | None) -> float | None:
        """Seconds to wait after this attempt, from 1; None to give up.

        Args:
            asked: the seconds in `Retry-After`; None without that header.
        """
        if attempt >= self.attempts:
            return None
        if asked is not None:
            return None if asked > self.patience else asked + random.uniform(0, self.first)  # noqa: S311 (spreads clients, hides nothing)
        longest = min(self.longest, self.first * 2 ** (attempt - 1))
        return random.uniform(longest / 2, longest)  # noqa: S311


PATIENT = Retries()
"""Five attempts within about ten seconds."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds in a `Retry-After` header, which has a number or a date; None without one."""
    given = headers.get("retry-after", "").strip()
    if given.isdecimal():
        return float(given)
    try:
        at = parsedate_to_datetime(given)
    except ValueError:
        return None
    return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())
