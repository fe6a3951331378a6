"""What certificates say of a version that was trained elsewhere, and how they are checked."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import uuid4

import pytest

from attacks.judge import verify
from evidence import wording
from evidence.statement import statement
from tests import certified

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def predicate(case):
    """As it is read from the signed bytes."""
    return json.loads(json.dumps(statement(case, number=1, at=AT)["predicate"]))


def test_a_version_that_was_trained_elsewhere_is_called_declared_and_nothing_better():
    said = predicate(certified.declared(accepted=["memory"], exact=True).case)

    [result] = said["results"]
    assert (result["kind"], result["verdict"], result["method"]) == ("declared", None, None)
    assert result["oracle_used"] is False
    assert result["declared"]["trained_on"] == 970
    words = said["scope"]["statement"]
    assert "the training was not observed" in words
    assert wording.KNOWS in words
    assert wording.NOT_TESTED in words
    assert wording.DECLARED.format(version=2, model="cnn") in said["scope"]["not_proven"]


def event(name, subject, **data):
    return SimpleNamespace(name=name, subject=subject, position=7, data=data)


def checked(result, **changes):
    """Hold a certificate's result against the log, in which some of its words are others."""
    version, job = str(uuid4()), str(uuid4())
    created = {
        "model": result["model_id"], "number": 2, "job": job, "mode": "declared",
        "weights_sha256": "e" * 64, "replaces_sha256": result["before"]["weights_sha256"],
    } | changes.pop("created", {})  # fmt: skip
    told = {
        "trained_on": 970, "trained_on_sha256": "f" * 64, "left_out": 30, "accepted": ["memory"],
    } | changes.pop("declared", {})  # fmt: skip
    log = [
        event("version.created", version, **created),
        event("version.declared", version, **told),
        event("job.completed", job, verdict=None),
    ]
    verify.check_version(result, "results[0]", {"id": "r", "exact_asked": True}, log)


def test_the_verifier_holds_it_against_the_log():
    [result] = predicate(certified.declared(accepted=["memory"]).case)["results"]

    checked(result)

    for changes in (
        {"created": {"mode": "exact"}},
        {"created": {"replaces_sha256": "0" * 64}},
        {"declared": {"trained_on": 971}},
        {"declared": {"accepted": None}},
    ):
        with pytest.raises(verify.Refusal):
            checked(result, **changes)
    for name, value in (("kind", "exact"), ("oracle_used", True)):
        with pytest.raises(verify.Refusal):
            checked(result | {name: value})
    undeclared = {name: value for name, value in result.items() if name != "declared"}
    with pytest.raises(verify.Refusal):
        checked(undeclared)
