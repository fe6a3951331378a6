"""What type checkers know about the clients. Never run: `mypy` checks it."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from lethe import AsyncLethe, Lethe, Progress
from lethe.schemas.models import Model
from lethe.schemas.requests import DeletionRequest
from lethe.schemas.subjects import Lookup
from lethe.schemas.versions import Version


def blocking(lethe: Lethe) -> None:
    """Routes give results, lists give iterators."""
    assert_type(lethe.read_model("cnn"), Model)
    assert_type(lethe.list_versions("cnn"), Iterator[Version])
    assert_type(lethe.forget(["t1"], model="cnn", exact=True, urgent=True), DeletionRequest)
    assert_type(lethe.forget(dataset="gait", subjects=["ann", 7]), DeletionRequest)
    assert_type(lethe.lookup_subjects(["ann"]), Lookup)
    assert_type(lethe.wait(lethe.read_model("cnn")), Model)
    assert_type(lethe.delete_webhook("id"), None)
    lethe.wait(lethe.read_request("id"), on_progress=told)


async def on_loop(lethe: AsyncLethe) -> None:
    """The same names give coroutines and asynchronous iterators."""
    assert_type(await lethe.read_model("cnn"), Model)
    assert_type(lethe.list_versions("cnn"), AsyncIterator[Version])
    assert_type(await lethe.wait(await lethe.read_request("id")), DeletionRequest)


def wrong(lethe: Lethe) -> None:
    """Arguments are checked: each of these is an error, which mypy would miss if it were none."""
    lethe.read_model(3)  # type: ignore[arg-type]
    lethe.read_model()  # type: ignore[call-arg]
    lethe.forget(["t1"], modle="cnn")  # type: ignore[call-arg]
    lethe.wait("cnn")  # type: ignore[type-var]


def told(news: Progress[DeletionRequest]) -> None:
    assert_type(news.subject.samples, int)
