"""Finds the functions that build and train networks: ours, and users' on an allow-list."""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from domain import functions
from domain.errors import JobError
from worker import budgets


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Turn whatever a registered network raises into a JobError: it is input, not our code.

    An out-of-memory error is the machine's fault and passes through.
    """
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        if budgets.is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0][:300]
        raise JobError(f"{what} raised {type(error).__name__}: {reason}") from error


def load(kind: str, name: str, allowed: Iterable[str], *, setting: str) -> Callable[..., Any]:
    """The function with this name.

    Args:
        kind: the word for it in messages: `factory` or `recipe`.
        name: `package.module:function`.
        allowed: such names, or `package.module:*` for what that module itself defines.
        setting: the environment variable that holds the list.

    Raises:
        JobError: the function is not allowed, or cannot be imported.
    """
    allowed = set(allowed)
    if not functions.is_allowed(name, allowed):
        raise JobError(
            f"The {kind} {name!r} is not on the allow-list ({setting}); ask your administrator "
            "to add it."
        )
    module_name, _, function_name = name.partition(":")
    with users_code(f"The {kind} {name!r}"):
        module = _imported(module_name)
        function: Callable[..., Any] = getattr(module, function_name)
    home = getattr(function, "__module__", "")
    if not functions.is_listed(name, allowed) and not f"{home}.".startswith(f"{module.__name__}."):
        raise JobError(
            f"{name!r} is only imported there, and {module_name}:* allows only what the module "
            "defines; name the module that defines it."
        )
    return function


def source_sha256(function: Callable[..., Any]) -> str | None:
    """SHA-256 of the file that defines the function; None where Python knows no such file."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    file = getattr(module, "__file__", None)
    return None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _imported(name: str) -> ModuleType:
    """The module with this name, or the one it has moved to."""
    moved_to = functions.MOVED.get(name)
    return importlib.import_module(name if moved_to is None or _exists(name) else moved_to)


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # nor the package around it
        return False
