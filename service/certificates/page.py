"""A certificate for people: one page, made from nothing but the signed statement.

It needs no other file and runs no script, so that it can be kept, sent and printed.
"""

import json
from base64 import b64decode
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from domain.states import Verdict
from evidence import signed_notes, wording
from evidence.wording import Kind

NOTHING = "-"

templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(envelope: str) -> str:
    """The page of a certificate. Its signature is not looked at."""
    signed = json.loads(envelope)
    payload = b64decode(signed["payload"])
    statement = json.loads(payload)
    predicate = statement["predicate"]
    return templates.get_template("page.html").render(
        predicate,
        statement=statement,
        models=[_model(result) for result in predicate["results"]],
        checkpoint=signed_notes.read(predicate["log"]["checkpoint"]),
        key_ids=[signature["keyid"] for signature in signed["signatures"]],
        payload_sha256=sha256(payload).hexdigest(),
    )


def _model(result: dict[str, Any]) -> dict[str, Any]:
    """A result with its titles, and its tests by moment."""
    verdict = result["verdict"]
    return {
        **result,
        "kind_title": wording.KIND_TITLES[Kind(result["kind"])],
        "verdict_title": wording.VERDICT_TITLES[Verdict(verdict) if verdict else None],
        "tests": [
            (wording.MOMENT_TITLES[moment], [_test(test) for test in tests])
            for moment, tests in groupby(result["tests"], lambda test: str(test["moment"]))
        ],
    }


def _test(test: dict[str, Any]) -> dict[str, Any]:
    """A test with its title and its outcome. It is no fault of the previous version to fail: that
    shows that the test can tell the samples apart."""
    told = ("told apart", "not told apart") if test["moment"] == "before" else ("failed", "passed")
    title = wording.TEST_TITLES.get(test["name"], test["name"])
    return {**test, "title": title, "outcome": told[test["passed"]]}


def _figure(value: float | None) -> str:
    """A number with as many digits as people compare."""
    return NOTHING if value is None else f"{value:.3f}"


def _chance(value: float | None) -> str:
    """A p-value."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _interval(test: dict[str, Any]) -> str:
    """Both bounds of a test, or the only one."""
    low, high = _figure(test["low"]), _figure(test["high"])
    if test["high"] is None:
        return NOTHING if test["low"] is None else f"≥ {low}"
    return f"{low} … {high}"


def _allowed(test: dict[str, Any]) -> str:
    """What a test was held against."""
    if test["threshold"] is None:
        return NOTHING
    limit = _figure(test["threshold"])
    return f"≤ {limit}" if test["high"] is None else f"{_figure(test['expected'])} ± {limit}"


def _moment(instant: str | None) -> str:
    """An instant, to the second."""
    return NOTHING if instant is None else f"{instant[:10]} {instant[11:19]} UTC"


templates.filters |= {
    "figure": _figure,
    "chance": _chance,
    "interval": _interval,
    "allowed": _allowed,
    "moment": _moment,
}
