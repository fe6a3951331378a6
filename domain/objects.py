"""Where the store keeps a file: the one place that says so.

The worker writes files there (`worker.store.artifacts`), the API reads weights.
"""

from pathlib import Path

FOLDER = "objects"

PREVIEW_FIGURES, PREVIEW_PICTURE = "preview.json", "preview.png"
"""What stands beside a reservoir, for people to look at."""


def path_of(store: Path, digest: str) -> Path:
    """The path of the file with this SHA-256, in hex; whether it exists or not."""
    return store / FOLDER / digest[:2] / digest


def beside(store: Path, digest: str, what: str) -> Path:
    """The path of what was made from that file for people to look at, and goes with it."""
    path = path_of(store, digest)
    return path.with_name(f"{digest}.{what}")


def digest_in(name: str) -> str:
    """The SHA-256 that a file belongs to, by its own name."""
    return name.partition(".")[0]
