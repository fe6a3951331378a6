"""Deletion requests that name subjects: people, accounts or households."""

import base64
import json
from dataclasses import replace
from hashlib import sha256

import pytest
from sqlalchemy import String, cast, func, literal_column, select, text, update

from domain import sample_digests
from domain.tables import AuditEvent, Base, Dataset, DeletionRequest, RequestSample, Sample
from evidence import commitments
from evidence.commitments import Opening
from service.deletion_requests import resolution
from service.deletion_requests.demands import DeletionRequestCreate
from tests import factories
from tests.evidence.test_commitments import climb
from tests.service.grouped import ANN, BEN, GROUPED, HILDA, move
from tests.service.submitting import URL, count, submit


async def ask(client, *subjects, key=None, **body):
    return await submit(client, key, **{"sample_ids": None, "subjects": [*subjects], **body})


async def named(sessions, request):
    async with sessions() as session:
        rows = await session.scalars(
            select(RequestSample.sample_id).filter_by(request_id=request["id"])
        )
        return sorted(rows)


async def test_a_subject_stands_for_its_samples(client, sessions, store, groups):
    await store(factories.model(factories.dataset(id=groups.dataset_id), name="other"))

    response = await ask(client, ANN, model=None, dataset="digits")

    body = response.json()
    assert response.status_code == 202, body
    assert await named(sessions, body) == ["h0", "t1", "t3", "t5"]
    assert (body["samples"], body["subjects"], body["duplicates"]) == (4, 1, 0)
    assert body["resolved"] == {
        "samples": 4, "datasets": 1, "models": 2, "unknown_subjects": 0, "meaning": None,
    }  # fmt: skip
    assert [target["not_trained_on"] for target in body["targets"]] == [1, 1]
    assert (await client.get(response.headers["Location"])).content == response.content


async def test_ids_and_subjects_add_up_and_each_sample_counts_once(client, sessions, groups):
    ids = ["t1", "t0", "t1"]

    body = (await ask(client, BEN, ANN, " 4711 ", 4711, sample_ids=ids)).json()

    assert await named(sessions, body) == ["h0", "t0", "t1", "t2", "t3", "t4", "t5"]
    assert (body["samples"], body["subjects"], body["duplicates"]) == (7, 2, 3)
    assert body["resolved"]["samples"] == 6


async def test_a_subject_is_nowhere_in_clear(client, sessions, groups, caplog, capsys):
    who = ANN
    keyed = sample_digests.digest(factories.GROUP_KEY, who)
    accepted = await ask(client, who, "nobody-4712", key="k", unknown_subjects="answer")
    answers = [accepted, await ask(client, who, "nobody-4712", key="k", unknown_subjects="answer")]
    answers += [await ask(client, "nobody-4712", model=model) for model in ("cnn", "none")]
    answers += [await ask(client, "nobody\u200b-4712"), await ask(client, who, key="k")]
    answers += [await client.post("/v1/subjects/lookup", json={"subjects": [who, "nobody-4712"]})]

    assert [each.status_code for each in answers] == [202, 202, 422, 404, 422, 422, 200]
    output = capsys.readouterr()
    told = caplog.text + output.out + output.err + "".join(each.text for each in answers)
    assert accepted.json()["id"] in told
    async with sessions() as session:
        for table in Base.metadata.tables.values():
            if table.name == "samples":
                continue
            rows = select(cast(func.to_jsonb(literal_column(table.name)), String))
            told += "".join(await session.scalars(rows.select_from(table)))
    for secret in (who, "nobody", keyed.hex(), sample_digests.digest(keyed, who).hex()):
        assert secret not in told


async def test_an_unknown_subject_is_refused_by_its_place_in_the_list(
    client, sessions, groups, problem
):
    response = await ask(client, ANN, "nobody", BEN, "nobody", "ANN@example.com")

    refusal = problem(response, 422, "unknown-subjects")
    assert (refusal["unknown_count"], refusal["unknown_positions"]) == (2, [1, 4])
    assert '"unknown_subjects": "answer"' in refusal["detail"]
    assert await count(sessions, DeletionRequest, AuditEvent) == [0, 0]


async def test_of_nobody_it_is_answered_at_once_that_nothing_was_found(client, sessions, groups):
    response = await ask(client, "nobody", unknown_subjects="answer")

    body = response.json()
    assert (response.status_code, body["status"], body["samples"]) == (202, "completed", 0)
    assert body["finished_at"] is not None
    assert body["targets"][0]["status"] == "completed"
    assert body["resolved"]["unknown_subjects"] == 1
    assert "No data of 1 of the 1 subjects was found" in body["resolved"]["meaning"]
    assert await named(sessions, body) == []
    async with sessions() as session:
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
    assert [event.event for event in events] == ["request.received", "request.completed"]
    told = events[0].data
    assert (told["subjects"], told["unknown_subjects"], told["subject_samples"]) == (1, 1, 0)
    assert (told["dataset"], told["samples"]) == ("digits", 0)


