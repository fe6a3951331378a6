"""The checker finds every defect it is meant for: each is planted into a stack without any."""

import re
from collections.abc import Callable
from uuid import uuid4

import pytest

from chaos.promise import Promise
from devstack import local
from domain import sample_digests
from tests import factories
from tests.chaos.planted import Planted, elsewhere, moved_on, refused


def test_a_house_without_a_defect_has_no_violation(stack: Planted):
    assert stack.found() == []


def test_a_version_may_be_purged_when_its_grace_is_over(stack: Planted):
    purge(stack, left=0)

    assert stack.found() == []


def test_a_version_may_be_trained_elsewhere_if_its_job_says_so(stack: Planted):
    elsewhere(stack, "t2", "t3")

    assert stack.found() == []


def test_a_version_may_be_trained_without_what_its_model_was_asked_to_forget(stack: Planted):
    elsewhere(stack, "t2", left_out=3)
    stack.sql(f"INSERT INTO tombstones VALUES (%(model)s, {T3}, %(job)s)")
    assert stack.rules() == {"tombstone_unasked"}

    stack.others.append(Promise("other", frozenset({"t3"}), frozenset({"cnn"})))

    assert stack.found() == []


def test_a_version_may_be_refused_if_it_was_trained_on_what_is_forgotten(stack: Planted):
    refused(stack, "t0", "t2")

    assert stack.found() == []


def test_a_dataset_may_move_on(stack: Planted):
    moved_on(stack, *samples(stack))

    assert stack.found() == []


def samples(stack: Planted) -> list[str]:
    rows = stack.connection.execute("SELECT sample_id FROM samples").fetchall()
    return [row["sample_id"] for row in rows]


def then(first: Callable[..., None], *ids: str, sql: str = "SELECT") -> Callable[[Planted], None]:
    """First this, about these samples, and then statements, divided by semicolons."""

    def plant(stack: Planted) -> None:
        first(stack, *ids)
        by_sql(*sql.split(";"))(stack)

    return plant


def told_twice(stack: Planted) -> None:
    refused(stack, "t0")
    stack.event("version.failed", "model", job=str(stack.ids["refusing"]))


def by_sql(*statements: str) -> Callable[[Planted], None]:
    def plant(stack: Planted) -> None:
        for statement in statements:
            stack.sql(statement)

    return plant


def by_event(event: str, subject: str, **data: object) -> Callable[[Planted], None]:
    return lambda stack: stack.event(event, subject, **data)


def by_promise(**changes: object) -> Callable[[Planted], None]:
    def plant(stack: Planted) -> None:
        for name, value in changes.items():
            setattr(stack.promise, name, value)

    return plant


def by_file(place: str, content: bytes = b"x") -> Callable[[Planted], None]:
    def plant(stack: Planted) -> None:
        path = stack.store / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return plant


def purge(stack: Planted, left: int) -> None:
    """As the worker does when the grace is over, three days later."""
    where = "WHERE id = %(first)s"
    stack.sql(f"UPDATE model_versions SET purge_after = now(), purged_at = now() {where}")
    stack.event("version.purged", "first", left=left)
    found = stack.connection.execute(f"SELECT * FROM model_versions {where}", stack.ids).fetchone()
    assert found
    for role in ("weights", "statistics", "reservoir"):
        digest = found[f"{role}_sha256"]
        (stack.store / "objects" / digest[:2] / digest).unlink()


