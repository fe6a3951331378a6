"""Memory that a large request took, given back to the machine."""

import ctypes
import gc
import sys
from collections.abc import Callable

LARGE = 2**20
"""Bytes of a body: a smaller one leaves nothing that is worth the look."""


def _trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; None where there is none."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


_malloc_trim = _trim()


def settle() -> None:
    """Have Python look no more at what exists by now, which stays: a look takes half a second."""
    gc.collect()
    gc.freeze()


def give_back(received: int) -> None:
    """Have the allocator return what it keeps, after a body of this many bytes.

    What a request held is in cycles, which Python looks for too seldom: it counts objects, and a
    list of 100,000 strings is one.
    """
    if received >= LARGE:
        gc.collect()
        if _malloc_trim is not None:
            _malloc_trim(0)
