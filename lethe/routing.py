"""How a described route becomes a method of both clients.

A route is a function that gives a `Call`. On the blocking client it is a method that gives the
result; on the asynchronous one a coroutine function. Type checkers see each with its own type.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from lethe.calls import Call, Listed
from lethe.core import Core
from lethe.transports import iterate, run

P = ParamSpec("P")
T = TypeVar("T")


class Synchronous:
    """A client whose methods give results."""

    _core: Core


class Asynchronous:
    """A client whose methods give coroutines."""

    _core: Core


class route(Generic[P, T]):  # noqa: N801 (it is used as a decorator)
    """Makes a method of a function that describes one call."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self.describe = describe
        self.__doc__ = describe.__doc__

        @wraps(describe)
        def method(client: Synchronous | Asynchronous, *args: P.args, **options: P.kwargs) -> Any:
            performed = client._core.perform(describe(client, *args, **options))
            return run(performed) if isinstance(client, Synchronous) else performed

        self.method = method

    @overload
    def __get__(self, client: None, owner: type) -> "route[P, T]": ...

    @overload
    def __get__(self, client: Synchronous, owner: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, client: Asynchronous, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, client: Synchronous | Asynchronous | None, owner: type) -> Any:
        return self if client is None else MethodType(self.method, client)


class listing(Generic[P, T]):  # noqa: N801
    """Makes a method of a function that describes a list: an iterator that fetches its pages."""

    def __init__(self, describe: Callable[Concatenate[Any, P], Listed[Any, T]]) -> None:
        self.describe = describe
        self.__doc__ = describe.__doc__

        @wraps(describe)
        def method(client: Synchronous | Asynchronous, *args: P.args, **options: P.kwargs) -> Any:
            items = client._core.items(describe(client, *args, **options))
            return iterate(items) if isinstance(client, Synchronous) else items

        self.method = method

    @overload
    def __get__(self, client: None, owner: type) -> "listing[P, T]": ...

    @overload
    def __get__(self, client: Synchronous, owner: type) -> Callable[P, Iterator[T]]: ...

    @overload
    def __get__(self, client: Asynchronous, owner: type) -> Callable[P, AsyncIterator[T]]: ...

    def __get__(self, client: Synchronous | Asynchronous | None, owner: type) -> Any:
        return self if client is None else MethodType(self.method, client)
