"""The command line against the real API: what it prints, and its exit status."""

import json
import sys
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from pyarrow import parquet

from domain.states import JobKind, JobStatus, RequestStatus, RowsStatus, Verdict
from tests import factories
from tests.conftest import KEY
from tests.lethe.conftest import Ready, Service


@pytest.fixture
def lethe(command, service: Service, monkeypatch):
    """The same, speaking to the real API."""
    monkeypatch.setenv("LETHE_URL", service.url)
    monkeypatch.setenv("LETHE_API_KEY", KEY)
    return command


def test_forget_takes_ids_from_everywhere(lethe, ready: Ready, home, typed):
    model = ready.names[1]
    (home / "ids.txt").write_text("t1\r\n\nt2\n")
    table = pa.table({"id": ["t1", "t2", None, "t3"], "n": [1, 2, 3, 4]})
    parquet.write_table(table, home / "ids.parquet")
    typed("t4\nt5\n")

    def samples(*words: object) -> int:
        said = lethe("forget", "--model", model, "--json", *words)
        assert said.status == 0, said.out
        return int(said.json["samples"])

    assert samples("t1", "t2", "t2") == 2
    assert samples("--from", home / "ids.txt") == 2
    assert samples("--parquet", home / "ids.parquet", "--column", "id") == 3
    assert samples("-") == 2
    typed("t6")
    assert samples("--from", "-") == 1


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ([], "Name the samples once"),
        (["t1", "--from", "x"], "Name the samples once"),
        (["--from", "missing.txt"], "cannot be read"),
        (["--from", "empty.txt"], "no sample ids"),
        (["--parquet", "empty.txt"], "not a readable Parquet file"),
        (["--parquet", "ids.parquet"], "no column sample_id"),
        (["--parquet", "ids.parquet", "--column", "n"], "must hold strings"),
        (["t1", "--dataset", "d"], "one of --model and --dataset"),
        (["t1", "--received-at", "soon"], "2026-01-31"),
    ],
)
def test_what_cannot_be_meant_is_said(lethe, ready: Ready, home, words, advice):
    (home / "empty.txt").write_text("\n")
    parquet.write_table(pa.table({"n": [1]}), home / "ids.parquet")

    said = lethe("forget", "--model", ready.names[1], *words)
    machine = lethe("forget", "--model", ready.names[1], *words, "--json")

    assert said.status == machine.status == 2
    assert advice in " ".join(said.err.replace("│", " ").split())
    assert advice in machine.json["error"]["detail"]


