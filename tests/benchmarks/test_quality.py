"""The benchmark of quality on a few random images: every row has its figures, and they are
cached."""

import io
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from benchmarks import lasting, lasting_report
from benchmarks.cifar_models import Recipe, cnn, resnet18
from benchmarks.quality import calibration, measure, report
from benchmarks.quality.__main__ import Runner
from benchmarks.quality.prepare import Bench, Place, Size, prepare
from benchmarks.quality.rows import OURS, OURS_WITH, Row, oracle_rows, perform

FIGURES = (
    "forget_acc", "retain_acc", "test_acc", "mia_auc", "da_forget", "da_holdout", "da_gap",
    "kl_oracle", "avg_gap", "seconds", "retrain_seconds",
)  # fmt: skip


def write(path, count):
    generator = np.random.default_rng(count)
    labels = np.arange(count) % 10
    images = generator.integers(0, 120, (count, 32, 32, 3)) + labels[:, None, None, None] * 12
    rows = {"sample_id": [str(n) for n in range(count)], "label": labels, "image": []}
    for image in images.astype(np.uint8):
        held = io.BytesIO()
        Image.fromarray(image).save(held, "JPEG")
        rows["image"].append(held.getvalue())
    pq.write_table(pa.table(rows), path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    write(folder / "cifar10_train.parquet", 450)
    write(folder / "cifar10_test.parquet", 100)
    size = Size(
        name="tiny", train_samples=300, holdout_samples=150, build=cnn,
        recipe=Recipe(epochs=1, batch_size=32), device="cpu",
    )  # fmt: skip
    place = Place(folder, folder / "cache", size)
    prepare(place, 1)
    return place


@pytest.mark.parametrize(
    ("scenario", "method"),
    [("class", OURS), ("sequence", OURS_WITH), ("canaries", "SSD"),
     ("random 1", "do nothing")],
)  # fmt: skip
def test_a_row_has_every_figure_and_is_made_once(place, scenario, method):
    row = Row(scenario, method, seed=0)

    done = perform(row, place)

    assert (done["scenario"], done["method"], done["seed"]) == (scenario, method, 0)
    assert all(math.isfinite(done[figure]) for figure in FIGURES)
    assert done["verdict"] in ("pass", "fail", "no_power")
    assert Runner(place, workers=0).rows([row]) == [json.loads(json.dumps(done))]


def test_what_another_audit_said_of_a_row_is_not_shown(place, monkeypatch):
    row = Row("random 1", "do nothing", seed=0)
    done = perform(row, place)

    monkeypatch.setattr(measure, "judges", lambda: "another")
    [found] = Runner(place, workers=0).rows([row])

    assert done["verdict"]
    assert found["verdict"] is None
    assert found["avg_gap"] == done["avg_gap"]
    assert "no_power" not in report._table([found], report.COLUMNS)


def test_doing_nothing_is_as_far_from_the_oracles_as_the_original_and_they_are_near(place):
    bench = Bench.open(place)
    nothing = perform(Row("random 1", "do nothing", seed=0), place)
    retrained = oracle_rows(bench, bench.scenarios()["random 1"])

    assert nothing["seconds"] < 0.1 * nothing["retrain_seconds"]
    assert len(retrained) == 3
    assert {row["time_ratio"] for row in retrained} == {1.0}


def test_cheats_are_judged_and_told(place):
    calibration.judge(place, "class")

    cases = calibration.cases(place, workers=0)
    text = report.tables(
        {"rows": [perform(Row("class", OURS, seed=0), place)], "ablations": {}, "targets": {},
         "budgets": {}, "escalated": {}, "calibration": calibration.summary(cases)}
    )  # fmt: skip

    assert {case["kind"] for case in cases} == {
        "retrain", "do nothing", "another original", *calibration.CHEATS
    }  # fmt: skip
    assert "over-forgotten" in text


def test_the_larger_network_answers_and_has_its_head():
    model = resnet18().eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert model.get_submodule("head").in_features == 512


def test_a_picture_is_drawn(place, tmp_path):
    done = perform(Row("class", OURS, seed=0), place)
    report.plot({"rows": [done], "budgets": {"3 cycles": [done]}}, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize("part", lasting.PARTS[:3])
def test_what_lasts_has_every_figure_is_made_once_and_drawn(place, tmp_path, monkeypatch, part):
    monkeypatch.setattr(lasting, "COUNTS", (1, 30))
    monkeypatch.setattr(lasting, "RECOVERIES", 1)
    monkeypatch.setattr(lasting, "SEQUENCES", {"20 x 50": (2, 1)})
    task = lasting.Task(part, OURS, seed=0)

    made = lasting.performed(task, place)
    monkeypatch.setattr(lasting, "unlearnt", None)
    found = {"rows": lasting.merged([], [made, lasting.performed(task, place)])}
    lasting_report.plot(found, tmp_path / "plot.png")

    assert len(found["rows"]) == 1
    assert part in lasting_report.tables(found)
    figures = json.dumps(made)
    assert "mia_auc" in figures
    assert "NaN" not in figures
