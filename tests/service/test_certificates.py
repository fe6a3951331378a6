"""Certificates over HTTP: the envelope for programs, the page for people, and the reason if there
is none."""

import json
import re
from base64 import b64decode
from dataclasses import replace
from html import unescape
from uuid import uuid4

import pytest

from domain import trail
from domain.events import RequestCompleted
from domain.states import RequestStatus, RowsStatus, Verdict
from evidence import wording
from evidence.statement import Purge, Rows, statement
from service.certificates import page
from service.certificates.router import prefers_page
from tests import certified, factories
from worker.evidence import certificates

AS_PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
DSSE = "application/vnd.in-toto.unlearning+dsse"


def url(request_id):
    return f"/v1/deletion-requests/{request_id}/certificate"


@pytest.fixture
def certify(store, sessions):
    """Store what happened, and issue certificates of it: one for each of these purges."""

    async def make(story, *purges):
        await store(*story.rows)
        case = story.case
        async with sessions.begin() as session:
            trail.record(session, "worker", case.request.id, RequestCompleted())
        for gone in purges or ({},):
            async with sessions.begin() as session:
                await session.run_sync(
                    certificates.issue, case.request.id, case.log, certified.signer(),
                    keyed=case.keyed, purges=gone,
                )  # fmt: skip
        return case

    return make


def rendered(case):
    """The page of a certificate, as text with and without its tags."""
    said = statement(case, number=1, at=factories.NOW)
    envelope = certificates.envelope(json.dumps(said).encode(), certified.signer())
    html = page.render(envelope)
    body = html.partition("<body>")[2]
    return html, " ".join(unescape(re.sub("<[^>]+>", " ", body)).split()), said["predicate"]


# For programs


async def test_the_envelope_is_what_was_signed(client, certify):
    case = await certify(certified.changed())

    response = await client.get(url(case.request.id))

    assert response.status_code == 200
    assert response.headers["Content-Type"] == DSSE
    assert response.headers["Vary"] == "Accept"
    envelope = response.json()
    assert envelope.keys() == {"payload", "payloadType", "signatures"}
    said = json.loads(b64decode(envelope["payload"]))
    assert said["predicate"]["request"]["id"] == str(case.request.id)
    assert said["predicate"]["issued"]["number"] == 1


async def test_the_newest_is_given_and_the_others_by_their_numbers(client, certify):
    story = certified.changed()
    old = story.case.outcomes[0].before.id
    case = await certify(story, {}, {old: Purge(purged_at=factories.NOW)})

    numbers = []
    for wanted in ({}, {"number": 1}, {"number": 2}):
        envelope = (await client.get(url(case.request.id), params=wanted)).json()
        numbers.append(json.loads(b64decode(envelope["payload"]))["predicate"]["issued"]["number"])

    assert numbers == [2, 1, 2]


async def test_a_client_that_has_it_gets_304(client, certify):
    case = await certify(certified.changed())
    first = await client.get(url(case.request.id))
    as_page = await client.get(url(case.request.id), headers=AS_PAGE)
    assert first.headers["ETag"] != as_page.headers["ETag"]

    again = await client.get(url(case.request.id), headers={"If-None-Match": first.headers["ETag"]})

    assert again.status_code == 304
    assert again.headers["Vary"] == "Accept"


async def test_the_schema_is_published(client):
    response = await client.get("/v1/audit/predicate-schema")

    assert response.headers["Content-Type"] == "application/schema+json"
    assert response.json() == certified.SCHEMA


# Why there is none


@pytest.mark.parametrize(
    "status", [RequestStatus.PENDING, RequestStatus.SCHEDULED, RequestStatus.RUNNING]
)
async def test_an_open_request_is_not_certified_yet(client, store, problem, status):
    dataset = factories.dataset()
    request = factories.request(dataset, status=status)
    await store(dataset, request)

    response = await client.get(url(request.id))

    told = problem(response, 409, "not-certified-yet")
    assert status in told["detail"]
    assert response.headers["Retry-After"] == "5"


async def test_a_completed_request_waits_for_a_checkpoint(client, store, problem):
    await store(*(story := certified.changed()).rows)

    response = await client.get(url(story.case.request.id))

    assert "checkpoint" in problem(response, 409, "not-certified-yet")["detail"]
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (RequestStatus.CANCELLED, "was cancelled"),
        (RequestStatus.REFUSED, "was refused"),
        (RequestStatus.FAILED, "failed"),
        (RequestStatus.NEEDS_REVIEW, "a person must decide"),
    ],
)
async def test_other_endings_have_none_and_it_is_said_why(client, store, problem, status, why):
    dataset = factories.dataset()
    request = factories.request(dataset, status=status)
    await store(dataset, request)

    response = await client.get(url(request.id))

    assert why in problem(response, 404, "not-certified")["detail"]
    assert "Retry-After" not in response.headers


