"""Small JSON files beside weights, read as data from a stranger."""

import json
from math import isfinite
from pathlib import Path
from typing import Any

from domain.errors import JobError, LocationRefused
from domain.locations import require_file

LARGEST = 32 * 2**20
"""In bytes. The index of a model with 100,000 tensors has about ten million."""


def read(file: Path, *, what: str) -> dict[str, Any]:
    """The object in the file; what Postgres cannot store is refused or written in a way it can.

    NaN and infinite numbers become `{"__float__": "NaN"}`, as transformers 5 writes them.

    Args:
        what: what the file is, for messages.

    Raises:
        JobError: it is not a regular file of reasonable size with a JSON object in it.
    """
    try:
        require_file(file)
        if file.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        found = json.loads(
            file.read_text(encoding="utf-8"),
            parse_constant=_special,
            parse_float=lambda text: float(text) if isfinite(float(text)) else _special("Infinity"),
        )
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        written = json.dumps(found, ensure_ascii=False)
        if "\\u0000" in written:
            raise ValueError("a NUL character")
        written.encode()  # half of a surrogate pair cannot be
    except LocationRefused as error:
        raise JobError(error.detail) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:100]
        raise JobError(
            f"No readable {file.name} beside the weights, which is the {what} "
            f"({type(error).__name__}: {reason}); write it again."
        ) from error
    return found


def _special(name: str) -> dict[str, str]:
    """A number that JSON has not, and that libraries write all the same."""
    return {"__float__": name}
