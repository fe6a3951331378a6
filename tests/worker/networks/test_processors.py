"""What image processors and timm write beside the weights, as a registration says it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers.utils import logging

from domain.errors import JobError
from domain.preprocessing import InputKind
from worker.data import decode
from worker.networks import processors

logging.set_verbosity_error()


def prepare(images: pa.Array, fields: dict) -> Tensor:
    return decode.preparer(fields, InputKind.IMAGE)(decode.decode(images, fields, None))


def described(directory: Path, mode: str = "RGB"):
    return processors.described(directory, Path, prepare, mode=mode)


@pytest.mark.parametrize(
    ("name", "options", "resize", "crop"),
    [
        ("ViTImageProcessor", {}, [224, 224], None),
        ("CLIPImageProcessor", {}, {"shortest_edge": 224}, [224, 224]),
        ("DeiTImageProcessor", {}, [256, 256], [224, 224]),
        ("ConvNextImageProcessor", {}, [384, 384], None),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}, {"shortest_edge": 256},
         [224, 224]),
        ("LevitImageProcessor", {}, {"shortest_edge": 256}, [224, 224]),
        ("PoolFormerImageProcessor", {}, {"shortest_edge": 248}, [224, 224]),
        ("ViTImageProcessor", {"do_resize": False}, None, None),
    ],
)  # fmt: skip
def test_what_a_processor_does_is_read_and_tried(tmp_path, name, options, resize, crop):
    processor = getattr(transformers, name)(**options)
    processor.save_pretrained(tmp_path)

    fields, file = described(tmp_path)

    assert (fields.get("resize"), fields.get("crop")) == (resize, crop)
    assert file == "preprocessor_config.json"
    pixels = np.random.default_rng(1).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    expected = torch.as_tensor(np.array(processor(picture)["pixel_values"][0]))
    ours = prepare(processors._encoded(picture), fields)[0]
    torch.testing.assert_close(ours, expected.float(), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MobileViTImageProcessor", {}),
        ("EfficientNetImageProcessor", {}),
        ("ImageGPTImageProcessor", {}),
        ("ViTImageProcessor", {"size": {"height": 100_000, "width": 100_000}}),
    ],
)
def test_what_cannot_be_said_is_refused(tmp_path, name, options):
    getattr(transformers, name)(**options).save_pretrained(tmp_path)

    with pytest.raises(JobError, match='and preprocessing_source: "declared"'):
        described(tmp_path)


def test_what_an_older_release_wrote_is_read(tmp_path):
    old = {
        "feature_extractor_type": "ViTFeatureExtractor", "do_resize": True, "do_normalize": True,
        "size": 32, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))

    fields, _ = described(tmp_path)

    assert (fields["resize"], fields["interpolation"]) == ([32, 32], "bicubic")
    assert (fields["scale"], fields["std"]) == (pytest.approx(1 / 255), [0.25] * 3)


@pytest.mark.parametrize("text", ["[]", "{", '{"size": 3', "[" * 100_000])
def test_a_file_that_cannot_be_read_is_not_passed_over(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)

    with pytest.raises(JobError, match=r"No readable preprocessor_config\.json"):
        described(tmp_path)


def test_the_files_of_a_text_or_audio_model_are_none_for_images(tmp_path):
    audio = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(audio))
    (tmp_path / "processor_config.json").write_text('{"processor_class": "ClapProcessor"}')

    assert described(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "resize", "crop"),
    [
        ({}, {"shortest_edge": 248}, [224, 224]),
        ({"crop_pct": 1.0}, {"shortest_edge": 224}, [224, 224]),
        ({"crop_mode": "squash"}, [248, 248], [224, 224]),
    ],
)
def test_timm_says_how_it_evaluates(tmp_path, changes, resize, crop):
    said = {
        "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.9,
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], **changes,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": said}))

    fields, file = described(tmp_path)

    assert (fields["resize"], fields["crop"], file) == (resize, crop, "config.json")
    assert (fields["interpolation"], fields["mean"]) == ("bicubic", said["mean"])


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_mode": "border"}, {"input_size": [3, 224, 192]}, {"interpolation": "random"},
        {"mean": None}, {"input_size": 5}, {"std": ["a"]},
    ],
)  # fmt: skip
def test_what_timm_says_otherwise_is_refused(tmp_path, changes):
    said = {
        "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.5],
        "std": [0.5], **changes,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": said}))
    with pytest.raises(JobError, match=r"pretrained_cfg in config\.json .*declared"):
        described(tmp_path)


def test_declared_options_may_add_to_a_file_and_not_contradict_it():
    read = ({"scale": 1 / 255, "mean": [0.5] * 3, "resize": [8, 8]}, "preprocessor_config.json")
    declared = {"orientation": "exif", "mean": [0.5], "resize": [8, 8], "scale": 0.00392156}

    merged = processors.merged(declared, read, frozenset())
    assert (merged["orientation"], merged["resize"]) == ("exif", [8, 8])

    for wrong in ({"scale": 1.0}, {"mean": [0.4]}, {"resize": [9, 8]}):
        with pytest.raises(JobError, match="contradicts preprocessor_config"):
            processors.merged(wrong, read, frozenset())
