"""The database accepts every step of `domain.states`, and no other, whoever tries it."""

from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from domain import outbox
from domain.states import (
    DELIVERY_STEPS,
    JOB_STEPS,
    REQUEST_STEPS,
    SUM_STEPS,
    VERSION_STEPS,
    DeliveryStatus,
    JobStatus,
    RequestStatus,
    VersionStatus,
)
from domain.tables import WebhookEndpoint
from tests import factories

GUARDED = {
    "deletion_targets": (RequestStatus, REQUEST_STEPS),
    "deletion_requests": (RequestStatus, SUM_STEPS),
    "jobs": (JobStatus, JOB_STEPS),
    "model_versions": (VersionStatus, VERSION_STEPS),
    "webhook_deliveries": (DeliveryStatus, DELIVERY_STEPS),
}


@pytest.fixture
def connection(owner_url):
    """A database with one row in each of these tables."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id)
    request = factories.request(dataset)
    engine = create_engine(owner_url)
    with Session(engine) as session:
        for row in (dataset, model, job, request):
            session.add(row)
            session.flush()
        session.add_all([factories.version(model, job), factories.target(request, model)])
        endpoint = WebhookEndpoint(url="https://example.org/hook", secret="whsec_AAAA")
        session.add(endpoint)
        session.flush()
        outbox.announce_test(session, endpoint.id)
        session.commit()
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def values(table, status):
    """What must change with the status, for other checks to hold."""
    if table == "jobs":
        lease = "now()" if status == "running" else "NULL"
        failure = """'{"kind": "bug"}'""" if status == "failed" else "NULL"
        return f"status = '{status}', lease_until = {lease}, failure = {failure}"
    if table == "webhook_deliveries":
        finished = "NULL" if status == "waiting" else "now()"
        return f"status = '{status}', finished_at = {finished}"
    if table == "model_versions":
        if status == "superseded":
            moments = ("superseded_at", "purge_after")
            at = ", ".join(f"{moment} = coalesce({moment}, now())" for moment in moments)
        else:
            at = "superseded_at = NULL, purge_after = NULL"
        return f"status = '{status}', {at}"
    return f"status = '{status}'"


@pytest.mark.parametrize("table", GUARDED)
def test_exactly_the_lawful_steps_are_taken(connection, table):
    statuses, steps = GUARDED[table]
    taken = set()
    for source in statuses:
        for target in statuses:
            with connection.begin():
                # As nobody but an owner of the table can: no step leads to some of the sources.
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
                connection.execute(text(f"UPDATE {table} SET {values(table, source)}"))
                connection.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))
            with suppress(IntegrityError), connection.begin():
                connection.execute(text(f"UPDATE {table} SET {values(table, target)}"))
                taken.add((source, target))

    lawful = {(source, target) for source, targets in steps.items() for target in targets}
    assert taken == lawful | {(status, status) for status in statuses}


def test_a_refusal_says_what_was_refused(connection):
    with pytest.raises(IntegrityError, match="no step leads from queued to failed in jobs"):
        connection.execute(text(f"UPDATE jobs SET {values('jobs', 'failed')}"))


def test_what_does_not_change_the_status_is_no_step(connection):
    with connection.begin():
        connection.execute(text("UPDATE deletion_requests SET reason = 'another'"))
        connection.execute(
            text("UPDATE jobs SET created_at = created_at - :some"), {"some": timedelta(days=1)}
        )
