"""What there is of a person, an account or a household, before anybody asks to forget them."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import select

from domain import sample_digests
from domain.states import JobKind, RegistrationStatus, VersionStatus
from domain.tables import AuditEvent, Sample
from tests import factories
from tests.service.grouped import ANN, BEN, GROUPED, HILDA

URL = "/v1/subjects/lookup"
KINDS = {"weights", "statistics", "reservoir", "source_weights"}


async def look(client, *subjects, **body):
    return await client.post(URL, json={"subjects": [*subjects], **body})


def elsewhere(of, dataset):
    """Samples of a subject in another dataset, under its own key."""
    digest = sample_digests.digest(dataset.group_key, of)
    samples = factories.samples(dataset, train=3, holdout=0)
    for each in samples:
        each.group_digest = digest
    return samples


async def test_it_tells_what_a_request_would_touch_and_what_still_holds_it(client, store, groups):
    job = factories.job(
        model_id=groups.id, finished=True, forgotten_at=datetime(2026, 3, 1, tzinfo=UTC)
    )
    other = factories.dataset(
        name="other", definition=GROUPED, group_key=sample_digests.new_key(),
        tombstone_key=sample_digests.new_key(),
    )  # fmt: skip
    await store(
        job, *factories.tombstones(groups, job, "t1", "t3"),
        factories.dataset(name="ungrouped"), other, *elsewhere("ann", other),
    )  # fmt: skip

    body = (await look(client, ANN, BEN, "nobody", ANN)).json()

    assert (body["subjects"], body["duplicates"]) == (3, 1)
    assert (body["unknown_count"], body["unknown_positions"]) == (1, [2])
    assert (body["without"], body["not_looked_into"]) == (["other"], ["ungrouped"])
    [digits] = body["datasets"]
    assert (digits["dataset"], digits["subjects"]) == ("digits", 2)
    assert digits["samples"] == {"train": 5, "holdout": 1, "test": 0}
    [model] = digits["models"]
    assert (model["model"], model["already_forgotten"], model["left"]) == ("cnn", 2, 3)
    assert {each["kind"] for each in model["held_by"]} == KINDS
    assert [each["status"] for each in model["held_by"] if each["kind"] == "weights"] == [
        "champion"
    ]


async def test_what_is_forgotten_is_held_by_versions_that_are_not_deleted_yet(
    client, store, groups
):
    """The version after it does not hold it; a superseded one does until it is purged."""
    dataset = factories.dataset(id=groups.dataset_id)
    model = factories.model(dataset, name="second")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    first = factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
    second = factories.job(model_id=model.id, finished=True, forgotten_at=at)
    old = factories.version(
        model, first, status=VersionStatus.SUPERSEDED, superseded_at=at, weights_sha256="7" * 64,
        created_at=at,
    )  # fmt: skip
    new = factories.version(model, second, number=2, parent_id=old.id, weights_sha256="8" * 64)
    ids = ["t2", "t4"]
    await store(model, first, second, old, new, *factories.tombstones(model, second, *ids))

    body = (await look(client, BEN, dataset="digits")).json()

    _, found = body["datasets"][0]["models"]
    assert (found["model"], found["already_forgotten"], found["left"]) == ("second", 2, 0)
    held = {(each["kind"], each["version"], each["status"]) for each in found["held_by"]}
    assert held == {
        *((kind, 1, "superseded") for kind in ("weights", "statistics", "reservoir")),
        ("source_weights", None, None),
    }


async def test_hold_out_samples_are_in_no_weights(client, groups):
    body = (await look(client, HILDA)).json()

    [model] = body["datasets"][0]["models"]
    assert model["left"] == 0
    assert {each["kind"] for each in model["held_by"]} == {"statistics", "reservoir"}


async def test_the_trail_is_told_of_counts_and_nothing_else_changes(
    client, sessions, store, groups, capsys
):
    other = factories.dataset(name="other", definition=GROUPED)
    await store(other)

    body = (await look(client, ANN, "nobody")).json()
    logged = capsys.readouterr().out

    async with sessions() as session:
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
    assert [(event.event, event.subject_id, event.data) for event in events] == [
        (
            "subjects.looked_up",
            dataset,
            {
                "lookup": body["id"],
                "subjects": 2,
                "known": known,
                "samples": samples,
                "by": "admin",
            },
        )
        for dataset, known, samples in ((groups.dataset_id, 1, 4), (other.id, 0, 0))
    ]
    assert body["id"] in logged
    assert ANN not in logged


async def test_a_subject_has_another_digest_in_each_dataset(client, store, groups):
    other = factories.dataset(name="other", definition=GROUPED, group_key=sample_digests.new_key())
    await store(other, *elsewhere(ANN, other))

    body = (await look(client, ANN)).json()
    alone = (await look(client, f" {ANN}", dataset="other")).json()

    assert [sum(each["samples"].values()) for each in body["datasets"]] == [4, 3]
    assert [each["dataset"] for each in alone["datasets"]] == ["other"]
    assert alone["datasets"][0]["models"] == []


async def test_where_nobody_can_be_looked_up_it_is_said(client, store, model, problem):
    waiting = factories.dataset(
        name="waiting", definition=GROUPED, status=RegistrationStatus.PENDING
    )

    problem(await look(client, ANN), 422, "no-groups")
    assert (
        "sample_ids"
        in problem(await look(client, ANN, dataset="digits"), 422, "no-groups")["detail"]
    )
    await store(waiting)
    problem(await look(client, ANN), 409, "not-ready")
    problem(await look(client, ANN, dataset="waiting"), 409, "not-ready")
    problem(await look(client, ANN, dataset=f"x{uuid4().hex[:8]}"), 404, "not-found")


async def test_look_ups_have_limits(client, app, settings, groups, problem):
    app.state.settings = settings.model_copy(update={"max_samples_per_request": 4})

    problem(await look(client, *"abcde"), 413, "too-many-samples")
    refusal = problem(await look(client, ANN, BEN), 413, "too-many-samples")

    assert "6 samples" in refusal["detail"]
    assert (await look(client, ANN)).status_code == 200


@pytest.mark.parametrize("body", [{}, {"subjects": []}, {"subjects": ["NaN"]}, {"subjects": [1.5]}])
async def test_what_is_no_look_up_is_refused(client, problem, body):
    problem(await client.post(URL, json=body), 422, "invalid-request")


async def test_samples_without_a_group_are_nobodys(client, sessions, groups):
    body = (await look(client, ANN, BEN, HILDA)).json()

    async with sessions() as session:
        without = (await session.scalars(select(Sample).filter_by(group_digest=None))).all()
    assert sum(body["datasets"][0]["samples"].values()) == 12 - len(without)
