"""From a request that names an unknown person to the certificate that an auditor checks."""

import asyncio
import json
from base64 import b64decode

import pytest
from sqlalchemy.orm import sessionmaker

from attacks.judge import verify
from domain.database import async_sessions
from domain.settings import WorkerSettings
from domain.states import JobKind
from evidence import signed_notes, subjects
from tests import acting, certified, factories
from tests.conftest import connect, speaking_to
from tests.evidence.test_statement import VALIDATOR
from tests.service.grouped import ANN, BEN, GROUPED, HILDA
from tests.service.submitting import URL, submit
from worker.evidence import keeper

ZOE = "zoe@example.com"
"""Nobody knows her."""

NO_TRAINING = "no model was trained on any"


@pytest.fixture
async def speaking(own_database_url, app):
    """A client whose requests commit, with a model that has forgotten Ben and never learned from
    Hilda; and what certifies what is completed."""
    engine, worker = acting.async_engine(own_database_url), acting.engine(own_database_url)
    sessions = async_sessions(engine)
    connect(app, sessions)
    erasing = {**GROUPED, "erase": {"parquet": True}}
    dataset = factories.dataset(definition=erasing, ready_at=factories.NOW)
    model = factories.model(dataset)
    jobs = [
        factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True),
        factories.job(model_id=model.id, finished=True),
    ]
    samples = {sample.sample_id: sample for sample in factories.samples(dataset)}
    for sample_id, subject in (("t1", ANN), ("t2", BEN), ("h1", HILDA)):
        samples[sample_id].group_digest = factories.digest_of_group(subject)
    rows = [dataset, model, *jobs, factories.version(model, jobs[0]), *samples.values()]
    async with sessions.begin() as session:
        for row in [*rows, *factories.tombstones(model, jobs[1], "t2", "h1")]:
            session.add(row)
            await session.flush()
    settings = WorkerSettings(
        database_url="postgresql://unused", broker_url="redis://unused",
        store=app.state.settings.store, log_origin=certified.ORIGIN,
    )  # fmt: skip

    def certify():
        keeper.keep(sessionmaker(worker, expire_on_commit=False), [certified.signer()], settings)

    async with speaking_to(app) as client:
        yield client, certify
    await engine.dispose()
    worker.dispose()


def checked(bundle):
    """What the verifier prints of a bundle, which is valid."""
    key = signed_notes.NoteKey(
        certified.ORIGIN, certified.PRIVATE.public_key().public_bytes_raw(), certified.PRIVATE.sign
    )
    report = verify.Report()
    verify.check_bundle(bundle, [verify.Key(key.name, key.public)], None, [], report)
    return report.outcome


async def test_that_nothing_was_found_is_certified_and_the_verifier_says_so(speaking):
    client, certify = speaking
    asked = {"sample_ids": None, "unknown_subjects": "answer"}
    named = ([ZOE], [BEN, HILDA, ZOE], [BEN], [HILDA])
    requests = [(await submit(client, **asked, subjects=who)).json() for who in named]
    assert [request["status"] for request in requests] == ["completed"] * 4

    await asyncio.to_thread(certify)

    predicates = []
    for request in requests:
        envelope = (await client.get(f"{URL}/{request['id']}/certificate")).json()
        predicates.append(json.loads(b64decode(envelope["payload"]))["predicate"])
        bundle = await client.get("/v1/audit/bundle", params={"request": request["id"]})
        assert "subjects:" in checked(bundle.text)[0]
    assert not [error for each in predicates for error in VALIDATOR.iter_errors(each)]
    nobody, mixed, known, held_out = predicates
    indexed = nobody["request"]["subjects"]["indexed_at"]
    assert nobody["request"]["subjects"].items() >= {
        "named": 1, "unknown": 1, "samples": 0, "dataset": "digits",
    }.items()  # fmt: skip
    line, of_model = nobody["scope"]["statement"].split("\n")
    assert f"index of dataset digits, as it was indexed at {indexed}." in line
    assert "No data was found there of 1 of them." in line
    assert of_model == (
        "Model cnn: there was nothing to forget. Version 1 was served then, and stays as it is."
    )
    assert {subjects.NOT_ALL_OF_THEM, subjects.NOT_NEVER} <= {*nobody["scope"]["not_proven"]}
    assert "rows" not in nobody
    assert "No data was found there of 1 of them." in mixed["scope"]["statement"]
    assert "2 of the named samples had already been forgotten" in mixed["scope"]["statement"]
    assert "No data" not in known["scope"]["statement"]
    assert subjects.NOT_NEVER not in known["scope"]["not_proven"]
    assert known["rows"]["status"] == "waiting"
    outside = [NO_TRAINING in each["scope"]["statement"] for each in predicates]
    assert outside == [False, False, False, True]
    assert NO_TRAINING in held_out["scope"]["statement"].split("\n")[0]

    page = await client.get(
        f"{URL}/{requests[0]['id']}/certificate", headers={"Accept": "text/html"}
    )
    assert "had no sample in dataset digits" in page.text
    for word in (HILDA, ZOE):
        assert word not in json.dumps(predicates)
        assert word not in page.text
