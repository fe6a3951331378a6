"""How long a request says it waits for others, and how long the planner lets it."""

import random
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.dialects import postgresql

from domain import batching
from domain.states import Objective, RequestStatus
from domain.tables import AuditEvent, DeletionTarget, Job
from service.deletion_requests import reading, statements
from service.deletion_requests.demands import DeletionRequestCreate
from service.paging import Window
from tests import factories
from tests.service.submitting import URL, submit
from worker.housekeeping import planner

WEEK = timedelta(days=7)


@pytest.fixture
async def dataset(store):
    dataset = factories.dataset()
    await store(dataset, *factories.samples(dataset))
    return dataset


@pytest.fixture
async def held(store, dataset, request):
    """A model whose policy says how long requests wait, as it is stored."""
    await store(factories.model(dataset, policy={"batch": {"window": request.param}}))


def waits(body):
    """How long it waits, from when it was stored."""
    assert body["planned_for"] == body["targets"][0]["planned_for"]
    planned = datetime.fromisoformat(body["planned_for"])
    return planned - datetime.fromisoformat(body["created_at"])


@pytest.mark.parametrize(
    ("held", "ago", "expected"),
    [
        (None, timedelta(0), WEEK),
        (None, timedelta(days=16), "quarter"),
        (None, timedelta(days=29), timedelta(0)),
        (None, timedelta(days=60), timedelta(0)),
        ("PT0S", timedelta(0), timedelta(0)),
        ("PT1H30M", timedelta(0), timedelta(minutes=90)),
        ("P7D", timedelta(days=16), WEEK),
        ("P7D", timedelta(days=24), "three days before"),
    ],
    indirect=["held"],
)
async def test_a_request_waits_as_the_policy_says(client, held, ago, expected):
    received = datetime.now(UTC) - ago
    body = (await submit(client, received_at=received.isoformat())).json()

    left = datetime.fromisoformat(body["due_at"]) - datetime.fromisoformat(body["created_at"])
    told = {"quarter": left / 4, "three days before": left - timedelta(days=3)}
    assert waits(body) == pytest.approx(told.get(expected, expected), abs=timedelta(seconds=5))
    assert (await client.get(f"{URL}/{body['id']}")).json() == body
    assert (await client.get(URL)).json()["items"] == [body]


@pytest.mark.parametrize("held", [None], indirect=True)
async def test_an_urgent_one_goes_now_with_those_that_wait_beside_it(client, held, sessions):
    first = (await submit(client)).json()
    removal = (await submit(client, sample_ids=["t4"], objective="remove_class")).json()
    urgent = (await submit(client, sample_ids=["t3"], urgent=True)).json()

    assert (urgent["urgent"], waits(urgent)) == (True, timedelta(0))
    now = (await client.get(f"{URL}/{first['id']}")).json()
    assert now["planned_for"] == urgent["planned_for"] < first["planned_for"]
    assert (await client.get(f"{URL}/{removal['id']}")).json() == removal
    async with sessions.begin() as session:
        told = await session.scalars(select(AuditEvent.data).order_by(AuditEvent.id))
        assert [each["urgent"] for each in told] == [False, False, True]
        await session.run_sync(planner.plan)
    for given, status in ((first, "scheduled"), (urgent, "scheduled"), (removal, "pending")):
        after = (await client.get(f"{URL}/{given['id']}")).json()
        assert after["status"] == status
        assert (after["planned_for"] is None) == (status == "scheduled")


@pytest.mark.parametrize(
    ("held", "seconds"), [(None, "60"), ("PT0S", "2"), ("PT30S", "30")], indirect=["held"]
)
async def test_nobody_need_ask_often_while_a_request_is_held_back(client, held, seconds):
    response = await submit(client)
    followed = await client.get(response.headers["Location"])

    told = {each.headers["Retry-After"] for each in (response, followed)}
    assert all(int(seconds) - 5 <= int(each) <= int(seconds) for each in told)
    urgent = await submit(client, sample_ids=["t3"], urgent=True)
    assert urgent.headers["Retry-After"] == "2"
    assert (await client.get(response.headers["Location"])).headers["Retry-After"] == "2"


@pytest.mark.parametrize("held", [None], indirect=True)
async def test_a_repetition_says_what_the_first_answer_said(client, held, problem):
    first = await submit(client, "k")
    await submit(client, sample_ids=["t3"], urgent=True)

    again = await submit(client, "k", urgent=False)

    assert again.content == first.content
    problem(await submit(client, "k", urgent=True), 422, "idempotency-key-reused")


