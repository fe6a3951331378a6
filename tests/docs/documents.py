"""The documents, and their fenced blocks."""

import re
from dataclasses import dataclass
from pathlib import Path

from devstack import local

PAGES = [
    *sorted(local.REPOSITORY.glob("*.md")),
    *sorted((local.REPOSITORY / "docs").rglob("*.md")),
    local.REPOSITORY / "benchmarks" / "README.md",
    local.REPOSITORY / "verifier" / "README.md",
]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences."""

    page: str
    """The document, from the root of the repository."""

    line: int
    language: str
    about: str
    """What follows the language: of JSON, which route it belongs to."""

    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name(page: Path) -> str:
    return page.relative_to(local.REPOSITORY).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = page.read_text()
    return [
        Block(
            name(page),
            text.count("\n", 0, found.start()) + 1,
            *found["info"].strip().partition(" ")[::2],
            re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
        )
        for found in _FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", page.read_text())
