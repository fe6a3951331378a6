"""Migrations create the tables as declared, and can be undone."""

import json
from collections.abc import Sequence

import psycopg
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import Session

from domain import sample_digests
from domain.states import RequestStatus
from domain.tables import Base, IdempotencyKey
from service.deletion_requests.schemas import DeletionRequestRead
from tests import factories


def connect(url: str) -> psycopg.Connection:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


def store(url: str, *together: Sequence[Base]) -> None:
    """Commit these rows, those that others refer to first."""
    engine = create_engine(url)
    with Session(engine, expire_on_commit=False) as session:
        for rows in together:
            session.add_all(rows)
            session.flush()
        session.commit()
    engine.dispose()


def tables(url: str) -> set[str]:
    with connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in rows}


def constraints(url: str) -> set[tuple[str, str, str]]:
    with connect(url) as connection:
        return set(
            connection.execute(
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) "
                "FROM pg_constraint WHERE connamespace = 'public'::regnamespace "
                "AND contype <> 't' AND conrelid <> 0 "
                "AND conrelid::regclass::text <> 'alembic_version'"
            )
        )


def test_up_down_and_up_again(new_database, alembic):
    url = new_database()

    alembic("upgrade", url, "head")
    first = constraints(url)
    alembic("downgrade", url, "base")
    assert tables(url) == {"alembic_version"}
    alembic("upgrade", url, "head")

    assert tables(url) == {"alembic_version", *Base.metadata.tables}
    assert constraints(url) == first


def test_what_waits_for_a_decision_is_not_lost_on_the_way_down(new_database, alembic):
    url = new_database()
    alembic("upgrade", url, "head")
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, finished=True)
    review = RequestStatus.NEEDS_REVIEW
    request = factories.request(dataset, status=review)
    target = factories.target(request, model, job_id=job.id, status=review)
    store(url, [dataset], [model], [job], [request], [target])

    alembic("downgrade", url, "155a4eee58fe")

    with connect(url) as connection:
        targets = connection.execute("SELECT status, job_id FROM deletion_targets").fetchall()
        requests = connection.execute("SELECT status FROM deletion_requests").fetchall()
    assert (targets, requests) == ([("pending", None)], [("pending",)])


def test_tombstones_become_digests_under_a_key_and_find_their_samples_again(new_database, alembic):
    url = new_database()
    alembic("upgrade", url, "head")
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, finished=True)
    ended = factories.request(
        dataset, status=RequestStatus.COMPLETED, finished_at=factories.NOW, commitment="ab"
    )
    review = factories.request(dataset, status=RequestStatus.FAILED, finished_at=factories.NOW)
    names = [sample.sample_id for sample in factories.samples(dataset)]
    graves = factories.tombstones(model, job, *names, "no longer indexed")
    store(url, [dataset], [model], [job], factories.samples(dataset), graves, [ended, review])

    alembic("downgrade", url, "3d9e5f60a1c7")

    with connect(url) as connection:
        buried = {name for (name,) in connection.execute("SELECT sample_id FROM tombstones")}
        for request in (ended, review):
            connection.execute("INSERT INTO request_samples VALUES (%s, 't1')", [request.id])
    assert buried == {*names}

    alembic("upgrade", url, "head")

    with connect(url) as connection:
        [(key,)] = connection.execute("SELECT tombstone_key FROM datasets").fetchall()
        digests = {digest for (digest,) in connection.execute("SELECT digest FROM tombstones")}
        kept = connection.execute("SELECT request_id FROM request_samples").fetchall()
    assert digests == {sample_digests.digest(key, name) for name in names}
    assert kept == [(review.id,)]


def test_an_answer_of_before_is_one_of_now(new_database, alembic):
    url = new_database()
    alembic("upgrade", url, "head")
    dataset = factories.dataset()
    request = factories.request(dataset, samples=3, reason="Article 17")
    asked = [["cnn", 0, 1], ["vit", 3, 0]]
    key = IdempotencyKey(key="key", fingerprint="f", request_id=request.id, asked=asked)
    store(url, [dataset], [request], [key])

    alembic("downgrade", url, "e7a9316f52c8")

    with connect(url) as connection:
        [(response,)] = connection.execute("SELECT response FROM idempotency_keys").fetchall()
    later = {"rows": None}  # said of the dataset's files by later releases only
    answer = DeletionRequestRead.model_validate({**json.loads(response["body"]), **later})
    assert (answer.id, answer.status, answer.reason) == (request.id, "pending", "Article 17")
    assert [target.status for target in answer.targets] == ["pending", "completed"]

    alembic("upgrade", url, "head")

    with connect(url) as connection:
        assert connection.execute("SELECT asked FROM idempotency_keys").fetchall() == [(asked,)]


def test_a_report_of_before_forgets_the_ids_of_its_examples(new_database, alembic):
    url = new_database()
    alembic("upgrade", url, "head")
    examples = [{"row": 4, "sample_id": "person-1"}, {"row": 9, "sample_id": None}]
    report = {"rows": 10, "bad_rows": {"label_missing": {"count": 2, "examples": examples}}}
    good = {"rows": 3, "bad_rows": {}}
    reports = [report, good, None]
    store(url, [factories.dataset(name=f"d{n}", report=each) for n, each in enumerate(reports)])
    alembic("downgrade", url, "c17e5a90d3b8")
    alembic("downgrade", url, "-1")

    alembic("upgrade", url, "head")

    with connect(url) as connection:
        found = connection.execute("SELECT report FROM datasets ORDER BY name").fetchall()
    kept = {"count": 2, "examples": [{"row": 4}, {"row": 9}]}
    assert found == [({"rows": 10, "bad_rows": {"label_missing": kept}},), (good,), (None,)]


def test_models_of_before_keep_requests_waiting_no_longer_than_they_did(new_database, alembic):
    url = new_database()
    alembic("upgrade", url, "head")
    dataset = factories.dataset()
    policies = {
        "bare": {}, "older": {"batch": {"max_samples": 7}}, "none": {"batch": {"window": "PT0S"}},
        "some": {"batch": {"window": "PT10M"}}, "new": {"batch": {"window": None}},
    }  # fmt: skip
    models = [factories.model(dataset, name=name, policy=given) for name, given in policies.items()]
    store(url, [dataset], models)

    alembic("downgrade", url, "b3d8e61f9a47")
    alembic("upgrade", url, "head")

    with connect(url) as connection:
        found = dict(connection.execute("SELECT name, policy FROM models").fetchall())
    at_once = {"batch": {"window": "PT0S"}}
    assert found == {
        "bare": at_once, "older": {"batch": {"max_samples": 7, "window": "PT0S"}}, "none": at_once,
        "some": policies["some"], "new": at_once,
    }  # fmt: skip


def test_nothing_is_left_to_migrate(owner_url, alembic):
    alembic("check", owner_url)


def test_constraints_are_those_of_the_tables(owner_url, new_database):
    created = new_database()
    engine = create_engine(created)
    Base.metadata.create_all(engine)
    engine.dispose()

    migrated = constraints(owner_url)

    assert migrated == constraints(created)
    assert sum("CHECK" in definition for *_, definition in migrated) > 10
