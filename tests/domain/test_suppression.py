"""Which ids may not come back, according to the database."""

import pytest

from domain.errors import NotFound
from domain.suppression import suppressed
from tests import factories


def test_those_of_many_ids_that_were_forgotten_are_found(sync_sessions):
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, finished=True)
    with sync_sessions.begin() as session:
        for row in (dataset, model, job, *factories.tombstones(model, job, "t1", "t19999")):
            session.add(row)
            session.flush()

    with sync_sessions.begin() as session:
        assert suppressed(session, "digits", (f"t{n}" for n in range(20_000))) == {"t1", "t19999"}
        assert suppressed(session, "digits", []) == set()
        with pytest.raises(NotFound):
            suppressed(session, "nobody", ["t1"])
