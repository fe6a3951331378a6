"""One request to the API as a value: what to send, and how to read the answer.

Nothing here touches the network, so that every route is described once for both clients.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError, to_json

from lethe.errors import NotSent

T = TypeVar("T")
Page = TypeVar("Page")

JSON = "application/json"
SAFE = frozenset({"GET", "PUT", "PATCH"})
"""Methods that may be sent twice. DELETE is not among them: the second one is answered 404."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, read to its end."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""

    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request to the API."""

    method: str
    path: str
    """As in the API's OpenAPI document: `/v1/models/{name}`."""

    reads: type[T]
    """What the body of the answer becomes: a result, `str` for text, `bytes` for what is neither,
    `NoneType` for nothing."""

    places: Mapping[str, object] = field(default_factory=dict)
    """What stands in the braces of the path."""

    query: Mapping[str, object] = field(default_factory=dict)
    """Parameters; those that are None are left out."""

    body: Mapping[str, object] | None = None
    """Members of a JSON object; those that are None are left out, unless `nulls` names them."""

    nulls: frozenset[str] = frozenset()
    accept: str = JSON
    idempotency_key: str | None = None
    harmless: bool = False
    """The service answers a repetition of this POST or DELETE as it answered the first one."""

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again though it may have arrived."""
        return self.method in SAFE or self.harmless or self.idempotency_key is not None

    @property
    def target(self) -> str:
        """The path with its places filled in."""
        places = {name: quote(str(value), safe="") for name, value in self.places.items()}
        return self.path.format(**places)

    @property
    def parameters(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.query.items() if value is not None}

    @property
    def headers(self) -> dict[str, str]:
        sent = {"Accept": self.accept}
        if self.body is not None:
            sent["Content-Type"] = JSON
        if self.idempotency_key is not None:
            sent["Idempotency-Key"] = self.idempotency_key
        return sent

    @property
    def content(self) -> bytes | None:
        """The body as it is sent.

        Raises:
            NotSent: it holds text that is not valid Unicode.
        """
        if self.body is None:
            return None
        members = {
            name: value
            for name, value in self.body.items()
            if value is not None or name in self.nulls
        }
        try:
            return to_json(members)
        except (PydanticSerializationError, UnicodeEncodeError):
            raise NotSent("Text that is sent must be valid Unicode.") from None

    def read(self, answer: Answer) -> T:
        """The result in an answer.

        Raises:
            ValueError: the body is not what this route answers with.
        """
        if self.reads is type(None):
            return None
        if self.reads is str:
            return cast("T", answer.body.decode())
        if self.reads is bytes:
            return cast("T", answer.body)
        result: T = _adapter(cast("Any", self.reads)).validate_json(answer.body)
        if isinstance(result, Headed):
            result.note(self, answer)
        return result


class Headed:
    """A result that takes something from the call or from the answer's headers, too."""

    def note(self, call: Call[Any], answer: Answer) -> None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Listed(Generic[Page, T]):
    """A list that comes in pages."""

    first: Call[Page]
    items: Callable[[Page], Iterable[T]]
    """What a page holds."""

    following: Callable[[Page], Mapping[str, object] | None]
    """The parameters that fetch the page after this one; None after the last."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def members(model: BaseModel | Mapping[str, object] | None) -> dict[str, Any] | None:
    """What was set of a part of a body, so that the service's own defaults hold for the rest."""
    if isinstance(model, BaseModel):
        return model.model_dump(mode="json", exclude_unset=True)
    return None if model is None else dict(model)
