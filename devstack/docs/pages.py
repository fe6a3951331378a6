"""Pages are written by hand, except for their regions.

A region lies between `<!-- generated: NAME -->` and `<!-- end: NAME -->`, and is made by the
function of that name in `MAKERS`.
"""

import re
from collections.abc import Callable
from pathlib import Path

from devstack.docs import configuration, events, house, interface

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"

MAKERS: dict[str, Callable[[], str]] = {
    "settings": configuration.settings,
    "events": events.table,
    "picture": house.picture,
    "rooms": house.rooms,
    "routes": interface.routes,
    "problems": interface.problems,
}
"""What makes the text of each region."""

_REGION = re.compile(
    r"(<!-- generated: (?P<name>[a-z]+) -->\n).*?(<!-- end: (?P=name) -->)", re.DOTALL
)


def stale() -> dict[Path, str]:
    """The pages that are out of date, each with the text that it should have."""
    texts = {path: path.read_text() for path in sorted(DOCS.glob("*.md"))}
    fresh = {path: filled(text) for path, text in texts.items()}
    return {path: text for path, text in fresh.items() if text != texts[path]}


def filled(text: str) -> str:
    """The same page with its regions made anew.

    Raises:
        KeyError: nothing makes a region of that name.
    """
    return _REGION.sub(lambda found: f"{found[1]}\n{MAKERS[found['name']]()}\n\n{found[3]}", text)
