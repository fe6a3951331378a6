"""The wording says what was measured, and no more."""

import json
import re
from collections.abc import Iterator
from itertools import product

import pytest

from devstack import local
from domain.states import Objective, RowsStatus, Verdict
from evidence import backbones, wording
from evidence.wording import Kind
from worker.unlearning.audit.verdict import WORDS

SUCCESS = "within the measured range"
FORBIDDEN = re.compile("gdpr|complian|provabl|guarantee|certainly|erased", re.IGNORECASE)
VERDICTS = (*Verdict, None)
MADE = (Kind.APPROXIMATE, Kind.EXACT)


def result(kind=Kind.APPROXIMATE, verdict=Verdict.PASS, **changes):
    made = kind is not Kind.NOTHING_TO_FORGET
    test = {"moment": "after", "forget_samples": 30, "holdout_samples": 200, "passed": True}
    return {
        "model": "cnn",
        "kind": kind,
        "verdict": verdict,
        "before": {"version": 1},
        "after": {"version": 2} if made else None,
        "tests": [{**test, "moment": "before"}, test] if verdict else [],
        "already_forgotten": 0,
        "not_trained_on": 0,
        "approval": {"decided_by": "admin"} if verdict is Verdict.FAIL else None,
        "purge": {"superseded_weights": [{"purged_at": None}] if made else []},
    } | changes


