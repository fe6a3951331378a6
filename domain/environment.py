"""Reads settings from the environment, or ends the process with sentences about what is wrong.

No sentence repeats a value: any of them may be, or hold, a secret that was put in the wrong place.
"""

import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

PREFIX = "LETHE_"
WHERE = "docs/configuration.md describes each setting."

S = TypeVar("S", bound=BaseSettings)


class Unusable(SystemExit):
    """The settings are wrong. Not caught, it ends the process with its sentences and status 1."""


def read(kind: type[S]) -> S:
    """The settings of this kind.

    Raises:
        Unusable: one is missing or wrong.
    """
    try:
        return kind()
    except ValidationError as error:
        sentences = list(_sentences(error, set(kind.model_fields)))
    except SettingsError as error:  # the first that is not JSON
        named = re.search(r'for field "([a-z_]+)"', str(error))
        sentences = [f"{_variable(named[1] if named else '?')} must be JSON."]
    raise Unusable("\n".join([*sentences, WHERE])) from None


def _sentences(error: ValidationError, fields: set[str]) -> Iterator[str]:
    for fault in error.errors(include_input=False, include_url=False):
        place = fault["loc"]
        if not place:  # a rule about several settings, which names them
            yield f"{_reason(fault)}."
        elif fault["type"] == "missing" and len(place) == 1:
            yield f"{_variable(place[0])} is missing; set it."
        elif place[0] in fields:
            # Within a list only numbers are sure to be no part of a value.
            inner = "".join(f"[{part}]" for part in place[1:] if isinstance(part, int))
            yield f"{_variable(place[0])}{inner} {_reason(fault)}."


def _reason(fault: Any) -> str:
    if fault["type"] == "value_error":  # ours: written for people, and without values
        return str(fault["ctx"]["error"]).rstrip(".")
    if fault["type"] == "missing":
        return f"lacks `{fault['loc'][-1]}`"
    if fault["type"] == "extra_forbidden":
        return "has a member that is not known there"
    message = re.sub(r"^(Input|String|Value) should", "must", fault["msg"])
    return message if message.startswith("must") else f"is wrong: {message}"


def _variable(field: object) -> str:
    return f"{PREFIX}{str(field).upper()}"