async def test_where_rows_are_erased_nothing_waits_for_nobody(client, sessions, groups):
    erasing = {**GROUPED, "erase": {"parquet": True}}
    async with sessions.begin() as session:
        await session.execute(update(Dataset).values(definition=erasing))

    body = (await ask(client, "nobody", unknown_subjects="answer")).json()

    assert (body["status"], body["rows"]) == ("completed", None)


async def test_known_and_unknown_subjects_share_a_request(client, sessions, groups):
    body = (await ask(client, BEN, "nobody", unknown_subjects="answer")).json()

    assert (body["status"], body["samples"], body["subjects"]) == ("pending", 2, 2)
    assert body["resolved"]["unknown_subjects"] == 1
    assert await named(sessions, body) == ["t2", "t4"]


async def test_who_was_forgotten_before_is_reported_and_no_work_is_done(
    client, sessions, store, groups
):
    job = factories.job(model_id=groups.id, finished=True)
    await store(job, *factories.tombstones(groups, job, "t2", "t4", "h1"))

    forgotten = (await ask(client, BEN)).json()
    held_out = (await ask(client, HILDA)).json()

    assert forgotten["status"] == held_out["status"] == "completed"
    assert forgotten["targets"][0]["already_forgotten"] == forgotten["samples"] == 2
    assert held_out["targets"][0]["not_trained_on"] == held_out["samples"] == 1


async def test_a_dataset_without_groups_says_why_and_what_to_do(
    client, sessions, store, model, problem
):
    refusal = problem(await ask(client, ANN), 422, "no-groups")

    assert "columns.group" in refusal["detail"]
    assert "sample_ids" in refusal["detail"]
    problem(await ask(client, ANN, unknown_subjects="answer"), 422, "no-groups")
    assert await count(sessions, DeletionRequest) == [0]


@pytest.mark.parametrize(
    "body",
    [
        {"subjects": []},
        {"subjects": [""]},
        {"subjects": [" "]},
        {"subjects": ["nan"]},
        {"subjects": [12.0]},
        {"subjects": ["12.0"]},
        {"subjects": [None]},
        {"subjects": [True]},
        {"subjects": [["x"]]},
        {"subjects": "x"},
        {"subjects": ["x" * 513]},
        {"subjects": ["a\0"]},
        {"subjects": [ANN], "unknown_subjects": "ignore"},
        {"subjects": None},
    ],
    ids=str,
)
async def test_what_is_no_subject_is_refused(client, groups, problem, body):
    refusal = problem(await submit(client, **{"sample_ids": None, **body}), 422, "invalid-request")

    assert ANN not in json.dumps(refusal)


async def test_samples_found_count_against_the_limit(client, app, settings, groups, problem):
    app.state.settings = settings.model_copy(update={"max_samples_per_request": 4})

    one = problem(await ask(client, ANN, sample_ids=["t0"]), 413, "too-many-samples")
    several = problem(await ask(client, ANN, BEN), 413, "too-many-samples")
    subjects = problem(await ask(client, "a", "b", "c", "d", "e"), 413, "too-many-samples")
    enough = await ask(client, ANN, sample_ids=["t1", "t3", "h0"])

    assert "LETHE_MAX_SAMPLES_PER_REQUEST" in one["detail"]
    assert "fewer subjects" in several["detail"]
    assert "5 subjects" in subjects["detail"]
    assert enough.json()["samples"] == 4


async def test_a_key_stands_for_its_subjects_in_any_spelling(client, groups, problem):
    first = await ask(client, 4711, key="k")
    again = await ask(client, " 4711", key="k")

    assert again.content == first.content
    assert again.headers["Idempotent-Replayed"] == "true"
    problem(await ask(client, ANN, key="k"), 422, "idempotency-key-reused")
    problem(await submit(client, "k", sample_ids=["t2", "t4"]), 422, "idempotency-key-reused")
    policy = await ask(client, 4711, key="k", unknown_subjects="answer")
    problem(policy, 422, "idempotency-key-reused")


async def test_a_key_is_answered_as_before_though_the_index_has_changed(client, sessions, groups):
    first = await ask(client, BEN, key="k")
    async with sessions.begin() as session:
        await session.execute(update(Sample).values(group_digest=None))
        await session.execute(update(Dataset).values(definition=factories.DEFINITION))

    again = await ask(client, BEN, key="k")

    assert again.content == first.content


async def test_what_was_sent_before_there_were_subjects_keeps_its_fingerprint(client, model):
    body = '{"model":"cnn","dataset":null,"sample_ids":["t1"],"objective":"untrain_samples"'
    body += ',"exact":false,"subject_ref":null,"received_at":null,"reason":null}'
    wanted = DeletionRequestCreate(model="cnn", sample_ids=["t1"])

    assert wanted.fingerprint() == sha256(body.encode()).hexdigest()


