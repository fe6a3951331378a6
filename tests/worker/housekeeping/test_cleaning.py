"""What is deleted when it is old, apart from files."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from domain.settings import WorkerSettings
from domain.states import RequestStatus
from domain.tables import AuditEvent, DeletionRequest, RequestKey
from tests import factories
from worker.housekeeping import cleaning
from worker.store.artifacts import Store


@pytest.fixture
def clean(sync_sessions, tmp_path):
    def run(**settings):
        known = WorkerSettings(
            database_url="postgresql://unused",
            broker_url="redis://unused",
            store=tmp_path / "store",
            **settings,
        )
        cleaning.clean(sync_sessions, Store(known.store), known)

    return run


@pytest.fixture
def ended(sync_sessions, session, dataset):
    """A request in this status, since so many days."""

    def make(status, days):
        request = factories.request(
            dataset,
            status=status,
            finished_at=factories.NOW - timedelta(days=days),
            reason="Ms. Miller",
        )
        session.add(request)
        session.flush()
        session.add(RequestKey(request_id=request.id, key=b"k" * 32, entries=b"e" * 32))
        session.commit()
        return request

    return make


@pytest.mark.parametrize(
    ("status", "days", "retention", "is_shredded"),
    [
        (RequestStatus.COMPLETED, 401, 400, True),
        (RequestStatus.COMPLETED, 399, 400, False),
        (RequestStatus.COMPLETED, 31, 30, True),
        (RequestStatus.REFUSED, 401, 400, True),
        (RequestStatus.CANCELLED, 401, 400, True),
        (RequestStatus.FAILED, 401, 400, False),  # it may be tried again
    ],
)
def test_a_request_is_shredded_when_the_retention_is_over(
    clean, ended, session, status, days, retention, is_shredded
):
    request = ended(status, days)

    clean(evidence_retention=timedelta(days=retention))
    clean(evidence_retention=timedelta(days=retention))

    session.expire_all()
    kept = session.get_one(DeletionRequest, request.id)
    assert (kept.shredded_at is not None, kept.reason is None) == (is_shredded, is_shredded)
    assert (session.get(RequestKey, request.id) is None) == is_shredded
    events = session.execute(select(AuditEvent.event, AuditEvent.actor)).all()
    assert events == [("request.shredded", "worker")] * is_shredded


def test_the_retention_is_four_hundred_days_unless_told_otherwise(clean, ended, session):
    old, young = ended(RequestStatus.COMPLETED, 401), ended(RequestStatus.COMPLETED, 399)

    clean()

    session.expire_all()
    shredded = select(DeletionRequest.id).where(DeletionRequest.shredded_at.is_not(None))
    assert session.scalars(shredded).all() == [old.id]
    assert young.id != old.id
