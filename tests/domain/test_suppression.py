"""Which ids may not come back, according to the database."""

import pytest
from sqlalchemy import func, select, text

from domain.errors import NotFound
from domain.suppression import elsewhere, suppressed
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


def test_each_id_costs_one_digest_however_many_models_have_forgotten_it(sync_sessions):
    """With a digest for each pair of them, this takes a minute."""
    ids, models = 40_000, 200
    with sync_sessions.begin() as session:
        mine, other = factories.dataset(name="mine"), factories.dataset(name="other")
        trained = [factories.model(other, name=f"m{n}") for n in range(models)]
        job = factories.job(model_id=trained[0].id, finished=True)
        graves = [
            factories.tombstone(model, job, f"t{n}")
            for model in trained
            for n in (1, 2, ids - 1, ids)
        ]
        for rows in ([mine, other], trained, [job], graves):
            session.add_all(rows)
            session.flush()
        each = func.generate_series(0, ids - 1).column_valued("n")
        named = select(func.concat("t", each).label("id"))
        session.execute(text("SET LOCAL statement_timeout = '8s'"))
        assert elsewhere(session, mine.id, named) == {"other": 3}
        assert session.scalar(text("SHOW enable_nestloop")) == "on"
        assert elsewhere(session, other.id, named) == {}
