"""What an event of the audit trail is; `domain.events` has all of them."""

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from inspect import getdoc
from typing import Any, ClassVar, Literal, dataclass_transform
from uuid import UUID

from domain.states import RequestStatus

Subject = Literal[
    "request", "job", "dataset", "model", "version", "webhook", "signing key", "the command's run"
]
"""Whose id is the `subject_id` of an entry."""

EVENTS: dict[str, type["Event"]] = {}
"""All of them, by name."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Event:
    """What happened. Subclasses are frozen dataclasses; a field with a default may be left out."""

    event: ClassVar[str]
    about: ClassVar[Subject]

    def __init_subclass__(cls, *, event: str, about: Subject) -> None:
        cls.event, cls.about = event, about
        dataclass(frozen=True, kw_only=True)(cls)
        EVENTS[event] = cls

    def data(self) -> dict[str, Any]:
        """What the entry says besides: ids as text; without what was left out."""
        given = {field.name: getattr(self, field.name) for field in _fields(type(self))}
        return {
            field.name: _as_json(given[field.name])
            for field in _fields(type(self))
            if field.default is MISSING or given[field.name] is not None
        }


def became(status: RequestStatus) -> Event:
    """The event that tells of a request's new status."""
    return EVENTS[f"request.{status}"]()


def described() -> Iterator[tuple[str, str, str, str]]:
    """For people, of each event: its name, what it is about, its fields, and what it means."""
    for name, kind in EVENTS.items():
        told = ", ".join(
            f"`{field.name}`" + ("" if field.default is MISSING else " (optional)")
            for field in _fields(kind)
        )
        yield f"`{name}`", kind.about, told, " ".join((getdoc(kind) or "").split())


def _fields(kind: type[Event]) -> tuple[Field[Any], ...]:
    return fields(kind)  # type: ignore[arg-type]  # made one by `Event`


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value
