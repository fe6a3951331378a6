"""The database makes the same keyed digests as Python, and finds them by its index."""

import hmac

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

from domain import sample_digests, tombstones
from domain.tables import Sample
from tests import factories

STORABLE = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@pytest.fixture(scope="module")
def connection(database_url):
    engine = create_engine(database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_a_key_is_the_two_blocks_of_thirty_two_random_bytes():
    blocks = sample_digests.new_key()

    key = bytes(byte ^ sample_digests.INNER for byte in blocks[:64])
    assert key[32:] == b"\0" * 32
    assert bytes(byte ^ sample_digests.OUTER for byte in blocks[64:]) == key
    assert sample_digests.new_key() != blocks
    for name in ("t1", "ä\\ö'", "x" * 512):
        assert sample_digests.digest(blocks, name) == hmac.digest(key[:32], name.encode(), "sha256")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=STORABLE)
def test_the_database_makes_the_digests_that_python_makes(connection, name):
    made = connection.scalar(
        text(
            "SELECT hmac_sha256(substr(:key, 1, 64), substr(:key, 65, 64), CAST(:name AS text))"
        ).bindparams(key=factories.KEY, name=name)
    )

    assert made == sample_digests.digest(factories.KEY, name)


@pytest.mark.parametrize("name", ["\\", "\\\\", "\\x41", "a\\101b", "'", "ü€😀", "%s", "\x01\x7f"])
def test_no_character_is_special(connection, name):
    test_the_database_makes_the_digests_that_python_makes.hypothesis.inner_test(connection, name)


def test_a_sample_is_found_by_its_models_tombstones_alone(sync_sessions):
    dataset = factories.dataset()
    other_dataset = factories.dataset(name="other", tombstone_key=sample_digests.new_key())
    model = factories.model(dataset)
    same, other = factories.model(dataset, name="same"), factories.model(other_dataset, name="b")
    job = factories.job(model_id=model.id, finished=True)
    with sync_sessions.begin() as session:
        for rows in (
            [dataset, other_dataset],
            [model, same, other],
            [job, *factories.samples(dataset), *factories.samples(other_dataset)],
            factories.tombstones(model, job, "t1", "h0"),
        ):
            session.add_all(rows)
            session.flush()

        def forgotten(of):
            of_model = select(Sample.sample_id).where(
                Sample.dataset_id == of.dataset_id, tombstones.has(of.id, Sample.sample_id)
            )
            return set(session.scalars(of_model))

        assert forgotten(model) == {"t1", "h0"}
        assert forgotten(same) == forgotten(other) == set()


def test_a_few_samples_are_looked_up_among_many_tombstones_by_the_index(sync_sessions):
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, finished=True)
    with sync_sessions.begin() as session:
        for row in (dataset, model, job, *factories.samples(dataset)):
            session.add(row)
            session.flush()
        session.execute(
            text(
                "INSERT INTO tombstones (model_id, digest, job_id) SELECT :model, "
                "sha256(n::text::bytea), :job FROM generate_series(1, 100000) n"
            ).bindparams(model=model.id, job=job.id)
        )
        session.execute(text("ANALYZE tombstones"))
        session.execute(text("ANALYZE samples"))
        chosen = select(Sample.sample_id).where(
            Sample.dataset_id == dataset.id,
            Sample.sample_id.in_(["t1", "t2"]),
            ~tombstones.has(model.id, Sample.sample_id),
        )
        plan = _plan(session, chosen)
    assert "tombstones_pkey" in plan
    assert "hmac_sha256" not in plan  # taken apart: no call of a function for each row


def _plan(session: Session, statement) -> str:
    compiled = statement.compile(session.get_bind(), compile_kwargs={"render_postcompile": True})
    cursor = session.connection().exec_driver_sql(
        f"EXPLAIN (VERBOSE, COSTS OFF) {compiled}", compiled.params
    )
    return "\n".join(row[0] for row in cursor)
