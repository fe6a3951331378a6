"""How much a file that somebody else wrote may cost: the numbers, and how they are kept.

A small file can say that it is huge, or become huge when it is decoded. What it says of itself is
checked where that is possible; what it does is kept within limits by the operating system.
"""

import errno
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from domain.errors import JobError

READ_BYTES = 256 * 2**20
"""Memory, beyond what is in use, that one step of reading a dataset may take."""

FOOTER_BYTES = 8 * 2**20
"""Of a Parquet file: some 100,000 chunks of columns. In memory it takes twelve times as much."""

FOOTER_ITEMS = 200_000
"""In any one list of it."""

COLUMNS = 10_000

ROWS_PER_BYTE, ROWS_FOR_ALL = 16, 100_000
"""Rows that a dataset may have for each byte of its files, and however small they are. Ids differ
from each other, so each row takes its place."""

BYTES_PER_BYTE, BYTES_FOR_ALL = 1000, 2**29
"""Bytes that the rows of a dataset may have, decoded, for each byte of its files, and however small
these are. Zeros compress about that well."""

PIXELS_PER_BYTE, PIXELS_FOR_ALL = 1000, 2**28
"""Pixels that its images may have, likewise: a blank page has 400 for each byte."""

KEPT_PER_BYTE, KEPT_FOR_ALL = 16, 2**29
"""Bytes that the samples may have that a model's registration keeps, in memory, likewise."""

SCORES_BYTES = 2**30
"""Of what every reference model says of every sample: 4 for each, so four million samples with 64
models. Beyond, only mean and deviation are kept, as of older releases."""

LIKENESS_BYTES = 2**29
"""Of what a network's layers say of samples, to find near-duplicates: up to 320 for each, so 1.6
million samples at least; the search takes a few times as much. Beyond, none are looked for."""

STRETCHES_BYTES = 2**29
"""Of fingerprints of samples' own values, to find stretches that they share: up to 256 for each, so
two million samples at least; the search takes a few times as much. Beyond, it is not made."""

DECODED_BYTES = 2**29
"""Of the inputs that go through a network between two reads."""

HEADER_BYTES = 8 * 2**20
"""Of a safetensors file: some 80,000 tensors."""

IMAGE_PIXELS = 3 * 2**23
"""Of one image: what cameras of 24 megapixels take."""

PAGE = resource.getpagesize()


@contextmanager
def within(extra: int) -> Iterator[None]:
    """Let the process's memory grow by so many bytes at most, while the block runs.

    What asks for more gets a MemoryError. Counted is what the process can write to and does not
    share (RLIMIT_DATA), whichever library asks. Where the system does not tell how much that is
    (`/proc` is Linux's), there is no limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data() + extra
    if soft not in (resource.RLIM_INFINITY, -1):
        limit = min(limit, soft)
    if hard not in (resource.RLIM_INFINITY, -1):
        limit = min(limit, hard)
    if not _data():
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data() -> int:
    """Bytes that the process can write to and does not share; 0 where that is unknown."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[5]) * PAGE
    except OSError:
        return 0


class Weighed:
    """Lets in what weighs no more than a limit altogether, or one thing alone, however heavy."""

    def __init__(self, limit: int) -> None:
        self._limit, self._inside = limit, 0
        self._free = threading.Condition()

    @contextmanager
    def holding(self, weight: int) -> Iterator[None]:
        """Wait until there is room, and keep it while the block runs."""
        with self._free:
            self._free.wait_for(lambda: not self._inside or self._inside + weight <= self._limit)
            self._inside += weight
        try:
            yield
        finally:
            with self._free:
                self._inside -= weight
                self._free.notify_all()


@dataclass(slots=True)
class Expansion:
    """How much of something may come out of files of this size, and how much has."""

    stored: int
    """Bytes of the files."""

    per_byte: int
    for_all: int
    what: str
    used: int = 0

    def spend(self, amount: int) -> None:
        """Raise JobError when the files hold more than files of their size may."""
        self.used += amount
        if self.used > self.stored * self.per_byte + self.for_all:
            raise JobError(
                f"The files have {self.stored:,} bytes, and more {self.what} than files of that "
                f"size can sensibly hold: {self.per_byte:,} for each byte, and {self.for_all:,} "
                "in any case, are allowed. Check how they were written."
            )


def rows_of(stored: int) -> Expansion:
    """The rows of a dataset whose files have so many bytes."""
    return Expansion(stored, ROWS_PER_BYTE, ROWS_FOR_ALL, "rows")


def bytes_of(stored: int) -> Expansion:
    """The decoded bytes of its rows."""
    return Expansion(stored, BYTES_PER_BYTE, BYTES_FOR_ALL, "bytes of data")


def pixels_of(stored: int) -> Expansion:
    """The pixels of its images."""
    return Expansion(stored, PIXELS_PER_BYTE, PIXELS_FOR_ALL, "pixels")


def kept_of(stored: int) -> Expansion:
    """The bytes of the samples that are kept."""
    return Expansion(stored, KEPT_PER_BYTE, KEPT_FOR_ALL, "bytes of samples to keep")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, as Python, torch or the operating system say it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, which may not be imported
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def require_small_header(path: Path, advice: str) -> None:
    """Raise JobError if a safetensors file describes its tensors at unreasonable length: it is
    parsed as a whole, whatever it says. Files of other kinds hardly ever begin with less."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > HEADER_BYTES:
        raise JobError(
            f"{path.name} is not a safetensors file, or begins with a header of {length:,} bytes, "
            f"and {HEADER_BYTES:,} are enough for 80,000 tensors. {advice}"
        )
