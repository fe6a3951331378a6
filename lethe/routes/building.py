"""Short forms of the calls that most routes make."""

from collections.abc import Mapping
from typing import Any, TypeVar

from lethe.calls import Call, Listed
from lethe.schemas.common import Page

T = TypeVar("T")

PAGE_SIZE = 200
"""Items fetched at once; the most that the service allows."""


def get(path: str, reads: type[T], query: Mapping[str, object] = {}, **places: object) -> Call[T]:
    """The call that reads something."""
    return Call(method="GET", path=path, reads=reads, places=places, query=query)


def post(
    path: str,
    reads: type[T],
    body: Mapping[str, object] | None = None,
    *,
    harmless: bool = False,
    **places: object,
) -> Call[T]:
    """The call that has something done.

    Args:
        harmless: the service answers a repetition as it answered the first one.
    """
    return Call(method="POST", path=path, reads=reads, places=places, body=body, harmless=harmless)


def delete(path: str, reads: type[T], **places: object) -> Call[T]:
    """The call that deletes something and says what becomes of it; sent again, it changes
    nothing."""
    return Call(method="DELETE", path=path, reads=reads, places=places, harmless=True)


def pages(
    path: str, kind: type[Page[T]], query: Mapping[str, object] = {}, **places: object
) -> Listed[Page[T], T]:
    """A list of items, from the first page to the last."""
    first = get(path, kind, {"limit": PAGE_SIZE, **query}, **places)
    return Listed(first, lambda page: page.items, next_page)


def next_page(page: Any) -> Mapping[str, object] | None:
    """The parameter that fetches the page after this one."""
    return None if page.next_cursor is None else {"cursor": page.next_cursor}
