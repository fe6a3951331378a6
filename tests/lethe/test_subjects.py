"""The client and the command line name people, accounts and households."""

from uuid import uuid4

import pytest

from domain.states import JobKind
from lethe import Lethe, errors
from tests import factories
from tests.conftest import KEY
from tests.lethe.conftest import QUICKLY, Ready, Service
from tests.service.grouped import GROUPED

ANN, BEN = "ann@example.com", "4711"


@pytest.fixture(scope="module")
def gait(service: Service):
    """The names of a dataset with groups, and of two models of it: Ann has t1, t3 and h0, and Ben
    has t2."""
    dataset = factories.dataset(name=f"gait-{uuid4().hex[:8]}", definition=GROUPED)
    models = [factories.model(dataset, name=f"cnn-{uuid4().hex[:8]}") for _ in range(2)]
    samples = factories.samples(dataset)
    for each in samples:
        who = {"t1": ANN, "t3": ANN, "h0": ANN, "t2": BEN}.get(each.sample_id)
        each.group_digest = who and factories.digest_of_group(who)
    index = factories.job(dataset_id=dataset.id, kind=JobKind.INDEX_DATASET, finished=True)
    made = [
        factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
        for model in models
    ]
    versions = [
        factories.version(model, job, weights_sha256=uuid4().hex * 2)
        for model, job in zip(models, made, strict=True)
    ]
    service.put(dataset, *models, index, *made, *versions, *samples)
    return dataset.name, *(model.name for model in models)


@pytest.fixture
def shell(command, service: Service, monkeypatch):
    """The command line, speaking to the real API."""
    monkeypatch.setenv("LETHE_URL", service.url)
    monkeypatch.setenv("LETHE_API_KEY", KEY)
    return command


def test_subjects_are_named_estimated_proven_and_looked_up(lethe: Lethe, gait):
    dataset, model, _ = gait

    found = lethe.lookup_subjects([ANN, 4711, "nobody"], dataset=dataset)
    made = lethe.forget(["t0"], model=model, subjects=[ANN])
    answered = lethe.forget(dataset=dataset, subjects=["nobody"], unknown_subjects="answer")
    estimate = lethe.estimate(model=model, subjects=[4711])

    assert (found.unknown_positions, found.datasets[0].samples.train) == ([2], 3)
    assert [each.left for each in found.datasets[0].models] == [3, 3]
    assert (made.samples, made.subjects) == (4, 1)
    assert made.resolved
    assert (made.resolved.samples, made.resolved.models) == (3, 1)
    assert (answered.status, answered.samples, estimate.samples) == ("completed", 0, 1)
    assert lethe.prove_naming(made.id, subject=f" {ANN} ").named_as == "subject"
    assert lethe.prove_naming(made.id, "t3").named_as == "sample"
    assert lethe.prove_naming(answered.id, subject="nobody").named_as == "unknown_subject"


def test_what_is_wrong_about_subjects_has_exceptions_of_its_own(lethe: Lethe, ready: Ready, gait):
    with pytest.raises(errors.UnknownSubjects) as unknown:
        lethe.forget(model=gait[1], subjects=[ANN, "nobody"])
    with pytest.raises(errors.Invalid) as without:
        lethe.forget(model=ready.names[1], subjects=[ANN])

    assert (unknown.value.unknown_count, unknown.value.unknown_positions) == (1, [1])
    assert "nobody" not in str(unknown.value)
    assert without.value.slug == "no-groups"


def test_nothing_is_sent_where_nobody_can_be_meant():
    with Lethe("https://nowhere.invalid", KEY, retries=QUICKLY) as lethe:
        for wrong in (
            lambda: lethe.forget(model="cnn"),
            lambda: lethe.forget(model="cnn", subjects="ann"),
            lambda: lethe.lookup_subjects("ann"),
        ):
            with pytest.raises(errors.NotSent):
                wrong()


def test_the_command_line_takes_subjects_from_everywhere(shell, gait, home, typed):
    dataset, model, _ = gait
    (home / "people.txt").write_text(f"{ANN}\r\n\n{BEN}\n")
    (home / "ids.txt").write_text("t9\n")

    def samples(*words: object) -> int:
        said = shell("forget", "--model", model, "--json", *words)
        assert said.status == 0, said.out
        return int(said.json["samples"])

    assert samples("--subject", ANN, "--subject", BEN) == 4
    assert samples("--subjects-from", home / "people.txt", "--from", home / "ids.txt") == 5
    typed(f"{BEN}\n")
    assert samples("t9", "--subjects-from", "-") == 2
    said = shell("forget", "--dataset", dataset, "--subject", ANN)
    assert f"Asking every model of dataset {dataset} to forget 1 subject." in said.err
    assert "3 samples in 1 dataset, 2 models" in said.out
    assert ANN not in said.out + said.err


def test_the_command_line_says_who_is_unknown_and_what_can_be_done(shell, gait):
    ask = ("forget", "--model", gait[1], "--subject", ANN, "--subject", "nobody")

    refused = shell(*ask)
    answered = shell(*ask[:3], "--subject", "nobody", "--unknown-subjects", "answer")
    machine = shell(*ask, "--json")

    assert refused.status == machine.status == 3
    assert "these of the subjects, counted from 1: 2." in refused.err
    assert machine.json["error"]["unknown_positions"] == [1]
    assert answered.status == 0
    assert "No data of 1 of the 1 subjects was found" in " ".join(answered.out.split())


def test_the_command_line_looks_up(shell, gait, typed):
    dataset = gait[0]

    said = shell("subject", "lookup", ANN, "--dataset", dataset)
    typed(f"{BEN}\nnobody\n")
    machine = shell("subject", "lookup", "-", "-d", dataset, "--json")

    assert said.status == 0
    assert "3 samples in 1 dataset, 2 models" in said.out
    assert "2 train, 1 holdout" in said.out
    assert ANN not in said.out + said.err
    assert (machine.status, machine.json["unknown_positions"]) == (1, [1])


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--subject", ANN, "--subjects-from", "people.txt"], "Name the subjects once"),
        (["--subjects-from", "missing.txt"], "cannot be read"),
        (["--subjects-from", "empty.txt"], "no subjects"),
        (["-", "--subjects-from", "-"], "either ids or subjects"),
        (["t1", "--from", "empty.txt", "--subject", ANN], "Name the samples once"),
    ],
)
def test_what_cannot_be_meant_is_said(shell, home, words, advice):
    (home / "empty.txt").write_text("\n")

    said = shell("forget", "--model", "cnn", *words, "--json")

    assert said.status == 2
    assert advice in said.json["error"]["detail"]
