"""What is costly to find out, kept for seconds: one look at a time, however many ask."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The last answer of a function that is costly to call.

    An answer is fresh for `fresh_s` seconds. After that the next caller has it looked for again
    and waits, as all who come meanwhile: for `patience_s` seconds, then they get the answer before,
    unless that is older than `stale_s` seconds. A failure is kept like an answer while it is
    fresh, so that a database which does not answer is not asked by everyone.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[T]],
        *,
        fresh_s: float,
        stale_s: float = 0,
        patience_s: float = 0,
    ) -> None:
        self.look = look
        self.fresh_s = fresh_s
        self.stale_s = stale_s
        self.patience_s = patience_s
        self._looking: asyncio.Task[None] | None = None
        self._answer: tuple[T, float] | None = None
        self._failure: tuple[Exception, float] | None = None

    async def get(self) -> T:
        """The answer. Raises what the function raised, if its last call failed."""
        newest = max((kept[1] for kept in (self._answer, self._failure) if kept), default=None)
        if newest is None or monotonic() - newest >= self.fresh_s:
            await self._look_again()
        if self._failure is not None:
            raise self._failure[0].with_traceback(None)
        if self._answer is None:
            raise RuntimeError("looking ended without an answer")
        return self._answer[0]

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def _look_again(self) -> None:
        """Have it looked for, once for all who ask; return when the answer may be used."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        looking = self._looking  # not cancelled with the one who asked first: others wait too
        if self._answer is not None and monotonic() - self._answer[1] < self.stale_s:
            await asyncio.wait({looking}, timeout=self.patience_s)
        else:
            await asyncio.wait({looking})

    async def _look(self) -> None:
        try:
            self._answer, self._failure = (await self.look(), monotonic()), None
        except Exception as error:
            self._failure = error, monotonic()
        finally:
            self._looking = None
