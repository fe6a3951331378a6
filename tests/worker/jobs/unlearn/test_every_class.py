"""Every job says what it did to all classes: also to one that lost all of its training samples."""

import pytest
from sqlalchemy import select

from domain.states import Objective
from domain.tables import AuditEvent, Evaluation, ModelVersion
from evidence import accuracy, wording
from tests.worker.jobs.unlearn.digit_models import (
    COUNT,
    LABELS,
    NAMED,
    PARTS,
    flat_floats,
)
from worker.jobs.unlearn.job import unlearn_model

SEVENS = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == "train" and LABELS[n] == 7]


@pytest.fixture
def told(sync_sessions):
    """The report, the figures of the new version and the event about it."""

    def read(bench):
        with sync_sessions() as session:
            rows = session.scalars(select(Evaluation).filter_by(job_id=bench.claim.job_id))
            figures = {row.moment: row.figures for row in rows}
            version = session.scalars(
                select(ModelVersion).filter_by(job_id=bench.claim.job_id)
            ).one()
            event = session.scalars(
                select(AuditEvent).filter_by(subject_id=version.id, event="version.created")
            ).one()
        report = accuracy.report(figures["before"], figures["after"])
        return report, figures, version, event.data

    return read


@pytest.mark.parametrize(
    ("how", "exact"),
    [
        ({"objective": Objective.UNTRAIN_SAMPLES}, False),
        ({"objective": Objective.UNTRAIN_SAMPLES, "exact": True}, True),
        ({"objective": Objective.REMOVE_CLASS}, False),
    ],
    ids=["untrained", "retrained", "removed"],
)
def test_a_class_without_training_samples_is_named(registered, ask, told, how, exact):
    model = registered(flat_floats, recipe="learn" if exact else None, escalation=[])
    bench = ask(model, *SEVENS, **how)

    unlearn_model(bench)

    report, figures, version, event = told(bench)
    seven = report["classes"][7]
    assert report["lost_classes"] == [7] == event["lost_classes"]
    assert seven["samples"] == sum((PARTS == "test") & (LABELS == 7))
    assert seven["before"] > 0.5
    assert seven["after"] == 0.0
    assert report["after"] < figures["after"]["test_accuracy"]
    assert report["after"] == version.figures["accuracy_of_all_classes"]
    assert report["after"] == event["right_after"] / event["measured"]
    assert report["before"] == event["right_before"] / event["measured"]
    assert report["samples"] == sum(each["samples"] for each in report["classes"])
    (overall, lost) = wording.accuracy_remarks(report)
    assert f"was {report['before']:.3f} before and {report['after']:.3f} after" in overall
    assert lost.startswith("Class 7 lost all of its training samples: its accuracy on")
    assert lost.endswith(f"went from {seven['before']:.3f} to 0.000.")


def test_where_no_class_is_lost_all_are_told_all_the_same(registered, ask, told):
    bench = ask(registered(flat_floats, escalation=[]), *NAMED)

    unlearn_model(bench)

    report, figures, _, event = told(bench)
    assert report["lost_classes"] == []
    assert "lost_classes" not in event
    assert len(report["classes"]) == 10
    assert report["measured_on"] == "test"
    assert report["after"] == pytest.approx(figures["after"]["test_accuracy"])
    assert len(wording.accuracy_remarks(report)) == 1
