from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from domain.errors import JobError
from domain.preprocessing import InputKind
from worker.data import decode
from worker.data.inputs import bad_inputs
from worker.data.parquet import Source

PLAIN = {"resize": None, "mode": "RGB", "scale": 1 / 255, "mean": [], "std": []}


def encoded(pixels: np.ndarray, form: str = "PNG", **how) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, form, **how)
    return file.getvalue()


def images(*values: bytes | None) -> pa.Array:
    return pa.array(values, pa.large_binary())


def arrays(values: list, kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.large_list(kind))


@pytest.fixture
def picture(rng) -> np.ndarray:
    return rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)


def test_png_images_keep_their_pixels(picture):
    decoded = decode.decode(images(encoded(picture)), PLAIN, None)

    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, torch.from_numpy(picture).permute(2, 0, 1)[None])


def test_many_images_keep_their_order(rng):
    pictures = rng.integers(0, 256, (100, 4, 4, 3), dtype=np.uint8)

    decoded = decode.decode(images(*map(encoded, pictures)), PLAIN, None)

    assert torch.equal(decoded, torch.from_numpy(pictures).movedim(-1, 1))


def test_grey_images_have_one_channel(picture):
    decoded = decode.decode(images(encoded(picture)), {**PLAIN, "mode": "L"}, None)

    assert decoded.shape == (1, 1, 6, 5)


def test_resize_is_height_then_width_and_bilinear(picture):
    decoded = decode.decode(images(encoded(picture)), {**PLAIN, "resize": [3, 8]}, None)

    expected = Image.fromarray(picture).resize((8, 3), Image.Resampling.BILINEAR)
    assert torch.equal(decoded[0].movedim(0, -1), torch.from_numpy(np.array(expected)))


def test_images_of_different_sizes_need_a_resize(picture):
    column = images(encoded(picture), encoded(picture[:4]))

    with pytest.raises(JobError, match=r"set the model's preprocessing\.resize"):
        decode.decode(column, PLAIN, None)
    assert decode.decode(column, {**PLAIN, "resize": [4, 4]}, None).shape == (2, 3, 4, 4)


def test_no_images_are_an_empty_tensor():
    assert decode.decode(images(), {**PLAIN, "resize": [4, 4]}, None).shape == (0, 3, 4, 4)


def test_bad_images_are_told_from_good_ones(picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    jpeg = encoded(np.zeros((8, 8, 3), dtype=np.uint8), "JPEG")
    column = images(
        encoded(picture),
        None,
        jpeg,
        jpeg[:-40],  # its header is sound
        b"no image at all",
        b"",
        encoded(np.zeros((11, 11), dtype=np.uint8)),  # larger than Pillow would warn about
        encoded(np.zeros((50, 50), dtype=np.uint8)),  # a bomb
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    )

    bad = bad_inputs(column, None)

    assert np.flatnonzero(bad["input_missing"]).tolist() == [1]
    assert np.flatnonzero(bad["input_undecodable"]).tolist() == [3, 4, 5, 6, 7, 8]


def test_every_image_is_decoded_once(rng, monkeypatch):
    pictures = rng.integers(0, 256, (70, 4, 4, 3), dtype=np.uint8)
    opened = []
    original = Image.open
    monkeypatch.setattr(
        Image, "open", lambda *args, **how: opened.append(1) or original(*args, **how)
    )

    decode.decode(images(*map(encoded, pictures)), PLAIN, None)

    assert len(opened) == 70


def test_an_image_that_broke_since_indexing_stops_the_job(picture):
    with pytest.raises(JobError, match="The dataset changed"):
        decode.decode(images(encoded(picture), b"broken"), PLAIN, None)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.uint8(), torch.uint8),
        (pa.int32(), torch.int32),
        (pa.int64(), torch.int64),
        (pa.uint16(), torch.int32),
        (pa.uint32(), torch.int64),
        (pa.float32(), torch.float32),
        (pa.float64(), torch.float64),
    ],
)
def test_arrays_keep_the_type_of_the_file_and_take_the_shape(kind, expected):
    decoded = decode.decode(arrays([[1, 2, 3, 4], [5, 6, 7, 8]], kind), PLAIN, [2, 2])

    assert decoded.dtype == expected
    assert decoded.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


def test_bad_arrays_are_told_from_good_ones():
    values = [[1.0, 2.0], None, [1.0], [float("nan"), 1.0], [1.0, float("inf")], [None, 1.0], []]

    bad = bad_inputs(arrays(values, pa.float32()), 2)

    assert np.flatnonzero(bad["input_missing"]).tolist() == [1]
    assert np.flatnonzero(bad["input_wrong_length"]).tolist() == [2, 6]
    assert np.flatnonzero(bad["input_not_finite"]).tolist() == [3, 4, 5]


def test_large_unsigned_numbers_do_not_become_negative():
    column = arrays([[2**63, 5]], pa.uint64())

    assert decode.decode(column, {}, None).tolist() == [[2.0**63, 5.0]]


