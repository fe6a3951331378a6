"""The samples of `model` belong to people; the fixture `groups` puts that into the index."""

from typing import Any

from sqlalchemy import update

from domain import sample_digests
from domain.tables import Sample
from tests import factories

GROUPED = {
    **factories.DEFINITION,
    "columns": {**factories.DEFINITION["columns"], "group": "person"},
}
ANN, BEN, HILDA = "ann@example.com", "4711", "Hilda"
"""Ann has t1, t3, t5 and h0, Ben t2 and t4, and Hilda h1 alone."""

OF = {"t1": ANN, "t3": ANN, "t5": ANN, "h0": ANN, "t2": BEN, "t4": BEN, "h1": HILDA}


async def move(session: Any, model: factories.Model, sample_id: str, subject: str) -> None:
    """Have the index say whose a sample is."""
    digest = sample_digests.digest(factories.GROUP_KEY, subject)
    await session.execute(
        update(Sample)
        .where(Sample.dataset_id == model.dataset_id, Sample.sample_id == sample_id)
        .values(group_digest=digest)
    )
