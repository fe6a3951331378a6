"""The settings, from the classes that read them."""

import json
import re
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from domain.settings import ApiSettings, Settings, WorkerSettings

GROUPS: dict[str, tuple[type[BaseModel], type[BaseModel] | None]] = {
    "Every process": (Settings, None),
    "The API": (ApiSettings, Settings),
    "The worker and its clock": (WorkerSettings, Settings),
}
"""Each heading, with a class and the base whose fields stand under another heading."""

READERS = {"migrations", "api", "worker", "beat"}
_READ_BY = re.compile(r"\s*Read by (?P<readers>[a-z, ]+)\.$")


def settings() -> str:
    """A table for each class: variable, default, readers, meaning."""
    return "\n\n".join(_group(heading, *classes) for heading, classes in GROUPS.items())


def _group(heading: str, kind: type[BaseModel], base: type[BaseModel] | None) -> str:
    known = base.model_fields.keys() if base else ()
    rows = [_row(name, field) for name, field in kind.model_fields.items() if name not in known]
    head = [f"## {heading}", "", "| variable | default | read by | |", "|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _row(name: str, field: FieldInfo) -> str:
    meaning, readers = described(name, field)
    default = _default(field)
    return f"| `LETHE_{name.upper()}` | {default} | {', '.join(readers)} | {meaning} |"


def described(name: str, field: FieldInfo) -> tuple[str, list[str]]:
    """What a setting is for, in one line, and which processes read it.

    Raises:
        ValueError: its docstring does not say one of the two.
    """
    text = " ".join((field.description or "").split())
    found = _READ_BY.search(text)
    readers = re.split(r", | and ", found["readers"]) if found else []
    if found is None or not text[: found.start()] or not set(readers) <= READERS:
        raise ValueError(
            f"The docstring of {name} must say what the setting is for and end with "
            f"'Read by …': {', '.join(sorted(READERS))}."
        )
    return text[: found.start()], readers


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "none"
    return f"`{_as_text(field.default)}`"


def _as_text(value: Any) -> str:
    """A default as the environment would have it."""
    if isinstance(value, timedelta) and not value.seconds:
        return f"P{value.days}D"  # Pydantic would write 400 days as a year and 35 days
    plain = to_jsonable_python(value)
    return plain if isinstance(plain, str) else json.dumps(plain)
