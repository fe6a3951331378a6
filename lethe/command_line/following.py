"""Waiting for what jobs work on, with a progress bar for those who look on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lethe import Lethe, waiting
from lethe.command_line.screen import Screen
from lethe.schemas.common import Followed

F = TypeVar("F", bound=Followed)
News = Callable[[waiting.Progress[Any]], None]


def settled(
    lethe: Lethe, subject: F, screen: Screen, *, timeout: float | None, watched: bool = True
) -> F:
    """The subject once it is settled.

    Args:
        watched: whether progress is shown.
    """
    if subject.is_settled:
        return subject
    if not watched:
        return lethe.wait(subject, timeout=timeout)
    with bar(screen) if screen.err.is_terminal else lines(screen) as told:
        return lethe.wait(subject, timeout=timeout, on_progress=told)


@contextmanager
def bar(screen: Screen) -> Iterator[News]:
    """A live bar on a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen.err, transient=True) as progress:
        task = progress.add_task("waiting", total=1.0)

        def told(news: waiting.Progress[Any]) -> None:
            progress.update(task, completed=news.fraction, description=describe(news))

        yield told


@contextmanager
def lines(screen: Screen) -> Iterator[News]:
    """A line for every change of what is being done, where there is no terminal."""
    last = ""

    def told(news: waiting.Progress[Any]) -> None:
        nonlocal last
        now = describe(news)
        if now != last:
            screen.say(f"{now} ({news.fraction:.0%})")
        last = now

    yield told


def describe(news: waiting.Progress[Any]) -> str:
    """What is going on, in a few words."""
    return f"{news.subject.status}: {news.phase}" if news.phase else str(news.subject.status)
