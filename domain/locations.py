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
            f"{parts.scheme or parts.netloc!r} locations are not supported; "
            "use an absolute path or a file:// URI."
        )
    if parts.query or parts.fragment or "\0" in uri:
        raise LocationRefused("A location has no query, no fragment and no NUL byte.")
    path = Path(unquote(parts.path) if parts.scheme else uri)
    if not path.is_absolute():
        raise LocationRefused("A location is an absolute path or a file:// URI.")
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        raise LocationRefused(
            "The location lies outside the allowed directories (LETHE_DATA_ROOTS); "
            "ask your administrator to add its directory, or move the files."
        )
    return resolved
