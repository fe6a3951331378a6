"""What a certificate says of subjects is what the log says, in figures and in words."""

import pytest

from attacks.judge import judge, verify


def said(statement):
    return statement["predicate"]["request"]["subjects"]


def line(text):
    def change(statement):
        scope = statement["predicate"]["scope"]
        rest = scope["statement"].partition("\n")[2]
        scope["statement"] = f"{text}\n{rest}" if text else rest

    return change


def reported(unknown, samples, named=2):
    def change(statement):
        said(statement).update(unknown=unknown, samples=samples, named=named)

    return change


def concealed(statement):
    del statement["predicate"]["request"]["subjects"]
    line("")(statement)


def invented(statement):
    statement["predicate"]["request"]["subjects"] = {
        "named": 1, "unknown": 1, "samples": 0, "dataset": "digits", "indexed_at": None,
        "looked_up_at": "2026-03-02T08:00:00.000000Z",
    }  # fmt: skip


FOUND = "Subjects: 2 named, in dataset digits. No data was found there of {} of them."


@pytest.mark.parametrize(
    ("of", "change", "where"),
    [
        ("other", lambda _: None, None),
        ("other", line(FOUND.format(1)), None),
        ("other", line(FOUND.format(2)), "scope.statement"),
        ("other", line("Subjects: all were found in dataset digits."), "scope.statement"),
        ("other", line(FOUND.format(1).replace("digits", "other")), "scope.statement"),
        ("other", line(f"{FOUND.format(1)} They were forgotten."), "scope.statement"),
        ("other", line(""), "scope.statement"),
        ("other", reported(2, 0), "request.subjects.unknown"),
        ("other", reported(0, 2), "request.subjects.unknown"),
        ("other", reported(1, 2), "request.subjects.samples"),
        ("other", reported(1, 1, named=3), "request.subjects.named"),
        ("other", concealed, "request.subjects"),
        ("failed", invented, "request.subjects"),
        ("failed", line("Subjects: none."), "scope.statement"),
    ],
)
def test_anything_but_what_the_log_says_is_refused(evidence, of, change, where):
    status, told = judge(evidence.reissued(getattr(evidence, of), change))

    assert status == (0 if where is None else 8), told
    assert where is None or where in told


def test_a_dataset_may_be_called_as_no_certificate_may_call_itself():
    """Names are no claims."""
    result = {"model": "cnn", "verdict": None, "kind": "nothing_to_forget", "tests": []}
    words = "Subjects: looked up in dataset verified.\nModel cnn: nothing."
    predicate = {
        "scope": {"statement": words},
        "results": [result],
        "request": {"subjects": {"dataset": "verified"}},
    }

    verify.check_wording(predicate)
    with pytest.raises(verify.Refusal, match="verified"):
        verify.check_wording({**predicate, "request": {}})
