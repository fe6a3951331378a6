"""Which samples may not be trained on, for any number of ids."""

import json
from collections.abc import Iterable, Iterator

from lethe.core import Core
from lethe.errors import NotSent
from lethe.routes.datasets import Datasets

MOST_IDS = 100_000
MOST_BYTES = 15 * 2**20
"""In one request; the service takes 16 MiB unless it is configured otherwise."""


async def suppressed(core: Core, dataset: str, sample_ids: Iterable[str]) -> set[str]:
    """Those of the ids that a model of the dataset has forgotten."""
    check = Datasets.check_ids.describe
    found: set[str] = set()
    for piece in pieces(sample_ids):
        found.update((await core.perform(check(None, dataset, piece))).suppressed)
    return found


def pieces(sample_ids: Iterable[str]) -> Iterator[list[str]]:
    """The ids, in lists that fit into a request each."""
    if isinstance(sample_ids, str):
        raise NotSent("sample_ids holds several ids; it is not one string.")
    piece: list[str] = []
    size = 0
    for sample_id in sample_ids:
        longer = len(json.dumps(sample_id)) + 1  # at least its length as it is sent
        if piece and (len(piece) == MOST_IDS or size + longer > MOST_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(sample_id)
        size += longer
    if piece:
        yield piece
