"""What the verifier makes of acceptances, and of the verdicts of retrained versions."""

import pytest

from attacks import story
from attacks.judge import verify as verifier

REQUEST, ACCEPTED_JOB, NEW_JOB, VERSION = (story.row_id(name) for name in "rajv")


def told(position, name, subject, **data):
    at = verifier.moment(f"2026-03-01T00:00:{position:02}.000000Z")
    return verifier.Event(position, "", name, subject, at, data)


def overtaken(*, promoted=ACCEPTED_JOB, decided=ACCEPTED_JOB, at=5):
    """The events of a version that was made in the place of one that a person accepted."""
    return [
        told(at, "request.decided", REQUEST, decision="accept", job=decided, by="admin"),
        told(8, "version.promoted", VERSION, number=4, accepted_job=promoted),
    ]


def approved(events, *, at=5, **changes):
    approval = {
        "decision": "accept", "decided_by": "admin",
        "decided_at": f"2026-03-01T00:00:{at:02}.000000Z", "accepted_job": ACCEPTED_JOB,
    } | changes  # fmt: skip
    made = told(7, "version.created", VERSION, job=NEW_JOB)
    result = {"verdict": "fail", "approval": approval}
    verifier.check_approval(result, "results[0]", made, {"id": REQUEST}, events)


def test_an_acceptance_of_an_overtaken_version_covers_the_one_in_its_place():
    approved(overtaken())


@pytest.mark.parametrize(
    ("events", "changes", "says"),
    [
        (overtaken(decided=story.row_id("x")), {}, "no request.decided"),
        (overtaken(promoted=story.row_id("x")), {}, "another job"),
        (overtaken(), {"accepted_job": story.row_id("x")}, "another job"),
        (overtaken(at=9), {"at": 9}, "before a person accepted"),
        (overtaken(), {"decided_by": "mallory"}, "decided_by"),
    ],
)
def test_an_acceptance_that_the_log_does_not_have_is_refused(events, changes, says):
    with pytest.raises(verifier.Refusal, match=says):
        approved(events, **changes)


def judged(kind, *, guard=True, after=False):
    figures = {"low": 0.0, "threshold": 0.1}
    tests = [
        {"moment": "before", "passed": False, "p_value": 0.001, **figures},
        {"moment": "after", "passed": after, "p_value": 0.5 if after else 0.001, **figures},
        {"moment": "guard", "passed": guard, **figures, "low": 0.0 if guard else 0.2},
    ]
    result = {"kind": kind, "verdict": "pass", "tests": tests, "alpha": 0.03, "model": "cnn"}
    verifier.check_figures({"results": [result]})
    return result


def test_a_retrained_version_passes_by_its_guards():
    judged("exact")
    with pytest.raises(verifier.Refusal, match="pass does not follow"):
        judged("exact", guard=False)
    with pytest.raises(verifier.Refusal, match="pass does not follow"):
        judged("approximate")


def test_of_a_retrained_version_no_more_is_said_than_its_tests_show():
    def said(text, **changes):
        predicate = {"results": [judged("exact", **changes)], "scope": {"statement": text}}
        verifier.check_wording(predicate)

    said("Model cnn: version 2 was retrained. It rests on the retraining.")
    said("Model cnn: influence reduced to within the measured range.", after=True)
    with pytest.raises(verifier.Refusal, match="reduced to within"):
        said("Model cnn: influence reduced to within the measured range.")