@pytest.mark.parametrize("change", ["added", "removed", "swapped"])
async def test_a_sample_that_changes_hands_meanwhile_is_looked_up_anew(
    client, sessions, groups, monkeypatch, change
):
    look, looked = resolution.look, []

    async def look_and_be_slow(*given):
        found = await look(*given)
        looked.append(found)
        if len(looked) == 1:
            async with sessions.begin() as session:
                await session.execute(text("RESET ROLE"))
                if change != "removed":
                    await move(session, groups, "t7", BEN)
                if change != "added":
                    await move(session, groups, "t4", ANN)
        return found

    monkeypatch.setattr(resolution, "look", look_and_be_slow)

    body = (await ask(client, BEN, sample_ids=["t0"])).json()

    expected = {"added": ["t2", "t4", "t7"], "removed": ["t2"], "swapped": ["t2", "t7"]}[change]
    assert await named(sessions, body) == ["t0", *expected]
    assert body["resolved"]["samples"] == len(expected)
    assert len(looked) == 2
    assert await count(sessions, DeletionRequest) == [1]


async def test_an_index_that_does_not_rest_is_said_to(
    client, sessions, groups, monkeypatch, problem
):
    look = resolution.look

    async def look_elsewhere(connection, wanted, names, most):
        found = await look(connection, wanted, names, most)
        return replace(found, samples=found.samples[:1])

    monkeypatch.setattr(resolution, "look", look_elsewhere)

    problem(await ask(client, BEN), 409, "not-ready")
    assert await count(sessions, DeletionRequest) == [0]


async def test_a_model_that_was_registered_meanwhile_is_not_taken_for_one_without_samples(
    client, sessions, store, groups, monkeypatch, problem
):
    look = resolution.look

    async def look_before_it_is_there(connection, *given):
        found = await look(connection, *given)
        await connection.execute(text("RESET ROLE"))
        await store(factories.model(factories.dataset(id=groups.dataset_id), name="late"))
        return found

    monkeypatch.setattr(resolution, "look", look_before_it_is_there)

    problem(await ask(client, ANN, model="late"), 409, "not-ready")
    assert await count(sessions, DeletionRequest) == [0]


async def shown(client, request, **what):
    return await client.post(f"{URL}/{request['id']}/inclusion", json=what)


async def test_a_person_is_shown_to_be_named_and_whether_anything_was_found(
    client, sessions, groups, problem
):
    request = (await ask(client, ANN, "nobody", unknown_subjects="answer")).json()
    async with sessions() as session:
        received = (await session.scalars(select(AuditEvent))).first()

    for what, named_as, leaf in (
        ({"subject": f" {ANN}"}, "subject", f"\0subject\0{ANN}"),
        ({"subject": "nobody"}, "unknown_subject", "\0unknown subject\0nobody"),
        ({"sample_id": "t3"}, "sample", "t3"),
    ):
        body = (await shown(client, request, **what)).json()
        proof = [base64.b64decode(each) for each in body["proof"]]
        opening = Opening(bytes.fromhex(body["blind"]), body["index"], body["size"], proof)
        assert (body["named_as"], body["size"]) == (named_as, 6)
        assert climb(opening, leaf).hex() == request["commitment"] == received.data["commitment"]

    problem(await shown(client, request, subject=BEN), 404, "not-named")
    problem(await shown(client, request, sample_id=ANN), 404, "not-named")
    for wrong in ({}, {"subject": ANN, "sample_id": "t3"}, {"subject": ""}):
        problem(await shown(client, request, **wrong), 422, "invalid-request")


def test_no_id_is_committed_to_as_a_subject():
    assert commitments.of_subject("x", is_known=True) != commitments.of_subject("x", is_known=False)
    assert all("\0" in commitments.of_subject("x", is_known=known) for known in (True, False))


async def test_cancelling_and_shredding_leave_nothing_of_a_subject(
    client, sessions, groups, problem
):
    request = (await ask(client, ANN)).json()

    await client.post(f"{URL}/{request['id']}/cancel")
    shredded = await client.post(f"{URL}/{request['id']}/shred")

    assert shredded.json()["resolved"] == request["resolved"]
    assert await count(sessions, RequestSample) == [0]
    problem(await shown(client, request, subject=ANN), 410, "key-gone")


async def test_an_estimate_takes_subjects_too(client, groups, problem):
    url = f"{URL}/estimate"
    body = {"model": "cnn", "subjects": [ANN, ANN]}

    asked = (await client.post(url, json=body)).json()
    nobody = {"model": "cnn", "subjects": ["nobody"]}

    assert (asked["samples"], asked["subjects"], asked["duplicates"]) == (4, 1, 1)
    assert asked["resolved"]["samples"] == 4
    assert asked["targets"][0]["not_trained_on"] == 1
    problem(await client.post(url, json=nobody), 422, "unknown-subjects")
    answered = await client.post(url, json=nobody | {"unknown_subjects": "answer"})
    assert (answered.status_code, answered.json()["samples"]) == (202, 0)
