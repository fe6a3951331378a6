"""Where the store keeps a file: the one place that says so.

The worker writes files there (`worker.store.artifacts`), the API reads weights.
"""

from pathlib import Path

FOLDER = "objects"


def path_of(store: Path, digest: str) -> Path:
    """The path of the file with this SHA-256, in hex; whether it exists or not."""
    return store / FOLDER / digest[:2] / digest
