"""Waits for what other processes and threads do."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], *, within_s: float, why: str = "") -> None:
    """Return as soon as it holds; fail, and say why, when it does not hold in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)