REPORTS = [
    {
        "measured_on": "test", "samples": samples, "before": share, "after": share,
        "classes": [
            {"label": n, "samples": samples // 15, "before": share, "after": share}
            for n in range(15)
        ],
        "lost_classes": list(range(lost)),
    }
    for samples, share in ((150, 0.5), (0, None)) for lost in (0, 1, 15)
]  # fmt: skip
ACCEPTED = [
    {
        "accepted": True, "objections": objections, "train": 0.1, "train_samples": 10,
        "holdout": holdout, "holdout_samples": 5,
    }
    for objections in ([], list(wording.OBJECTIONS)) for holdout in (None, 0.2)
]  # fmt: skip
GUESSES = [
    {
        "bound": bound, "observed": 0.5 if pairs else None, "pairs": pairs, "forgotten": 9,
        "grouped": pairs == 1, "confidence": 0.95,
    }
    for bound, pairs in ((0.54, 900), (0.9999, 1), (1.0, 0))
]  # fmt: skip
TUNED = [
    {"steps": 9, "samples": 90, "membership_auc_before": 0.5, "membership_auc_after": after}
    for after in (0.6, None)
]
ON_A_BACKBONE = {"config": {"backbone": {"source": "hub/net@1", "sha256": ["ab" * 32]}}}
PURGES = ((), (None,), ("2026-01-01",), ("2026-01-01", None))
ALL = (
    [
        result(
            kind,
            verdict,
            already_forgotten=gone,
            not_trained_on=never,
            purge={"superseded_weights": [{"purged_at": at} for at in purged]},
        )
        for kind, verdict, gone, never, purged in product(MADE, VERDICTS, (0, 3), (0, 2), PURGES)
    ]
    + [
        result(Kind.NOTHING_TO_FORGET, None, already_forgotten=gone, not_trained_on=1 - gone)
        for gone in (0, 1)
    ]
    + [
        result(kind, verdict, advantage={"before": told, "after": told}, fine_tuned=tuned)
        for kind, verdict, told, tuned in product(MADE, VERDICTS, GUESSES, TUNED)
    ]
    + [
        result(kind, verdict, accuracy=measured, accepted_accuracy=accepted)
        for kind, verdict, measured, accepted in product(MADE, VERDICTS, REPORTS, ACCEPTED)
    ]
    + [result(Kind.EXACT, verdict, method=ON_A_BACKBONE) for verdict in VERDICTS]
)


def test_what_must_never_be_said_is_never_said():
    said = [wording.statement([one, other]) for one, other in product(ALL[::7], ALL)]
    said += [
        text
        for objective in Objective
        for one in ALL
        for text in wording.not_proven(objective, [one])
    ]
    titles = (wording.VERDICT_TITLES, wording.KIND_TITLES, wording.TEST_TITLES)
    said += [title for group in titles for title in group.values()]

    assert not [text for text in said if FORBIDDEN.search(text)]


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_only_a_pass_is_told_as_success(kind, verdict):
    said = wording.statement([result(kind, verdict)])

    of_tests = verdict is Verdict.PASS and kind is Kind.APPROXIMATE
    assert (SUCCESS in said) == of_tests
    assert ("rests on the retraining" in said) == (verdict is Verdict.PASS and not of_tests)
    assert wording.MADE[kind] in said
    if verdict is Verdict.NO_POWER:
        assert "cannot tell" in said
        assert "no evidence" in said
    if verdict is Verdict.FAIL:
        assert ("can still tell the samples" in said) == (kind is Kind.APPROXIMATE)
        assert ("held back all the same" in said) == (kind is Kind.EXACT)
        assert wording.ACCEPTED in said
    if verdict is None:
        assert "No tests were run" in said


@pytest.mark.parametrize("verdict", VERDICTS)
def test_of_a_backbone_it_says_what_was_declared_and_not_measured(verdict):
    refitted = result(Kind.EXACT, verdict, method=ON_A_BACKBONE)

    said = wording.statement([refitted])

    assert wording.MADE[Kind.EXACT] not in said
    assert "a head that was fitted anew without these samples" in said
    assert "declared that this backbone was never trained on the dataset; this was not" in said
    assert ("and on that declaration" in said) == (verdict is Verdict.PASS)
    assert backbones.NOT_PROVEN in wording.not_proven(Objective.UNTRAIN_SAMPLES, [refitted])
    assert backbones.NOT_PROVEN not in wording.not_proven(
        Objective.UNTRAIN_SAMPLES, [result(Kind.EXACT, verdict)]
    )


def test_tests_that_a_retrained_version_fails_are_counted_and_do_not_decide():
    tests = [
        {"moment": moment, "forget_samples": 30, "holdout_samples": 200, "passed": passed}
        for moment, passed in (("before", False), ("after", False), ("after", True))
    ]

    said = wording.statement([result(Kind.EXACT, Verdict.PASS, tests=tests)])

    assert "1 of 2 tests tell the samples apart in it" in said
    assert "do not decide" in said
    assert SUCCESS not in said


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (GUESSES[0], "right at most 54 times in 100 (measured: 50.0"),
        (GUESSES[1], "right up to 100 times in 100, as far as these data tell"),
        (GUESSES[2], "was not measured: the hold-out has no samples"),
        ({**GUESSES[2], "in_part": 3}, "was not measured: others of their groups stay in training"),
        ({**GUESSES[0], "in_part": 1}, "1 sample is not counted in this: others of the same"),
    ],
)
def test_a_bound_is_never_rounded_to_the_comforting_side(told, words):
    said = wording.statement([result(advantage={"before": told, "after": told})])

    assert words in said


def test_classes_that_lost_everything_are_named_and_many_are_counted():
    said = [wording.accuracy_remarks(report) for report in REPORTS]

    assert [len(remarks) for remarks in said] == [1, 2, 12, 0, 1, 11]
    assert said[2][-1] == "So did 5 more classes."
    assert said[4] == [
        "Class 0 lost all of its training samples, and there are no test samples of it to measure "
        "what that did."
    ]


def test_a_statement_has_a_paragraph_for_each_model():
    other = result(Kind.EXACT, Verdict.NO_POWER, model="vit")
    untouched = result(Kind.NOTHING_TO_FORGET, None, model="mlp", already_forgotten=4)

    first, second, third = wording.statement([result(), other, untouched]).splitlines()

    assert first.startswith("Model cnn: version 2 was changed")
    assert second.startswith("Model vit: version 2 was retrained")
    assert SUCCESS in first
    assert SUCCESS not in second
    assert third.startswith("Model mlp: there was nothing to forget. 4 of the named")
    assert "nothing was tested" in third


