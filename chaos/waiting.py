"""Waits for what the stack does."""

import time
from collections.abc import Callable


def wait(timeout_s: float, done: Callable[[], bool], *, every_s: float = 0.02) -> None:
    """Until it is done or too late; the caller sees which."""
    deadline = time.monotonic() + timeout_s
    while not done() and time.monotonic() < deadline:
        time.sleep(every_s)