async def test_an_unknown_request_has_none(client, problem):
    problem(await client.get(url(uuid4())), 404, "not-found")


async def test_a_number_that_was_not_reached_is_unknown(client, certify, problem):
    case = await certify(certified.changed())

    told = problem(await client.get(url(case.request.id), params={"number": 2}), 404, "not-found")

    assert "from 1 to 1" in told["detail"]


async def test_numbers_begin_at_one(client, problem):
    problem(await client.get(url(uuid4()), params={"number": 0}), 422, "invalid-request")


# For people


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/html", True),
        (AS_PAGE["Accept"], True),
        ("text/html;q=0.5, application/json;q=0.4", True),
        ("application/json, text/html;q=0.9", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=much", False),
        ("", False),
    ],
)
def test_a_page_is_given_to_those_who_like_it_best(accept, wanted):
    assert prefers_page(accept) is wanted


async def test_the_page_is_sealed(client, certify):
    case = await certify(certified.changed())

    response = await client.get(url(case.request.id), headers=AS_PAGE)

    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "<h1>Certificate of a deletion request</h1>" in response.text
    for outside in ("<script", "src=", "<link", "@import", "url(", "http:"):
        assert outside not in response.text


STORIES = {**certified.WAYS_TO_CHANGE, "nothing to forget": certified.untouched()}


@pytest.mark.parametrize("name", STORIES)
def test_the_page_says_what_the_statement_says(name):
    _, text, said = rendered(STORIES[name].case)

    for paragraph in said["scope"]["statement"].splitlines():
        assert paragraph in text
    for limit in said["scope"]["not_proven"]:
        assert limit in text
    for result in said["results"]:
        verdict = Verdict(result["verdict"]) if result["verdict"] else None
        assert wording.VERDICT_TITLES[verdict] in text
        for version in filter(None, (result["before"], result["after"])):
            assert version["weights_sha256"] in text
        for test in result["tests"]:
            assert wording.TEST_TITLES[test["name"]] in text
            assert f"{test['value']:.3f}" in text
        for part in (result["method"] or {}).get("config", ()):
            assert f"{part} = " in text
    for digest in ("commitment", "subject_ref_hmac", "reason_hmac"):
        assert said["request"][digest] in text
    assert said["log"]["completed"]["leaf"] in text
    assert certified.KEY_ID in text
    assert str(said["request"]["id"]) in text


def test_the_page_says_what_became_of_the_rows_where_they_are_erased():
    case = STORIES["changed"].case
    held = Rows(status=RowsStatus.HELD, left=3, at=factories.NOW)

    assert "Rows in the dataset's files" not in rendered(case)[1]
    _, text, said = rendered(replace(case, rows=held))
    assert said["rows"]["meaning"] in text
    assert "held, 3 left" in text


def test_what_is_not_proven_stands_before_all_figures():
    _, text, _ = rendered(STORIES["changed"].case)

    assert text.index("What was found") < text.index("What this does not prove")
    assert text.index("What this does not prove") < text.index("The request")


@pytest.mark.parametrize("name", ["accepted", "without power", "without audit"])
def test_the_page_tells_no_success_where_there_is_none(name):
    _, text, _ = rendered(STORIES[name].case)

    assert "within the measured range" not in text
    assert not re.search("success|complian|provabl", text, re.IGNORECASE)


def test_a_failed_test_is_told_as_failed():
    html, _, _ = rendered(STORIES["accepted"].case)

    assert html.count('class="failed">failed<') == 1
    assert html.count("<td>passed<") == 1


def test_that_the_version_before_failed_is_no_failure():
    html, text, _ = rendered(STORIES["changed"].case)

    assert "failed<" not in html
    assert "told apart" in text


def test_a_request_that_was_late_is_told_as_late():
    late = replace(STORIES["changed"].case, request=certified.completed(
        factories.dataset(), due_at=factories.NOW.replace(year=2025)
    ))  # fmt: skip

    assert "after the due date" in rendered(late)[1]
    assert "after it was due" not in rendered(STORIES["changed"].case)[1]


def test_names_are_shown_as_text_not_as_html():
    story = certified.changed()
    story.case.outcomes[0].job.mode_reason = "<script>alert(1)</script>"

    html, _, _ = rendered(story.case)

    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


async def test_each_answer_is_documented(client):
    document = (await client.get("/openapi.json")).json()

    answers = document["paths"]["/v1/deletion-requests/{request_id}/certificate"]["get"][
        "responses"
    ]
    assert answers["200"]["content"].keys() == {DSSE, "text/html"}
    assert {"404", "409", "422"} <= answers.keys()
