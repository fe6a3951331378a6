"""Lists, one page at a time: `?limit=&cursor=` in, `items` and `next_cursor` out.

A cursor names the last row of the page before, so that rows added meanwhile shift nothing.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import ConfigDict

from domain.errors import InvalidCursor
from service.fields import Out

T = TypeVar("T")
Key = TypeVar("Key")

HIGHEST_NUMBER, HIGHEST_POSITION = 2**31 - 1, 2**63 - 1
"""What the columns hold that lists are ordered by."""


class Page(Out, Generic[T]):
    """One page of a list, and where the next page begins."""

    # Pydantic leaves the docstring of a generic class out.
    model_config = ConfigDict(
        json_schema_extra={"description": "One page of a list, and where the next page begins."}
    )

    items: list[T]
    """The items of this page, in the order of the list."""

    next_cursor: str | None
    """The value to send as `cursor` for the next page; null on the last page."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which page of a list is wanted."""

    limit: Annotated[
        int, Query(ge=1, le=200, description="The largest number of items on a page.")
    ] = 50
    cursor: Annotated[
        str | None,
        Query(
            max_length=100,
            description="The `next_cursor` of the previous page; leave it out for the first page.",
        ),
    ] = None

    def after(self, kind: Callable[[str], Key]) -> Key | None:
        """The key of the last row already seen; None on the first page.

        Args:
            kind: makes a key of its text, and raises ValueError where no row has such a key.

        Raises:
            InvalidCursor: this list never gave it out.
        """
        if self.cursor is None:
            return None
        try:
            padded = self.cursor.encode("ascii") + b"=="
            key = kind(urlsafe_b64decode(padded).decode("ascii"))
            if _cursor(key) != self.cursor:  # a key has one spelling, and so has a cursor
                raise ValueError
        except ValueError:
            raise InvalidCursor(
                "Send the `next_cursor` of the previous page unchanged, or leave `cursor` out."
            ) from None
        return key

    def cut(self, rows: Sequence[T], key: Callable[[T], object]) -> tuple[Sequence[T], str | None]:
        """Of `limit + 1` rows, those of this page and the cursor of the next."""
        if len(rows) <= self.limit:
            return rows, None
        return rows[: self.limit], _cursor(key(rows[self.limit - 1]))


def _cursor(key: object) -> str:
    return urlsafe_b64encode(str(key).encode("ascii")).rstrip(b"=").decode("ascii")


def number(text: str) -> int:
    """A number that is counted from 1, as `after` takes it. Raises ValueError for any other."""
    return _below(HIGHEST_NUMBER, text)


def position(text: str) -> int:
    """A position in the audit trail, as `after` takes it. Raises ValueError for any other."""
    return _below(HIGHEST_POSITION, text)


def _below(highest: int, text: str) -> int:
    found = int(text)
    if not 0 <= found <= highest:
        raise ValueError("no row has this number")
    return found


Paging = Annotated[Window, Depends()]