async def test_what_was_sent_before_anything_was_urgent_keeps_its_fingerprint(model):
    body = '{"model":"cnn","dataset":null,"sample_ids":["t1"],"objective":"untrain_samples"'
    body += ',"exact":false,"subject_ref":null,"received_at":null,"reason":null}'

    wanted = DeletionRequestCreate(model="cnn", sample_ids=["t1"], urgent=False)

    assert wanted.fingerprint() == sha256(body.encode()).hexdigest()


async def test_a_request_waits_as_long_as_the_last_of_its_models(client, store, dataset):
    for name, window in (("a", "PT1H"), ("b", "PT2H"), ("c", "PT0S")):
        await store(factories.model(dataset, name=name, policy={"batch": {"window": window}}))

    body = (await submit(client, model=None, dataset="digits")).json()

    planned = [target["planned_for"] for target in body["targets"]]
    assert body["planned_for"] == planned[1] == max(planned)
    assert len({*planned}) == 3


async def test_the_planner_does_what_the_answers_say(sessions, store):
    """Many models with some requests each, of either objective, that wait or do not, in vain or
    not: a request gets a job just when it says that it waits no longer."""
    dice = random.Random(21)
    dataset = factories.dataset()
    await store(dataset)
    now = datetime.now(UTC)
    models = [factories.model(dataset, name=f"m{number}") for number in range(40)]
    requests, targets = [], []
    for model in models:
        for _ in range(dice.randint(1, 4)):
            age = timedelta(days=dice.randint(0, 9))
            objective = dice.choice([*Objective])
            made = factories.request(dataset, objective=objective, created_at=now - age)
            until = dice.choice([None, now - timedelta(days=1), *[now + WEEK] * 4])
            left = {"former": 1} if dice.random() < 0.2 else {}
            requests.append(made)
            targets.append(factories.target(made, model, waits_until=until, **left))
    await store(*models, *requests, *targets)
    page = await reading.find(sessions, Window(limit=200), status=None, model=None)
    said = {each.id: each.planned_for for each in page.items}

    async with sessions.begin() as session:
        await session.run_sync(planner.plan)
        found = await session.execute(select(DeletionTarget.request_id, DeletionTarget.job_id))
        served = {request_id: job_id for request_id, job_id in found}
        jobs = await session.execute(select(Job.model_id, Job.objective))
        taken = {model_id: objective for model_id, objective in jobs}
    # A model has one job at a time: what has another objective than that waits for its end.
    free = {
        made.id
        for made, target in zip(requests, targets, strict=True)
        if taken.get(target.model_id, made.objective) == made.objective
    }
    assert len(said) == len(served) > 80
    expected = {each for each in free if said[each] is not None and said[each] <= now}
    assert {each for each in free if served[each]} == expected
    assert len(expected) > 10
    assert sum(planned is None for planned in said.values()) > 10


async def test_the_instant_is_looked_up_in_an_index(sessions, model):
    """However many wait: to add them up took half a second for each answer, of 20,000."""
    query = statements.reading(statements.requests.c.id == model.id)
    plain = {"dialect": postgresql.dialect(), "compile_kwargs": {"literal_binds": True}}
    async with sessions() as session:
        for name in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
            await session.execute(text(f"SET LOCAL {name} = off"))
        plan = "\n".join(await session.scalars(text(f"EXPLAIN {query.compile(**plain)}")))

    assert "deletion_targets_waiting_idx" in plan


def test_the_rule_for_one_that_comes_in_now():
    now, day = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1)
    for left, quarter in ((31, 7), (20, 5), (2, 0.5), (-3, 0)):
        found = batching.limits(now, now + left * day, urgent=False)
        assert found == {"last": now + (left - 3) * day, "usual": quarter * day}
    assert batching.limits(now, now + 31 * day, urgent=True)["last"] < now


async def test_what_waits_for_a_new_version_names_no_instant(client, model, sessions):
    body = (await submit(client)).json()
    async with sessions.begin() as session:
        await session.execute(update(DeletionTarget).values(former=1))

    waiting = (await client.get(f"{URL}/{body['id']}")).json()

    assert (waiting["status"], waiting["planned_for"]) == (RequestStatus.PENDING, None)
