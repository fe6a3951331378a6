"""Every attack is caught for the right reason, and a missed one would be noticed."""

import itertools
import json
import re
from dataclasses import replace

import pytest

from attacks import __main__ as attacks
from attacks import by_hand, generated
from attacks.by_hand.forging import result
from attacks.generated import fields_of, holder, leaves_of, written
from attacks.judge import FORM, Attack, judge, run

NOTHING = Attack("nothing is done", FORM, "", lambda evidence: evidence.main)


@pytest.fixture(scope="module")
def outcomes(evidence):
    return run(attacks.everything(evidence), evidence)


def test_every_attack_is_caught_with_its_reason(outcomes):
    missed = [(each.attack.name, each.exit_status, each.reason) for each in outcomes
              if not each.caught]  # fmt: skip
    assert missed == []


def test_there_are_many_and_no_two_are_the_same(outcomes):
    names = [outcome.attack.name for outcome in outcomes]

    assert len(by_hand.ATTACKS) >= 30
    assert len(set(names)) == len(names)


def test_every_column_of_an_event_is_attacked(evidence, outcomes):
    tried = [outcome.attack.name for outcome in outcomes]
    for number, event in enumerate(evidence.main.parsed["events"]):
        for path, _ in leaves_of(json.loads(event["leaf"])):
            assert f"a column of an event is altered: {number} {written(path)}" in tried


def test_every_field_of_a_certificate_is_attacked_with_and_without_the_key(evidence, outcomes):
    tried = {outcome.attack.name for outcome in outcomes}
    for of in ("main", "failed", "other"):
        for path, _ in leaves_of(getattr(evidence, of).statement):
            name = written(path).removeprefix("predicate.")
            assert f"a field of a certificate is altered: {of} {name}" in tried
            assert f"a field of a certificate is altered and signed again: {of} {name}" in tried


def test_every_field_of_a_bundle_is_attacked_but_what_anchors_say(evidence, outcomes):
    tried = {outcome.attack.name for outcome in outcomes}
    fields = {written(path) for path, _ in leaves_of(evidence.main.parsed)}
    spared = {
        field for field in fields if f"a field of the bundle is altered: {field}" not in tried
    }

    assert all(re.search(rf"\.leaf$|{generated.UNGUARDED}", field) for field in spared)


def test_what_no_event_repeats_is_believed_when_the_operator_issued_it_so(evidence):
    """The limit of the generated attacks: seeds, settings, figures of tests. The verifier says so;
    an older checkpoint or the certificate as it was first handed out shows the forgery."""
    forged = evidence.reissued(
        evidence.main, lambda s: result(s)["method"]["config"].update(cycles=9)
    )

    assert judge(forged)[0] == 0


ODD = [None, 5, "x", [], {"x": []}]


def test_whatever_an_operator_writes_into_an_event_gets_an_answer(evidence):
    """A value of another kind is refused or believed; it does not break the verifier."""
    for event in evidence.main.parsed["events"]:
        entry = evidence.log.entries[event["position"]]
        for name, odd in itertools.product(entry["data"], ODD):
            data = {**entry["data"], name: odd}
            log = evidence.log.edited(event["position"], data=data)
            forged = evidence.reissued(evidence.main, lambda _: None, log)
            judge(replace(forged, older=None))


def test_whatever_stands_in_a_certificate_gets_an_answer(evidence):
    for path, odd in itertools.product(fields_of(evidence.failed.statement), ODD):
        act = evidence.resigned if len(path) < 3 or "log" in path else evidence.reissued
        judge(act(evidence.failed, lambda s: holder(s, path).update({path[-1]: odd})))  # noqa: B023


def test_an_attack_that_is_not_caught_is_seen(monkeypatch, capsys):
    monkeypatch.setattr(attacks, "everything", lambda evidence: [NOTHING])

    assert attacks.main() == 1
    printed = capsys.readouterr().out
    assert "NOT CAUGHT" in printed
    assert printed.endswith("attacks: tried=1 caught=0\n")


def test_a_refusal_for_another_reason_does_not_count(evidence):
    attack = by_hand.ATTACKS[0]
    wrong_reason = Attack("a", attack.exit_status, "another reason", attack.act)
    wrong_status = Attack("b", FORM, attack.says, attack.act)

    assert [each.caught for each in run([attack, wrong_reason, wrong_status], evidence)] == [
        True, False, False
    ]  # fmt: skip


def test_the_table_ends_with_the_count(monkeypatch, capsys):
    few = by_hand.ATTACKS[:3]
    monkeypatch.setattr(attacks, "everything", lambda evidence: few)

    assert attacks.main() == 0
    assert capsys.readouterr().out.endswith("attacks: tried=3 caught=3\n")
