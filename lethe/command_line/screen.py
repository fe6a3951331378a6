"""What is printed: tables and sentences for people, or one JSON document for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

NOTHING = "-"
WIDE = 160
"""Columns where nobody's terminal says how many there are."""


class Screen:
    """Where a command prints.

    Args:
        as_json: standard output gets JSON and nothing else.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
        self.err = Console(
            stderr=True, width=None if sys.stderr.isatty() else WIDE, highlight=False
        )

    def show(self, data: Any, *pictures: RenderableType) -> None:
        """Print a result: as JSON, or as people see it."""
        if self.as_json:
            self.write(to_json(data, indent=2).decode() + "\n")
            return
        for picture in pictures:
            self.out.print(Text(picture) if isinstance(picture, str) else picture)

    def say(self, sentence: str) -> None:
        """Tell what is going on; not part of the result."""
        self.err.print(Text(sentence))

    def write(self, text: str) -> None:
        """Print text as it is, without wrapping it."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def deliver(self, text: str, place: Path | None) -> None:
        """Write text into a file, or to standard output where none is named."""
        if place is None or str(place) == "-":
            self.write(text)
        else:
            place.write_text(text, encoding="utf-8")
            self.say(f"Written to {place}.")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Rows of values under their titles."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*map(cell, row))
    return drawn


def details(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one pair a line. Those without a value are left out."""
    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="dim", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            drawn.add_row(Text(name), cell(value))
    return drawn


def cell(value: object) -> Text:
    """A value as people read it."""
    if isinstance(value, Text):
        return value
    if isinstance(value, datetime):
        return Text(moment(value))
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    if isinstance(value, BaseModel | dict):
        return Text(json.dumps(json.loads(to_json(value)), ensure_ascii=False))
    return Text(NOTHING if value is None else str(value))


def moment(at: datetime) -> str:
    """An instant, to the second, in the time zone of this machine."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def found(moment: str, passed: bool) -> str:
    """The result of a test. To fail is no fault of the version before: it shows that the test can
    tell."""
    if moment == "before":
        return "not told apart" if passed else "told apart"
    return "passed" if passed else "failed"


def counted(number: int, thing: str) -> str:
    """As in `1 sample` or `2 samples`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


STYLES = {
    "completed": "green",
    "ready": "green",
    "champion": "green",
    "pass": "green",
    "enabled": "green",
    "delivered": "green",
    "needs_review": "yellow",
    "no_power": "yellow",
    "failed": "red",
    "fail": "red",
    "dead": "red",
    "refused": "red",
}


def word(status: object) -> Text:
    """A status or a verdict, in its colour."""
    return Text(str(status or NOTHING), STYLES.get(str(status), ""))
