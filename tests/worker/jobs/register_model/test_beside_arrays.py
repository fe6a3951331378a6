"""Datasets of arrays, and what timm says beside the weights of their networks."""

import json

import pytest

from domain.errors import JobError
from tests.worker.jobs.register_model.digit_networks import NAMES

TIMM = {
    "architecture": "digits", "num_classes": 10, "label_names": NAMES,
    "pretrained_cfg": {
        "input_size": [1, 8, 8], "interpolation": "bilinear", "crop_pct": 1.0,
        "mean": [0.5], "std": [0.5],
    },
}  # fmt: skip


def test_the_config_of_timm_says_how_pixels_are_prepared(
    trained, indexed, named, run, refreshed, tmp_path
):
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    free = {"preprocessing": {}, "declared": {"preprocessing": {}}, "accept_accuracy": True}
    model = named(indexed(), **free)
    run(model)

    found = refreshed(model)
    assert found.preprocessing == {"scale": 1 / 255, "mean": [0.5], "std": [0.5]}
    assert (found.found["preprocessing_source"], found.found["classes"]) == ("config.json", NAMES)


def test_arrays_of_another_size_than_the_network_saw_are_refused(
    indexed, named, run, tmp_path, trained
):
    odd = {**TIMM, "pretrained_cfg": {**TIMM["pretrained_cfg"], "input_size": [1, 9, 9]}}
    (tmp_path / "config.json").write_text(json.dumps(odd))

    with pytest.raises(JobError, match=r"9 x 9 pixels, and the arrays .*arrays are not resized"):
        run(named(indexed(), preprocessing={}, declared={"preprocessing": {}}))