@pytest.mark.parametrize(
    "null", [[None, 1.0], None], ids=["a null in a list", "a null instead of a list"]
)
def test_nulls_in_lists_of_a_fixed_size_are_bad_rows(null):
    stored = pa.array([[1.0, 2.0], null, [3.0, float("nan")]], pa.list_(pa.float32(), 2))

    bad = bad_inputs(stored.cast(pa.large_list(pa.float32())), 2)

    assert sum(mask.astype(int) for mask in bad.values()).tolist() == [0, 1, 1]
    assert not bad["input_not_finite"][0]


def test_inputs_of_several_columns_are_stacked_in_the_order_of_the_names():
    ids = pa.struct([(name, pa.large_list(pa.int64())) for name in ("input_ids", "mask")])
    column = pa.array([{"input_ids": [7, 8], "mask": [1, 0]}] * 3, ids)

    assert decode.decode(column, {}, None).tolist() == [[[7, 8], [1, 0]]] * 3
    short = pa.array([{"input_ids": [7, 8], "mask": [1]}, {"input_ids": None, "mask": [1, 1]}], ids)
    assert bad_inputs(short, 2)["input_wrong_length"].tolist() == [True, True]


def test_a_slice_of_a_column_is_checked_and_decoded_as_such():
    column = arrays([[float("nan")], [1.0], [2.0]], pa.float32()).slice(1)

    assert not any(mask.any() for mask in bad_inputs(column, 1).values())
    assert decode.decode(column, PLAIN, None).tolist() == [[1.0], [2.0]]


def test_pixels_are_scaled_and_normalised_per_channel():
    prepare = decode.preparer(
        {"scale": 0.5, "mean": [1.0, 2.0], "std": [2.0, 4.0]}, InputKind.PIXELS
    )

    prepared = prepare(torch.tensor([[[[4]], [[8]]]], dtype=torch.uint8))

    assert prepared.tolist() == [[[[0.5]], [[0.5]]]]
    assert prepared.dtype == torch.float32


def test_flat_arrays_are_prepared_as_well():
    assert decode.preparer({"scale": 2.0}, InputKind.PIXELS)(
        torch.tensor([[1.0, 2.0]])
    ).tolist() == [[2.0, 4.0]]


@pytest.mark.parametrize("kind", [InputKind.IMAGE, InputKind.PIXELS, None])
def test_without_a_scale_only_bytes_are_divided_by_255(kind):
    prepare = decode.preparer({"scale": None}, kind)

    assert prepare(torch.tensor([[51, 255]], dtype=torch.uint8)).tolist() == [
        [pytest.approx(0.2), 1.0]
    ]
    assert prepare(torch.tensor([[51.0, 255.0]])).tolist() == [[51.0, 255.0]]


@pytest.mark.parametrize("kind", [InputKind.TOKENS, None])
def test_token_ids_pass_through(kind):
    prepared = decode.preparer(PLAIN, kind)(torch.tensor([[101, 7]], dtype=torch.int32))

    assert prepared.dtype == torch.int64
    assert prepared.tolist() == [[101, 7]]


@pytest.mark.parametrize("stored", [torch.uint8, torch.int8, torch.int32, torch.float64])
def test_what_numbers_mean_is_for_the_kind_to_say_not_for_their_type(stored):
    numbers = torch.tensor([[3, 5]], dtype=stored)

    tokens, features, pixels = (
        decode.preparer({"scale": 2.0} if kind is InputKind.PIXELS else {}, kind)(numbers)
        for kind in (InputKind.TOKENS, InputKind.FEATURES, InputKind.PIXELS)
    )

    assert (tokens.dtype, tokens.tolist()) == (torch.int64, [[3, 5]])
    assert (features.dtype, features.tolist()) == (torch.float32, [[3.0, 5.0]])
    assert (pixels.dtype, pixels.tolist()) == (torch.float32, [[6.0, 10.0]])


@pytest.mark.parametrize(
    ("stored", "guessed"),
    [
        (torch.uint8, InputKind.PIXELS), (torch.int8, InputKind.PIXELS),
        (torch.float16, InputKind.PIXELS), (torch.float64, InputKind.PIXELS),
        (torch.int16, InputKind.TOKENS), (torch.int64, InputKind.TOKENS),
    ],
)  # fmt: skip
def test_a_dataset_without_a_kind_is_read_as_the_release_that_registered_it_did(stored, guessed):
    assert decode.guessed_kind(stored) is guessed


def test_a_mean_for_other_channels_is_refused():
    with pytest.raises(ValueError, match="names 3 channels in mean or std, but the inputs have 1"):
        decode.preparer({"mean": [0.1, 0.2, 0.3]}, InputKind.IMAGE)(torch.zeros(2, 1, 4, 4))


def test_fetch_gives_the_samples_in_the_order_asked_for(rows, write, definition):
    source = Source.open(write(rows(20)), definition)

    samples = decode.fetch(source, [("person-11", 11), ("person-2", 2)], PLAIN)

    assert samples.inputs.tolist() == [[11] * 4, [2] * 4]
    assert samples.labels.tolist() == [2, 2]


def test_fetch_refuses_another_sample_at_the_position(rows, write, definition):
    source = Source.open(write(rows(20)), definition)

    with pytest.raises(JobError, match="The dataset changed since it was indexed"):
        decode.fetch(source, [("person-11", 12)], PLAIN)
