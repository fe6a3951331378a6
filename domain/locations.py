"""Which files a URI may name: those below the directories in the settings.

Each form that a location takes on its way, as sent, decoded and with its links resolved, is checked
for itself: what is harmless before a step may not be so after it.
"""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from domain.errors import LocationRefused

LONGEST_PATH, LONGEST_NAME = 4095, 255
"""In bytes; what Linux allows of a path, and of each name in it."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def allowed_path(uri: str, roots: Iterable[Path]) -> Path:
    """The path a `file://` URI or absolute path names, links resolved.

    Raises:
        LocationRefused: it is not a local path, lies outside every root, or names what is neither
            a file nor a directory.
    """
    return inside(_named(uri), roots)


def inside(path: Path, roots: Iterable[Path]) -> Path:
    """The path with its links resolved. It need not exist; what is there is not opened.

    Raises:
        LocationRefused: as by `allowed_path`.
    """
    _check_text(str(path))
    _check_length(str(path))
    resolved = _resolved(path)
    _check_text(str(resolved))  # links may lead to names of any kind
    _check_length(str(resolved))
    if not any(resolved.is_relative_to(_resolved(root)) for root in roots):
        raise LocationRefused(
            "The location is outside the allowed directories (LETHE_DATA_ROOTS). Move the files "
            "into one of them, or ask your administrator to allow their directory."
        )
    _check_kind(resolved)
    return resolved


def require_file(path: Path) -> None:
    """Raise LocationRefused if something other than a file is there: to open a named pipe would
    wait for whoever writes to it. What does not exist, or may not be looked at, passes."""
    _check_kind(path, directory=False)


def _named(uri: str) -> Path:
    """The path that a location names, decoded."""
    _check_text(uri)
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise LocationRefused("Give the location as an absolute path or a file:// URI.") from None
    if parts.scheme not in ("", "file"):
        raise LocationRefused(
            f"Locations such as {parts.scheme!r} are not supported; use an absolute path or a "
            "file:// URI."
        )
    if parts.netloc not in ("", "localhost"):
        raise LocationRefused(
            "The location names another host, and only this machine's files can be read. Give an "
            "absolute path, or a URI with three slashes such as file:///data/name."
        )
    if "?" in uri or "#" in uri:
        raise LocationRefused(
            "Remove the query or the fragment from the location. If a name in it contains `?` or "
            "`#`, write them in a file:// URI as `%3F` and `%23`."
        )
    path = _decoded(parts.path) if parts.scheme else uri
    if not path.startswith("/") or path.startswith("//"):
        raise LocationRefused("Give the location as an absolute path or a file:// URI.")
    return Path(path)


def _decoded(encoded: str) -> str:
    """Once: what is still encoded then belongs to the name."""
    if _STRAY_PERCENT.search(encoded):
        raise LocationRefused(
            "The URI contains a `%` that no two hex digits follow; write it as `%25`."
        )
    try:
        return unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise LocationRefused(_RENAME) from None


_RENAME = "A name in the location is not valid UTF-8; rename the file or directory."


def _check_text(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise LocationRefused(_RENAME) from None
    if _CONTROL.search(path) or "\\" in path:
        raise LocationRefused(
            "Control characters (such as NUL or a line break) and backslashes cannot be part of a "
            "location. Rename the file, or write the path with `/`."
        )


def _check_length(path: str) -> None:
    encoded = path.encode()
    if len(encoded) > LONGEST_PATH or max(map(len, encoded.split(b"/"))) > LONGEST_NAME:
        raise LocationRefused(
            f"The location is too long: a path has at most {LONGEST_PATH} bytes, and each name in "
            f"it at most {LONGEST_NAME}. Correct it, or give the file a shorter name."
        )


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, up to Python 3.12
        raise LocationRefused(_LOOP) from None


_LOOP = "The location cannot be resolved: a link in it leads back to itself. Correct the link."


def _check_kind(path: Path, *, directory: bool = True) -> None:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # the job that reads it says so
    except OSError as error:
        detail = f"The location cannot be read ({error.strerror}). Correct it, or mend the disk."
        raise LocationRefused(detail) from error
    if not (stat.S_ISREG(mode) or (directory and stat.S_ISDIR(mode))):
        wanted = "a file or a directory" if directory else "a file"
        raise LocationRefused(
            f"{path.name} is not {wanted} but {_kind(mode)}. Put a file in its place, or name "
            "another location."
        )


def _kind(mode: int) -> str:
    for is_kind, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if is_kind(mode):
            return name
    return "a device"