@pytest.mark.parametrize("one", ALL)
def test_what_no_certificate_proves_is_always_said(one):
    said = wording.not_proven(Objective.UNTRAIN_SAMPLES, [one])

    assert said[-len(wording.NEVER_PROVEN) :] == list(wording.NEVER_PROVEN)
    assert all(text.startswith("That ") for text in said)


def test_of_rows_that_are_gone_it_is_only_unproven_that_the_disk_forgot_them():
    never = wording.not_proven(Objective.UNTRAIN_SAMPLES, [result()])
    gone = wording.not_proven(Objective.UNTRAIN_SAMPLES, [result()], erased=True)

    assert {*never} - {*gone} == {wording.ROWS_NOT_PROVEN}
    assert {*gone} - {*never} == {wording.ROWS_OVERWRITTEN}


def test_rows_are_told_to_be_there_unless_they_are_gone():
    assert wording.ROWS.keys() == set(RowsStatus)
    for status, text in wording.ROWS.items():
        assert not FORBIDDEN.search(text)
        assert ("still in the dataset's files" in text) == (status is not RowsStatus.GONE)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (result(), wording.CHANGED),
        (result(), wording.OTHER_TESTS),
        (result(Kind.EXACT), wording.RETRAINED),
        (result(verdict=None), wording.NO_TESTS),
        (result(already_forgotten=1), wording.FORGOTTEN_EARLIER),
        (result(not_trained_on=1), wording.NEVER_TRAINED_ON),
        (result(purge={"superseded_weights": [{"purged_at": None}]}), wording.WEIGHTS_LEFT),
        (result(purge={"superseded_weights": [{"purged_at": "x"}]}), wording.WEIGHTS_DELETED),
    ],
)
def test_what_a_result_does_not_prove_is_said_of_it_alone(one, text):
    opposite = result(
        Kind.EXACT if text in (wording.CHANGED, wording.OTHER_TESTS) else Kind.APPROXIMATE,
        Verdict.NO_POWER,
        purge={"superseded_weights": []},
    )

    assert text in wording.not_proven(Objective.UNTRAIN_SAMPLES, [one])
    assert text not in wording.not_proven(Objective.UNTRAIN_SAMPLES, [opposite])


def test_a_removed_class_was_looked_for_in_samples_only():
    assert wording.CONCEPT in wording.not_proven(Objective.REMOVE_CLASS, [result()])
    assert wording.CONCEPT not in wording.not_proven(Objective.UNTRAIN_SAMPLES, [result()])


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.NO_POWER])
def test_the_power_of_the_tests_is_told_by_what_they_compared(verdict):
    told = wording.not_proven(Objective.UNTRAIN_SAMPLES, [result(verdict=verdict)])[0]

    assert "model cnn" in told
    assert "compared 30 of the samples with 200 it was never trained on" in told


def test_what_two_models_have_in_common_is_said_once():
    both = wording.not_proven(Objective.UNTRAIN_SAMPLES, [result(), result(model="vit")])

    assert len(both) == len(set(both))
    assert sum("too small for these tests" in text for text in both) == 2


def test_every_test_of_the_audit_has_a_title():
    assert wording.TEST_TITLES.keys() == WORDS.keys()


def test_the_schema_says_nothing_that_must_not_be_said():
    schema = json.loads((local.REPOSITORY / "verifier/predicate.schema.json").read_text())

    assert not FORBIDDEN.search(json.dumps(schema))


def test_the_schema_describes_every_member_in_a_sentence():
    schema = json.loads((local.REPOSITORY / "verifier/predicate.schema.json").read_text())

    def described(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            yield from filter(None, [part.get("description")] if "type" in part else [])
            for inner in part.values():
                yield from described(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from described(inner)

    texts = list(described(schema))
    assert len(texts) > 60
    assert [text for text in texts if not re.fullmatch(r"[A-Z].* .* .*\.", text)] == []
