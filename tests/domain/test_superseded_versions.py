"""No edit to the rows of versions brings a superseded one back."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from domain.states import JobKind, VersionStatus
from tests import factories


@pytest.fixture
def connection(owner_url):
    """A database with a superseded version, a champion and a candidate of one model."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    jobs = [factories.job(model_id=model.id, finished=True) for _ in range(4)]
    jobs[0].kind = JobKind.REGISTER_MODEL
    old = {"status": VersionStatus.SUPERSEDED, "superseded_at": factories.NOW}
    versions = [
        factories.version(model, jobs[0], **old),
        factories.version(model, jobs[1], number=2),
        factories.version(model, jobs[2], number=3, status=VersionStatus.CANDIDATE),
    ]
    engine = create_engine(owner_url)
    with Session(engine) as session, session.begin():
        for rows in ([dataset], [model], jobs, versions):
            session.add_all(rows)
            session.flush()
    with engine.connect() as connection:
        yield connection
    engine.dispose()


OLD = "UPDATE model_versions SET {} WHERE number = 1"
CHAMPION = "UPDATE model_versions SET {} WHERE number = 2"
RETIRE = CHAMPION.format("status = 'superseded', superseded_at = now(), purge_after = now()")
COPY = """
    INSERT INTO model_versions SELECT (jsonb_populate_record(version, jsonb_build_object(
        'id', gen_random_uuid(), 'number', 4, 'status', '{}', 'superseded_at', NULL,
        'job_id', (SELECT id FROM jobs WHERE id NOT IN (SELECT job_id FROM model_versions))
    ))).* FROM model_versions version WHERE number = {}
"""


@pytest.mark.parametrize(
    "statements",
    [
        [OLD.format("status = 'champion', superseded_at = NULL")],
        [RETIRE, OLD.format("status = 'champion', superseded_at = NULL")],
        [OLD.format("status = 'candidate', superseded_at = NULL")],
        [OLD.format("superseded_at = now()")],
        [OLD.format("purge_after = now() + interval '10 years'")],
        [OLD.format("weights_sha256 = repeat('f', 64)")],
        [OLD.format("reservoir_sha256 = repeat('f', 64)")],
        [OLD.format("number = 9")],
        [OLD.format("purged_at = now()"), OLD.format("purged_at = NULL")],
        [CHAMPION.format("weights_sha256 = repeat('a', 64)")],
        [CHAMPION.format("weights_sha256 = repeat('f', 64)")],
        [CHAMPION.format("statistics_sha256 = repeat('f', 64)")],
        [CHAMPION.format("purged_at = now()")],
        [CHAMPION.format("parent_id = NULL, mode = 'approximate'")],
        ["UPDATE model_versions SET status = 'champion' WHERE number = 3"],
        ["DELETE FROM model_versions WHERE number = 1"],
        ["DELETE FROM model_versions WHERE number = 2"],
        ["TRUNCATE model_versions CASCADE"],
        [RETIRE, COPY.format("champion", 1)],
        [RETIRE, COPY.format("champion", 2)],
        [COPY.format("candidate", 1)],
    ],
)
def test_is_refused_by_the_database(connection, statements):
    before = connection.execute(text("SELECT * FROM model_versions ORDER BY number")).all()
    connection.rollback()

    *first, last = statements
    for statement in first:
        connection.execute(text(statement))
    with pytest.raises(IntegrityError):
        connection.execute(text(last))
    connection.rollback()

    after = connection.execute(text("SELECT * FROM model_versions ORDER BY number")).all()
    assert after == before


def test_what_the_service_does_is_not_refused(connection):
    for statement in (
        CHAMPION.format("reservoir_sha256 = repeat('f', 64)"),
        RETIRE,
        "UPDATE model_versions SET status = 'champion' WHERE number = 3",
        OLD.format("purged_at = now()"),
        OLD.format("purged_at = purged_at"),
    ):
        with connection.begin():
            connection.execute(text(statement))
    statuses = "SELECT status FROM model_versions ORDER BY number"
    assert connection.scalars(text(statuses)).all() == ["superseded", "superseded", "champion"]
