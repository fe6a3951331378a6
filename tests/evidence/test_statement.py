"""What a certificate says, from rows alone: its form is the published one, field by field."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

import domain
from domain.states import Objective, RowsStatus, Verdict
from evidence import advantage, wording
from evidence.statement import Keyed, Purge, Rows, instant, says_more, statement
from evidence.subjects import LookedUp
from tests import certified, factories
from tests.certified import SCHEMA
from worker.engine import environment
from worker.unlearning.config import default_config

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALIDATOR = Draft202012Validator(SCHEMA)
OPTIONAL = (
    "accuracy", "accepted_accuracy", "advantage", "declared", "fine_tuned", "pooled_audit", "rows",
    "subjects",
)  # fmt: skip
"""Members that certificates of earlier releases lack, and but for the first most others, too."""

SUBJECTS = LookedUp(
    named=3, unknown=1, samples=30, dataset="gait", indexed_at=instant(factories.NOW),
    at=factories.NOW,
)  # fmt: skip

MAPS = ("config", "libraries")
"""Members whose keys are names of others' choosing."""


def built(case, number=1):
    return statement(case, number=number, at=AT)


def predicate(case):
    return built(case)["predicate"]


STORIES = {
    **certified.WAYS_TO_CHANGE,
    "a class": certified.changed(objective=Objective.REMOVE_CLASS),
    "declared": certified.declared(accepted=["memory"]),
    "forgotten before": certified.untouched(),
    "never trained on": certified.untouched(already_forgotten=0, not_trained_on=1),
}
CASES = {
    **{name: story.case for name, story in STORIES.items()},
    "two models": certified.of_two(STORIES["changed"], STORIES["forgotten before"]),
    **{
        f"rows {status}": replace(
            STORIES["changed"].case,
            rows=Rows(status=status, left=left, at=None if left is None else factories.NOW),
        )
        for status, left in ((RowsStatus.WAITING, None), (RowsStatus.HELD, 3), (RowsStatus.GONE, 0))
    },
    "subjects": replace(STORIES["changed"].case, looked_up=SUBJECTS),
    "nobody": replace(
        certified.untouched(already_forgotten=0, samples=0).case,
        looked_up=replace(SUBJECTS, named=1, samples=0, indexed_at=None),
    ),
    "without a key": replace(STORIES["changed"].case, keyed=Keyed()),
}


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all objects in a JSON value whose members the schema names."""
    if isinstance(value, dict) and path[-1:] not in [(name,) for name in MAPS]:
        yield path
        for name, member in value.items():
            yield from objects(member, (*path, name))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from objects(item, (*path, index))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_statement_has_the_published_form(case):
    assert not list(VALIDATOR.iter_errors(predicate(case)))


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_statement_that_lacks_any_field_is_refused(case):
    whole = predicate(case)
    members = [(*path, name) for path in objects(whole) for name in at(whole, path)]
    assert len(members) > 40

    for *path, name in members:
        lacking = deepcopy(whole)
        del at(lacking, tuple(path))[name]
        assert VALIDATOR.is_valid(lacking) == (name in OPTIONAL), (path, name)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_statement_with_any_field_more_is_refused(case):
    whole = predicate(case)

    for path in objects(whole):
        larger = deepcopy(whole)
        at(larger, path)["remark"] = "x"
        assert not VALIDATOR.is_valid(larger), path


def test_every_field_is_described():
    def fields(schema):
        yield schema
        for member in schema.get("properties", {}).values():
            yield from fields(member)

    every = [schema for kind in SCHEMA["$defs"].values() for schema in fields(kind)]
    assert all(schema["description"] for schema in [*every, *fields(SCHEMA)])


@pytest.mark.parametrize("removing", [False, True])
def test_how_a_job_really_ran_has_the_published_form(removing):
    case = certified.changed().case
    config = asdict(default_config(removing=removing, forget_count=30, reservoir_count=900))
    users_code = {"factory nets.cnn:build": f"sha256.{'a' * 64}"}
    [outcome] = case.outcomes
    outcome.job.config = json.loads(json.dumps(config))
    outcome.job.environment = environment.describe(torch.device("cpu"), users_code)

    said = predicate(case)

    assert not list(VALIDATOR.iter_errors(said))
    [method] = [result["method"] for result in said["results"]]
    assert method["config"] == config
    assert method["code_version"].startswith(f"{domain.__version__}+sha256.")
    assert method["device"] == "cpu"
    assert method["libraries"].items() >= users_code.items()


def test_a_changed_model_is_told_with_all_that_was_measured():
    case = STORIES["changed"].case
    [outcome], said = case.outcomes, built(case)

    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "urn:lethe:unlearning:v1" == SCHEMA["$id"]
    assert said["subject"] == [{"name": "cnn/versions/2", "digest": {"sha256": "e" * 64}}]
    [result] = said["predicate"]["results"]
    assert result["kind"] == "approximate"
    assert result["verdict"] == "pass"
    assert result["before"] == {"version": 1, "weights_sha256": "a" * 64}
    assert result["after"] == {"version": 2, "weights_sha256": "e" * 64}
    assert result["method"] == {
        "name": "alternating alignment and distillation",
        "mode": "approximate",
        "mode_reason": "The model is changed.",
        "config": certified.CONFIG,
        "seed": 7,
        "code_version": f"0.1.0+sha256.{'d' * 64}",
        "libraries": {"python": "3.11.9", "torch": "2.13.0", "cuda": "none"},
        "device": "cpu",
    }
    assert [test["moment"] for test in result["tests"]] == ["before", "after", "guard"]
    assert result["tests"][1]["value"] == outcome.tests[1].value
    assert (result["alpha"], result["permutations"], result["audit_seed"]) == (0.05, 2000, 7)
    assert result["approval"] is None


def test_what_every_class_lost_is_told_in_figures_and_in_words():
    said = predicate(STORIES["changed"].case)

    [result] = said["results"]
    assert result["accuracy"] == {
        "measured_on": "test",
        "samples": 100,
        "before": 0.9,
        "after": 0.54,
        "classes": [
            {"label": 0, "samples": 60, "before": 0.9, "after": 0.9},
            {"label": 1, "samples": 40, "before": 0.9, "after": 0.0},
        ],
        "lost_classes": [1],
    }
    told = said["scope"]["statement"]
    assert "its accuracy on 100 test samples was 0.900 before and 0.540 after." in told
    assert (
        "Class 1 lost all of its training samples: its accuracy on 40 test samples went from 0.900 "
        "to 0.000." in told
    )


def test_what_the_data_do_not_exclude_is_told_in_figures_and_in_words():
    said = predicate(STORIES["changed"].case)

    [result] = said["results"]
    assert result["advantage"] == {
        moment: certified.FIGURES[moment]["advantage"] for moment in ("before", "after")
    }
    told = said["scope"]["statement"]
    assert result["pooled_audit"] == certified.POOLED
    assert result["fine_tuned"] == certified.FIGURES["after"]["fine_tuned"]
    assert "thrown away: the membership AUC went from 50.4 to 50.3 (50 is chance)." in told
    assert "right at most 72 times in 100 (measured: 50.4, before the job 90.0; 50 is" in told


def test_whom_a_model_knows_by_other_samples_is_left_out_of_guesses_and_the_form_knows_it():
    case = STORIES["changed"].case
    [outcome] = case.outcomes
    told = advantage.report(
        *(
            {"advantage": figures["advantage"] | {"in_part": 4}}
            for figures in certified.FIGURES.values()
        )
    )
    said = predicate(replace(case, outcomes=[replace(outcome, advantage=told)]))

    assert not list(VALIDATOR.iter_errors(said))
    assert said["results"][0]["advantage"]["after"]["in_part"] == 4
    assert "4 samples are not counted in this" in said["scope"]["statement"]


@pytest.mark.parametrize("name", ["changed", "retrained", "accepted", "without audit"])
def test_an_accepted_accuracy_is_told_in_every_certificate_of_the_model(name):
    said = predicate(STORIES[name].case)

    [result] = said["results"]
    assert result["accepted_accuracy"]["objections"] == ["no_better_than_chance"]
    assert "answered its own training samples no better than chance" in said["scope"]["statement"]


def test_what_an_earlier_release_did_not_measure_is_left_out():
    case = STORIES["changed"].case
    [outcome] = case.outcomes
    old = factories.version(outcome.model, factories.job())
    absent = dict.fromkeys(("accuracy", "advantage", "fine_tuned", "pooled_audit"))
    before = replace(case, outcomes=[replace(outcome, before=old, **absent)])

    said = predicate(before)

    [result] = said["results"]
    assert not result.keys() & set(OPTIONAL)
    assert "accuracy" not in said["scope"]["statement"]


def test_what_was_asked_is_told_without_its_words():
    case = STORIES["changed"].case
    request = predicate(case)["request"]

    assert request["id"] == str(case.request.id)
    assert request["received_at"] == instant(case.request.received_at)
    assert request["samples"] == 30
    assert request["commitment"] == "1" * 64
    assert (request["subject_ref_hmac"], request["reason_hmac"]) == ("2" * 64, "3" * 64)


@pytest.mark.parametrize(("name", "used"), [("changed", False), ("retrained", True)])
def test_an_oracle_is_used_where_the_version_itself_was_trained_anew(name, used):
    [result] = predicate(STORIES[name].case)["results"]

    assert result["oracle_used"] is used
    assert result["kind"] == ("exact" if used else "approximate")
    assert result["method"]["name"] == (
        "retraining" if used else "alternating alignment and distillation"
    )


def test_who_accepted_a_fail_is_told_and_the_ground_is_a_digest():
    case = STORIES["accepted"].case
    [decision] = [outcome.acceptance for outcome in case.outcomes]
    case = replace(case, keyed=replace(case.keyed, grounds={decision.job_id: "4" * 64}))

    [result] = predicate(case)["results"]

    assert result["verdict"] == "fail"
    assert result["approval"] == {
        "decision": "accept",
        "decided_by": "admin",
        "decided_at": instant(factories.NOW),
        "ground_hmac": "4" * 64,
    }
    assert decision.ground not in str(result)


def test_an_acceptance_of_another_version_is_told_as_such():
    story = certified.changed(verdict=Verdict.FAIL)
    [outcome] = story.case.outcomes
    earlier = factories.job(model_id=outcome.model.id, finished=True)
    decision = factories.decision(story.case.request, earlier)
    case = replace(story.case, outcomes=[replace(outcome, acceptance=decision)])

    [result] = predicate(case)["results"]

    assert result["approval"]["accepted_job"] == str(earlier.id)
    assert wording.ACCEPTED_BEFORE in predicate(case)["scope"]["statement"]
    assert list(VALIDATOR.iter_errors(predicate(case))) == []


def test_where_nothing_was_forgotten_the_request_itself_is_the_subject():
    case = STORIES["forgotten before"].case
    digest = {"sha256": certified.KEYED.commitment}

    said = built(case)

    assert said["subject"] == [{"name": f"request/{case.request.id}", "digest": digest}]
    [result] = said["predicate"]["results"]
    assert result["kind"] == "nothing_to_forget"
    assert result["before"]["version"] == 1
    assert (result["after"], result["method"], result["verdict"]) == (None, None, None)
    unkeyed = built(replace(case, keyed=Keyed()))
    assert len(unkeyed["subject"][0]["digest"]["sha256"]) == 64


def test_old_weights_are_told_with_the_end_they_had_or_will_have():
    case = STORIES["changed"].case
    [outcome] = case.outcomes
    purge = Purge(due_at=AT, purged_at=AT + timedelta(minutes=1))

    [before] = predicate(case)["results"]
    [after] = predicate(replace(case, purges={outcome.before.id: purge}))["results"]

    version = {"version": 1, "weights_sha256": "a" * 64}
    assert before["purge"] == {
        "superseded_weights": [version | {"due_at": None, "purged_at": None}]
    }
    assert after["purge"] == {
        "superseded_weights": [
            version
            | {"due_at": "2026-03-01T12:00:00.000000Z", "purged_at": "2026-03-01T12:01:00.000000Z"}
        ]
    }


def test_the_place_in_the_log_is_told_with_its_proof():
    case = STORIES["changed"].case

    log = predicate(case)["log"]

    assert log["origin"] == certified.ORIGIN
    assert log["positions"] == [2, 3]
    assert log["completed"]["position"] == 3
    assert log["completed"]["leaf"] == case.log.completed.leaf
    assert len(log["completed"]["proof"]) == 2
    assert log["checkpoint"] == case.log.checkpoint


def test_times_are_in_utc_to_the_microsecond():
    there = datetime(2026, 3, 1, 14, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))

    assert instant(there) == "2026-03-01T12:00:00.000005Z"


def test_rows_are_told_where_the_dataset_erases_only():
    assert "rows" not in predicate(CASES["changed"])
    said = predicate(CASES["rows held"])["rows"]

    assert (said["status"], said["left"]) == ("held", 3)
    assert said["at"] == instant(factories.NOW)
    assert "still in the dataset's files" in said["meaning"]
    assert predicate(CASES["rows gone"])["scope"] != predicate(CASES["changed"])["scope"]


def test_a_newer_checkpoint_and_its_own_issuing_are_no_news():
    case = STORIES["changed"].case
    later = replace(case, log=certified.log(case.request.id, "certificate.issued"))

    assert not says_more(built(later, 2), built(case), later.log)


def test_a_purge_is_news_and_so_is_any_other_event():
    case = STORIES["changed"].case
    purged = replace(case, purges={case.outcomes[0].before.id: Purge(purged_at=AT)})
    shredded = replace(
        case, log=certified.log(case.request.id, "certificate.issued", "request.shredded")
    )

    assert says_more(built(purged, 2), built(case), purged.log)
    assert says_more(built(shredded, 2), built(case), shredded.log)