def test_pyarrow_is_asked_for_where_it_is_missing(lethe, ready: Ready, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    said = lethe("forget", "--model", ready.names[1], "--parquet", "x.parquet", "--json")

    assert said.status == 2
    assert "lethe[parquet]" in said.json["error"]["detail"]


def test_forget_shows_what_it_does_and_how_to_follow_it(lethe, ready: Ready):
    said = lethe("forget", "t1", "--model", ready.names[1], "--reason", "Article 17")
    machine = lethe(
        "forget", "t1", "--model", ready.names[1], "--json", "--idempotency-key", "k",
        "--received-at", "2026-11-02",
    )  # fmt: skip
    again = lethe(
        "forget", "t1", "--model", ready.names[1], "--json", "--idempotency-key", "k",
        "--received-at", "2026-11-02",
    )  # fmt: skip

    assert said.status == 0
    assert f"Asking model {ready.names[1]} to forget 1 sample." in said.err
    assert "Article 17" in said.out
    assert "--follow" in said.out
    assert machine.json["idempotency_key"] == "k"
    assert machine.json["received_at"] == "2026-11-02T00:00:00Z"
    assert again.json["id"] == machine.json["id"]
    assert (machine.json["was_submitted_before"], again.json["was_submitted_before"]) == (
        False,
        True,
    )


def test_unknown_ids_are_counted_and_shown_to_programs_alone(lethe, ready: Ready):
    said = lethe("forget", "someone", "--model", ready.names[1])
    machine = lethe("forget", "someone", "--model", ready.names[1], "--json")

    assert said.status == machine.status == 3
    assert "1 of 1 ids are not in the dataset" in said.err
    assert "someone" not in said.out + said.err
    assert machine.json["error"]["unknown_ids"] == ["someone"]


def test_status_lists_shows_and_follows(lethe, service: Service, ready: Ready):
    made = lethe("forget", "t1", "--model", ready.names[1], "--json").json["id"]
    cancelled = lethe("cancel", made, "--json")

    assert cancelled.json["status"] == "cancelled"
    assert made in lethe("status", "--model", ready.names[1]).out
    assert lethe("status", "--model", ready.names[1], "--status", "completed", "--json").json == []
    assert lethe("status", made).status == 0
    assert lethe("status", made, "--follow").status == 1
    assert lethe("status", uuid4()).status == 3
    assert lethe("status", "nonsense").status == 2


def test_following_ends_with_the_time(lethe, ready: Ready):
    made = lethe(
        "forget", "t1", "--model", ready.names[1], "--follow", "--timeout", "0.2", "--json"
    )

    assert made.status == 5
    assert made.json["error"]["type"] == "still-waiting"
    assert "pending" in made.err


@pytest.fixture
def reviewed(service: Service, ready: Ready):
    """A request whose job ended with the verdict `fail`, and one that is completed."""
    job = factories.job(
        model_id=ready.model.id, finished=True, verdict=Verdict.FAIL, kind=JobKind.UNLEARN
    )
    tried = factories.tried(job, verdict=Verdict.FAIL, reason="alignment failed")
    tests = [factories.audit_test(tried, "before"), factories.audit_test(tried, "after")]
    waiting = factories.request(ready.dataset, status=RequestStatus.NEEDS_REVIEW)
    target = factories.target(
        waiting, ready.model, status=RequestStatus.NEEDS_REVIEW, job_id=job.id
    )
    candidate = factories.version(
        ready.model, job, number=2, status=factories.VersionStatus.CANDIDATE,
        parent_id=ready.version.id,
    )  # fmt: skip
    service.put(job, candidate, tried, *tests, waiting, target)
    return waiting, job


def test_a_request_that_needs_review_is_shown_and_decided(lethe, reviewed):
    waiting, job = reviewed

    followed = lethe("status", waiting.id, "--follow")
    shown = lethe("job", "show", job.id)
    decided = lethe("decide", waiting.id, "refuse", "--ground", "A duty to keep them", "--json")

    assert followed.status == 1
    assert "needs_review" in followed.out
    assert "alignment" in shown.out
    assert decided.json["status"] == "refused"
    assert lethe("decide", waiting.id, "perhaps", "--ground", "x").status == 2
    assert lethe("decide", waiting.id, "accept", "--ground", "x").status == 3


def test_a_request_is_shredded_after_a_question(lethe, ready: Ready, typed):
    made = lethe("forget", "t1", "--model", ready.names[1], "--json").json["id"]
    lethe("cancel", made)
    typed("n\n")

    assert lethe("shred", made).status == 130
    assert lethe("shred", made, "--yes", "--json").json["shredded_at"]


def test_inputs_of_several_columns_are_given_one_by_one(lethe, service: Service):
    add = ("dataset", "add", f"pairs-{uuid4().hex[:8]}", (service.data / "p.parquet").as_uri())
    inputs = ("--input", "input_ids=ids", "--input", "token_type_ids=")

    made = lethe(*add, "--kind", "tokens", *inputs, "--json")
    wrong = lethe(*add, "--kind", "tokens", "--input", "ids", "--input", "types")

    assert made.json["columns"]["input"] == {"input_ids": "ids", "token_type_ids": None}
    assert "takes ARGUMENT=COLUMN each time" in wrong.err


def test_a_dataset_and_a_model_are_added_listed_and_shown(lethe, service: Service, ready: Ready):
    name = f"new-{uuid4().hex[:8]}"
    place = (service.data / f"{name}.parquet").as_uri()

    made = lethe(
        "dataset", "add", name, place, "--kind", "pixels", "--sample-id", "id", "--input", "x",
        "--label", "y", "--split", "part", "--no-test", "--input-shape", "3,8,8",
        "--skip-bad-rows", "--group", "who", "--refuse-leaking-groups", "--json",
    )  # fmt: skip
    model = lethe(
        "model", "add", name, (service.data / "m.safetensors").as_uri(), "-d", ready.names[0],
        "--factory", "nets.cnn:build", "--argument", "classes=10", "--head", "head",
        "--mode", "L", "--resize", "8,8", "--mean", "0.5", "--std", "2",
        "--preprocessing", "orientation=exif", "--preprocessing", "crop=[6,6]",
        "--policy", "reference_models=2", "--policy", "drift.max_accuracy_drop=0.1",
        "--policy", "grace=PT1H", "--json",
    )  # fmt: skip

    assert made.json["columns"] == {
        "sample_id": "id", "input": "x", "label": "y", "split": "part", "group": "who",
    }  # fmt: skip
    assert made.json["leaking_groups"] == "refuse"
    assert made.json["splits"]["test"] is None
    assert (made.json["input_shape"], made.json["bad_rows"]) == ([3, 8, 8], "skip")
    assert name in lethe("dataset", "list").out
    assert "pending" in lethe("dataset", "show", name).out
    assert model.json["architecture"]["arguments"] == {"classes": 10}
    assert model.json["preprocessing"]["resize"] == [8, 8]
    assert model.json["preprocessing"]["crop"] == [6, 6]
    assert model.json["preprocessing"]["orientation"] == "exif"
    assert model.json["policy"]["drift"] == {
        "max_forgotten_share": 0.3,
        "max_accuracy_drop": 0.1,
    }
    assert model.json["policy"]["grace"] == "PT1H"
    assert name in lethe("model", "list").out
    assert "champion" in lethe("model", "show", ready.names[1]).out
    assert lethe("model", "versions", ready.names[1], "--json").json[0]["number"] == 1
    assert "reservoir" in lethe("model", "lineage", ready.names[1]).out
    assert lethe("model", "lineage", ready.names[1], "--json").json["items"]
    assert lethe("model", "add", "x", "y", "-d", "z", "--head", "h").status == 2


def test_check_names_what_may_not_be_trained_on(lethe, service: Service, ready: Ready):
    job = factories.job(model_id=ready.model.id, finished=True)
    service.put(job, *factories.tombstones(ready.model, job, "t3"))

    bad = lethe("check", ready.names[0], "t1", "t3", "t3")
    machine = lethe("check", ready.names[0], "t3", "--json")

    assert (bad.status, bad.out) == (1, "t3\n")
    assert "1 of 2 samples" in bad.err
    assert (machine.status, machine.json) == (1, {"checked": 1, "suppressed": ["t3"]})
    assert lethe("check", ready.names[0], "t1").status == 0
    assert lethe("check", "none", "t1").status == 3


def test_a_check_of_a_file_is_done_by_a_job(lethe, service: Service, ready: Ready):
    place = (service.data / "run.parquet").as_uri()

    said = lethe("check", ready.names[0], "--uri", place, "--timeout", "0", "--json")

    assert (said.status, said.json["error"]["type"]) == (5, "still-waiting")


def test_pull_fetches_the_champion(lethe, ready: Ready, home):
    said = lethe("pull", ready.names[1])
    machine = lethe("pull", ready.names[1], "--version", 1, "-o", home / "x", "--json")

    assert said.status == 0
    assert ready.version.weights_sha256 in said.out
    assert (home / f"{ready.names[1]}.safetensors").read_bytes() == (home / "x").read_bytes()
    assert machine.json["weights_sha256"] == ready.version.weights_sha256
    assert machine.json["file"] == str(home / "x")
    ready.weights.write_bytes(b"damaged")
    assert lethe("pull", ready.names[1], "-o", home / "y").status == 6
    assert not (home / "y").exists()
    assert lethe("pull", ready.names[1], "--version", 7).status == 3


def test_jobs_are_listed_and_tried_again(lethe, service: Service, ready: Ready):
    failure = {"kind": "memory", "reason": "not enough memory"}
    job = factories.job(model_id=ready.model.id, finished=True, failure=failure)
    job.status = JobStatus.FAILED
    service.put(job)

    listed = lethe("job", "list", "--model", ready.names[1], "--status", "failed", "--json")

    assert [row["id"] for row in listed.json] == [str(job.id)]
    assert "not enough memory" in lethe("job", "show", job.id).out
    assert lethe("job", "show", job.id, "--follow").status == 1
    assert lethe("job", "retry", job.id).status in (0, 3)


def test_webhooks_are_kept(lethe):
    made = lethe(
        "webhook", "add", f"https://8.8.8.8/{uuid4()}", "--event", "completed", "--json"
    ).json
    hook = made["id"]

    assert made["secret"].startswith("whsec_")
    assert hook in lethe("webhook", "list").out
    assert "completed" in lethe("webhook", "show", hook).out
    assert lethe("webhook", "disable", hook, "--json").json["status"] == "disabled"
    assert lethe("webhook", "enable", hook, "--json").json["status"] == "enabled"
    assert lethe("webhook", "rotate", hook, "--json").json["secret"] != made["secret"]
    sent = lethe("webhook", "test", hook, "--json").json["id"]
    assert sent in lethe("webhook", "deliveries", hook).out
    assert lethe("webhook", "retry", hook, sent).status == 3
    assert lethe("webhook", "delete", hook).status == 0
    assert lethe("webhook", "show", hook).status == 3


def test_the_audit_trail_is_read(lethe, ready: Ready, home):
    made = lethe("forget", "t1", "--model", ready.names[1], "--json").json["id"]

    events = lethe("audit", "events", "--subject", made, "--json").json
    written = lethe("audit", "entries", "--output", home / "log.jsonl")
    lines = (home / "log.jsonl").read_text().splitlines()

    assert [event["event"] for event in events] == ["request.received"]
    assert written.status == 0
    assert made in lines[events[0]["position"]]
    assert lethe("audit", "entries").out.splitlines() == lines
    assert lethe("audit", "entries", "--json").json == [json.loads(line) for line in lines]
    assert lethe("audit", "checkpoint").status == 3
    assert lethe("audit", "proof", "--position", 0).status == 3
    assert lethe("audit", "proof").status == 2
    assert lethe("audit", "bundle", made).status == 3


def test_a_certificate_that_is_not_issued_is_refused_after_a_while(lethe, ready: Ready):
    made = lethe("forget", "t1", "--model", ready.names[1], "--json").json["id"]
    said = lethe("certificate", made, "--timeout", "0", "--json")

    assert said.status == 3
    assert said.json["error"]["type"] == "urn:lethe:problem:not-certified-yet"


def test_problems_name_their_fields(lethe):
    said = lethe("dataset", "add", "No Name", "file:///x", "--kind", "image")

    assert said.status == 3
    assert "name: " in said.err


def test_the_program_has_help_a_version_and_completion(command):
    shown = command("--help")

    assert shown.status == 0
    assert "Exit status" in shown.out
    assert "--show-completion" in shown.out
    assert command("--version").out.startswith("lethe ")
    assert command("nonsense").status == 2
    assert command("nonsense", "--json").json["error"]["type"] == "usage"


def test_every_command_has_help_that_says_something(command):
    from typer.main import get_command

    from lethe.command_line.main import app

    def walk(node: Any, words: tuple[str, ...]) -> Any:
        yield words, node
        for name, child in getattr(node, "commands", {}).items():
            yield from walk(child, (*words, name))

    commands = dict(walk(get_command(app), ()))
    assert len(commands) > 30
    for words, node in commands.items():
        said = command(*words, "--help")
        assert said.status == 0
        assert node.help, words
        for parameter in node.params:
            assert getattr(parameter, "help", None), (words, parameter.name)


def test_rows_that_are_still_in_files_are_told(lethe, service: Service, ready: Ready):
    failure = {"kind": "input", "reason": "The disk is read-only."}
    job = factories.job(
        kind=JobKind.ERASE_ROWS, dataset_id=ready.dataset.id, status=JobStatus.FAILED,
        failure=failure,
    )  # fmt: skip
    done = factories.request(
        ready.dataset, status=RequestStatus.COMPLETED, finished_at=factories.NOW,
        rows_status=RowsStatus.FAILED, rows_job_id=job.id, rows_at=factories.NOW,
    )  # fmt: skip
    service.put(job)
    service.put(done, factories.target(done, ready.model, status=RequestStatus.COMPLETED))

    said = " ".join(lethe("status", done.id).out.split())

    assert "The disk is read-only." in said
    assert "still in the dataset's files" in said


def test_a_request_is_late_where_it_is(lethe, service: Service, ready: Ready):
    late = factories.request(
        ready.dataset,
        received_at=factories.NOW - timedelta(days=60),
        due_at=factories.NOW - timedelta(days=30),
        overdue_at=factories.NOW,
    )
    service.put(late, factories.target(late, ready.model))

    assert "overdue" in lethe("status", late.id).out