def damage(stack: Planted) -> None:
    for path in (stack.store / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")


def remove(stack: Planted) -> None:
    for path in (stack.store / "objects").rglob("*"):
        if path.is_file():
            path.unlink()


REQUEST = "UPDATE deletion_requests SET {} WHERE id = %(request)s"

TARGET = "UPDATE deletion_targets SET {} WHERE request_id = %(request)s"

JOB = "UPDATE jobs SET {} WHERE id = %(job)s"

FIRST = "UPDATE model_versions SET {} WHERE id = %(first)s"

SECOND = "UPDATE model_versions SET {} WHERE id = %(second)s"

COPY_SECOND = """
    INSERT INTO model_versions
    SELECT (jsonb_populate_record(version, jsonb_build_object({}))).*
    FROM model_versions version WHERE id = %(second)s
"""

T0, T2, T3, T9 = (
    f"decode('{sample_digests.digest(factories.KEY, name).hex()}', 'hex')"
    for name in ("t0", "t2", "t3", "t9")
)

OFFER = "UPDATE version_registrations SET {}"

TOLD = "DELETE FROM audit_events WHERE {}"

ELSEWHERE = "kind = 'register_version', verdict = NULL, base_version_id = {}"

EVENT = "UPDATE audit_events SET {} WHERE subject_id = %(second)s"

PLANTED: list[tuple[str, Callable[[Planted], None]]] = [
    ("client_complains", by_promise(complaints=["GET after 202 was answered 404"])),
    ("answers_differ", by_promise(answers={b"{}", b"{ }"})),
    ("request_lost", by_sql("DELETE FROM deletion_requests")),
    ("samples_differ", by_sql(REQUEST.format("status = 'failed'"))),
    ("samples_left", by_sql("INSERT INTO request_samples VALUES (%(request)s, 't1')")),
    ("target_missing", by_sql("DELETE FROM deletion_targets")),
    ("request_failed", by_sql(REQUEST.format("status = 'failed'"))),
    ("request_open", by_sql(REQUEST.format("status = 'running', finished_at = NULL"))),
    ("request_cancelled", by_sql(REQUEST.format("status = 'cancelled'"))),
    ("cancel_ignored", by_promise(cancel_asked=True, cancelled=True)),
    ("finished_at_wrong", by_sql(REQUEST.format("finished_at = NULL"))),
    ("sum_wrong", by_sql(TARGET.format("status = 'needs_review'"))),
    ("job_not_completed", by_sql(JOB.format("status = 'queued'"))),
    (
        "candidate_missing",
        by_sql(TARGET.format("status = 'needs_review'"), "DELETE FROM model_versions"),
    ),
    (
        "request_doubled",
        by_sql(
            "INSERT INTO deletion_requests SELECT (jsonb_populate_record(request, "
            "jsonb_build_object('id', gen_random_uuid()))).* FROM deletion_requests request"
        ),
    ),
    ("key_wrong", by_sql("UPDATE idempotency_keys SET request_id = gen_random_uuid()")),
    (
        "key_unknown",
        by_sql(
            "INSERT INTO idempotency_keys (key, fingerprint, request_id, asked) "
            "VALUES ('other', '', %(request)s, '[]')"
        ),
    ),
    ("job_open", by_sql(JOB.format("status = 'running', lease_until = now()"))),
    ("job_failed", by_sql(JOB.format("status = 'failed', failure = '{}'"))),
    (
        "sample_doubled",
        by_sql(
            "ALTER TABLE tombstones DROP CONSTRAINT tombstones_pkey CASCADE",
            f"INSERT INTO tombstones SELECT * FROM tombstones WHERE digest = {T0}",
        ),
    ),
    ("sample_doubled", by_sql(EVENT.format("data = data || '{\"samples\": 5}'"))),
    ("tombstone_missing", by_sql(f"DELETE FROM tombstones WHERE digest = {T0}")),
    ("tombstone_unasked", by_sql(f"INSERT INTO tombstones VALUES (%(model)s, {T9}, %(job)s)")),
    (
        "version_doubled",
        by_sql(
            "DROP INDEX model_versions_one_champion_idx",
            "ALTER TABLE model_versions DROP CONSTRAINT model_versions_job_id_key",
            COPY_SECOND.format("'id', gen_random_uuid(), 'number', 3"),
        ),
    ),
    ("version_missing", by_sql("DELETE FROM model_versions WHERE number = 2")),
    ("version_unasked", by_sql(JOB.format("status = 'failed', failure = '{}'"))),
    ("numbers_wrong", by_sql(SECOND.format("number = 3"))),
    ("champions_wrong", by_sql(SECOND.format("status = 'candidate'"))),
    (
        "champions_wrong",
        by_sql(
            "DROP INDEX model_versions_one_champion_idx",
            "UPDATE model_versions SET status = 'champion', superseded_at = NULL",
        ),
    ),
    ("ancestry_broken", by_sql(SECOND.format("parent_id = gen_random_uuid()"))),
    ("ancestry_broken", by_sql(SECOND.format("parent_id = NULL"))),
    (
        "ancestry_broken",  # only the job says that it was trained elsewhere
        by_sql(SECOND.format("parent_id = NULL"), JOB.format("base_version_id = %(first)s")),
    ),
    (
        "ancestry_broken",
        by_sql(
            SECOND.format("parent_id = NULL"),
            JOB.format(ELSEWHERE.format("gen_random_uuid()")),
        ),
    ),
    (
        "version_missing",
        by_sql(
            "DELETE FROM model_versions WHERE number = 2",
            "DELETE FROM tombstones",
            JOB.format(ELSEWHERE.format("%(first)s")),
        ),
    ),
    ("event_missing", by_sql(JOB.format(ELSEWHERE.format("%(first)s")))),
    (
        "ancestor_not_superseded",
        by_sql(
            "UPDATE model_versions SET status = 'candidate', superseded_at = NULL WHERE number = 1"
        ),
    ),
    (
        "champion_regressed",
        by_sql(
            SECOND.format("status = 'superseded', superseded_at = now(), purge_after = now()"),
            "UPDATE model_versions SET status = 'champion', superseded_at = NULL WHERE number = 1",
        ),
    ),
    ("purge_overdue", by_sql(FIRST.format("purge_after = now() - interval '1 hour'"))),
    ("purged_early", by_sql(FIRST.format("purged_at = purge_after - interval '1 hour'"))),
    ("purged_file_left", by_sql(FIRST.format("purged_at = purge_after"))),
    ("purged_file_left", lambda stack: purge(stack, left=1)),
    ("event_missing", by_sql(FIRST.format("purged_at = purge_after"))),
    ("event_missing", by_event("version.purged", "first", left=0)),
    ("position_missing", by_sql("DELETE FROM audit_leaves WHERE position = 3")),
    ("round_not_kept", by_sql("UPDATE rounds SET kept = false")),
    ("evaluation_missing", by_sql("DELETE FROM evaluations WHERE moment = 'before'")),
    ("cycles_wrong", by_sql("DELETE FROM alignment_scores WHERE cycle = 1")),
    ("cycles_wrong", by_sql("UPDATE alignment_scores SET attempt = 3 WHERE cycle = 1")),
    ("file_missing", remove),
    ("hash_wrong", damage),
    ("orphan", by_file(f"objects/ab/{'ab' * 32}")),
    ("unfinished_left", by_file("incoming-abc")),
    ("checkpoint_left", by_file(f"checkpoints/{uuid4()}/model.safetensors")),
    (
        "kept_though_forgotten",
        by_sql(f"UPDATE tombstones SET digest = {T2} WHERE digest = {T0}"),
    ),
    (
        "events_out_of_order",
        by_sql("UPDATE audit_events SET at = now() WHERE event = 'request.received'"),
    ),
    ("event_missing", by_sql("DELETE FROM audit_events WHERE event = 'request.received'")),
    ("event_missing", by_sql("DELETE FROM audit_events WHERE event = 'request.completed'")),
    ("event_missing", by_sql("DELETE FROM audit_events WHERE event = 'job.queued'")),
    ("event_missing", by_sql("DELETE FROM audit_events WHERE event = 'job.completed'")),
    ("event_missing", by_sql("DELETE FROM audit_events WHERE event = 'version.superseded'")),
    ("event_missing", by_sql("DELETE FROM audit_events WHERE event = 'dataset.indexed'")),
    ("event_missing", by_sql("DELETE FROM audit_events WHERE event = 'model.checked'")),
    ("event_missing", by_event("version.superseded", "first")),
    ("event_differs", by_sql(EVENT.format('data = data || \'{"weights_sha256": "0"}\''))),
    ("step_unlawful", by_event("request.completed", "request")),
    ("step_unlawful", by_event("job.completed", "job", attempt=2)),
    ("attempts_wrong", by_sql(JOB.format("attempt = 3"))),
    ("attempts_wrong", by_event("job.completed", "job", attempt=1)),
    ("checkpoint_differs", by_sql(EVENT.format("actor = 'y'"))),
    ("checkpoint_differs", by_sql("UPDATE audit_checkpoints SET size = 1000 WHERE size = 11")),
    ("offer_lost", then(elsewhere, "t2", sql="DELETE FROM version_registrations")),
    ("offer_open", then(elsewhere, "t2", sql=OFFER.format("status = 'pending'"))),
    ("offer_differs", then(elsewhere, "t2", sql=OFFER.format("status = 'failed', failure = 'so'"))),
    ("offer_differs", then(elsewhere, "t2", sql="DELETE FROM model_versions WHERE number = 2")),
    ("offer_refused", then(refused, "t2")),
    ("offer_doubled", then(elsewhere, "t2", sql=OFFER.format("idempotency_key = 'another'"))),
    (
        "offer_doubled",
        then(
            elsewhere,
            "t2",
            sql="ALTER TABLE version_registrations DROP CONSTRAINT "
            "version_registrations_model_id_idempotency_key_key; "
            "INSERT INTO version_registrations SELECT (jsonb_populate_record(offered, "
            "jsonb_build_object('id', gen_random_uuid(), 'job_id', gen_random_uuid()))).* "
            "FROM version_registrations offered",
        ),
    ),
    ("trained_on_forgotten", then(elsewhere, "t0", "t2")),
    ("states_wrong", by_sql("UPDATE datasets SET state = 2")),
    ("states_wrong", then(moved_on, "t0", sql="UPDATE datasets SET state = 1")),
    ("index_differs", then(moved_on, "t0")),
    ("event_missing", told_twice),
    ("event_missing", then(moved_on, sql=TOLD.format("event = 'dataset.state_indexed'"))),
    ("event_missing", then(elsewhere, sql=TOLD.format("event = 'version.offered'"))),
    ("event_of_nothing", by_event("request.received", "nobody")),
]


@pytest.mark.parametrize(
    ("rule", "plant"), PLANTED, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(PLANTED)]
)
def test_a_planted_defect_is_named(stack: Planted, rule: str, plant: Callable[[Planted], None]):
    plant(stack)
    assert rule in stack.rules()


def test_every_rule_has_a_planted_defect():
    sources = (local.REPOSITORY / "chaos" / "checker").glob("*.py")
    rules = {
        rule
        for source in sources
        for rule in re.findall(r'Violation\(\s*"(\w+)"', source.read_text())
    }
    assert rules == {rule for rule, _ in PLANTED}


def test_a_request_that_was_cancelled_on_demand_is_right(stack: Planted):
    stack.promise.cancel_asked = stack.promise.cancelled = True
    stack.sql(REQUEST.format("status = 'cancelled'"))
    stack.sql(TARGET.format("status = 'cancelled'"))
    assert not stack.rules() & {"request_cancelled", "cancel_ignored", "sum_wrong", "request_open"}
