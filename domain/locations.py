"""Which files a URI may name: those below the directories in the settings."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from domain.errors import LocationRefused


def allowed_path(uri: str, roots: Iterable[Path]) -> Path:
    """The path a `file://` URI or absolute path names, links resolved.

    Raises:
        LocationRefused: it is not a local path, or lies outside every root.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        raise LocationRefused(
            f"Locations such as {parts.scheme or parts.netloc!r} are not supported; use an "
            "absolute path or a file:// URI."
        )
    if parts.query or parts.fragment or "\0" in uri:
        raise LocationRefused(
            "Remove the query, the fragment or the NUL character from the location."
        )
    path = Path(unquote(parts.path) if parts.scheme else uri)
    if not path.is_absolute():
        raise LocationRefused("Give the location as an absolute path or a file:// URI.")
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        raise LocationRefused(
            "The location is outside the allowed directories (LETHE_DATA_ROOTS). Move the files "
            "into one of them, or ask your administrator to allow their directory."
        )
    return resolved
