"""What the OpenAPI document says is what the API does; `make fuzz` asks ten times as often."""

from copy import deepcopy

import pytest
from fastapi import FastAPI, HTTPException, Query, Response
from schemathesis.python import asgi

from tests.fuzz.harness import Fuzzer
from tests.fuzz.run import after_crashes, fuzzed

CASES = 2000


def test_no_answer_surprises_a_reader_of_the_document(
    new_database, migrated_template, servers, tmp_path
):
    url = new_database(migrated_template)

    findings = fuzzed(url, servers.broker_url, tmp_path, cases=CASES, number=1)

    assert not findings.faults, findings.report()
    assert findings.cases >= 0.9 * CASES
    assert {status // 100 for status in findings.statuses} == {2, 4}
    assert findings.statuses[200] > CASES / 20  # there is something to be found


@pytest.mark.parametrize("planted", ["crash", "status", "type", "rule", "method"])
def test_it_finds_what_it_is_there_for(planted):
    app = FastAPI()

    @app.get("/v1/things")
    async def things(size: int = Query(default=1, ge=0)) -> list[int]:
        if planted == "crash" and size > 1:
            raise ZeroDivisionError
        if planted == "status" and size > 1:
            raise HTTPException(418)
        if planted == "type":
            return Response("[]", media_type="text/csv")  # type: ignore[return-value]
        if planted == "rule" and size > 1:
            problem = '{"type": "urn:lethe:problem:bad-request"}'
            return Response(problem, 422, media_type="application/problem+json")  # type: ignore
        return [size]

    document = deepcopy(app.openapi())
    if planted == "method":
        app.delete("/v1/things")(lambda: None)
    fuzzer = Fuzzer(after_crashes(app), document, "key", real={}, number=1)
    try:
        fuzzer.other_methods()
        fuzzer.fuzz(40)
    finally:
        asgi.shutdown_lifespans()

    kinds = {kind for _, kind in fuzzer.findings.faults}
    expected = {
        "crash": {"ServerError", "UndefinedStatusCode"},
        "status": {"UndefinedStatusCode"},
        "type": {"UndefinedContentType"},
        "rule": {"rule"},
        "method": {"method"},
    }[planted]
    assert expected <= kinds, fuzzer.findings.report()
