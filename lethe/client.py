"""The two clients: one that waits for each answer, one for an event loop."""

from collections.abc import Callable, Iterable
from os import PathLike
from types import TracebackType
from typing import Self, TypeVar

import httpx2

from lethe import suppression, transports, waiting, weights
from lethe.addresses import checked, sendable
from lethe.core import Core
from lethe.retrying import PATIENT, Retries
from lethe.routes import Routes
from lethe.routing import Asynchronous, Synchronous
from lethe.schemas.common import Followed
from lethe.schemas.versions import Version
from lethe.version import __version__
from lethe.waiting import Progress

F = TypeVar("F", bound=Followed)

AGENT = f"lethe-python/{__version__}"


class Lethe(Routes, Synchronous):
    """Speaks to one service, and waits for each answer. Close it, or use it in `with`.

        with Lethe("https://lethe.example.com", key) as lethe:
            request = lethe.forget(["img-00017"], model="cifar10-cnn", reason="GDPR Article 17")
            request = lethe.wait(request)

    There is one method for each route of the API. They raise the exceptions of `lethe.errors`.

    Args:
        url: where the service is.
        key: the key of the service. It is never sent over plain HTTP to another machine, and never
            to where a redirect leads.
        timeout: seconds without a sign of the service after which a request is given up.
        retries: how often and when a request is sent again. One that may have arrived is sent
            again only where that is harmless.
        insecure: let the key travel unencrypted, where the network is trusted.

    Raises:
        InsecureAddress: the URL is plain HTTP to another machine.
        NotSent: URL or key cannot be one.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 30.0,
        retries: Retries = PATIENT,
        insecure: bool = False,
    ) -> None:
        self.url = checked(url, insecure=insecure)
        http = httpx2.Client(**transports.settings(self.url, sendable(key), timeout, AGENT))
        self._core = Core(transports.Blocking(http), retries)

    def wait(
        self,
        subject: F,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Progress[F]], object] | None = None,
    ) -> F:
        """Wait until jobs have settled what they work on: a request, job, dataset, model, …

        Args:
            subject: what a method of this client gave.
            timeout: seconds to wait at most; None for as long as it takes.
            on_progress: called with news of it and of its jobs.

        Returns:
            The subject as it is then. Look at its `status`: it may have failed.

        Raises:
            StillWaiting: the time is over; the jobs go on.
        """
        return transports.run(waiting.wait(self._core, subject, timeout, on_progress))

    def suppressed(self, dataset: str, sample_ids: Iterable[str]) -> set[str]:
        """Which of the ids may not be trained on, as a model of the dataset has forgotten them.

        There may be any number of ids; those that are not in the dataset are no error.
        """
        return transports.run(suppression.suppressed(self._core, dataset, sample_ids))

    def weights(
        self,
        model: str,
        path: str | PathLike[str],
        *,
        version: int | None = None,
        on_progress: Callable[[int, int | None], object] | None = None,
    ) -> Version:
        """Download the weights of a model that may be served, as a safetensors file.

        The file appears under its name only when its SHA-256 is the one that the API names. A lost
        connection is resumed.

        Args:
            version: the champion unless given.
            on_progress: called with the bytes that are there, and how many there will be.

        Returns:
            The version that was downloaded.

        Raises:
            NotFound: there is no such version, or no champion yet.
            Conflict: the version holds forgotten samples.
            WeightsDiffer: the bytes are not the ones that the API names.
        """
        return transports.run(weights.download(self._core, model, version, path, on_progress))

    def close(self) -> None:
        """Close the connections."""
        transports.run(self._core.transport.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncLethe(Routes, Asynchronous):
    """The same for asyncio: every method gives a coroutine, every list an asynchronous
    iterator. Close it, or use it in `async with`. See `Lethe`.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 30.0,
        retries: Retries = PATIENT,
        insecure: bool = False,
    ) -> None:
        self.url = checked(url, insecure=insecure)
        http = httpx2.AsyncClient(**transports.settings(self.url, sendable(key), timeout, AGENT))
        self._core = Core(transports.OnLoop(http), retries)

    async def wait(
        self,
        subject: F,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (it ends with what was seen last)
        on_progress: Callable[[Progress[F]], object] | None = None,
    ) -> F:
        """See `Lethe.wait`."""
        return await waiting.wait(self._core, subject, timeout, on_progress)

    async def suppressed(self, dataset: str, sample_ids: Iterable[str]) -> set[str]:
        """See `Lethe.suppressed`."""
        return await suppression.suppressed(self._core, dataset, sample_ids)

    async def weights(
        self,
        model: str,
        path: str | PathLike[str],
        *,
        version: int | None = None,
        on_progress: Callable[[int, int | None], object] | None = None,
    ) -> Version:
        """See `Lethe.weights`."""
        return await weights.download(self._core, model, version, path, on_progress)

    async def close(self) -> None:
        """Close the connections."""
        await self._core.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
