"""Ten inputs as the network gets them, and what is noticed when they, or its answers, change."""

import copy
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn

from domain import objects
from domain.errors import JobError
from domain.preprocessing import InputKind
from worker.data import decode, preview, reservoir, specimens
from worker.store.artifacts import Store
from worker.unlearning.network import Network

COUNT = 30
PREPROCESSING = {"mean": [0.5] * 3, "std": [0.25] * 3, "resize": [32, 32]}
MADE_WITH = {"pillow": "12.0.0", "torch": "2.13.0"}


def jpeg(pixels, quality=95):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def photographs():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (COUNT, 8, 8, 3))
    return [np.kron(each, np.ones((8, 8, 1))).astype(np.uint8) for each in coarse]


def kept(inputs, kind=pa.large_binary()):  # noqa: B008 (it is a value)
    return pa.table({
        "sample_id": [f"s{n}" for n in range(COUNT)],
        "input": pa.array(inputs, kind),
        "label": pa.array([n // 3 % 4 for n in range(COUNT)], pa.int64()),
        "split": ["train", "holdout", "test"] * (COUNT // 3),
    })  # fmt: skip


class Files:
    """The dataset's files, read as `parquet.Source` does."""

    input_shape = None

    def __init__(self, table):
        self.table = table

    def take(self, positions, roles):
        return self.table.take(pa.array(positions)).select(list(roles))


def module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 4)
    ).eval()


def network(model=None, preprocessing=PREPROCESSING):
    model = module() if model is None else model
    return Network(model, head="4", prepare=decode.preparer(preprocessing, InputKind.IMAGE))


@pytest.fixture(scope="module")
def images():
    return photographs()


@pytest.fixture(scope="module")
def table(images):
    return kept([jpeg(each) for each in images])


@pytest.fixture(scope="module")
def taken(table):
    return specimens.taken(table, network(), PREPROCESSING, {}, MADE_WITH)


def compare(taken, files, by=None, preprocessing=PREPROCESSING, made_with=MADE_WITH):
    rows = specimens.of_table(taken)
    places = [int(name.removeprefix("s")) for name in rows["sample_id"].to_pylist()]
    specimens.require_unchanged(
        rows, by or network(), Files(files), places, preprocessing, made_with
    )


def test_ten_samples_never_trained_on_are_kept_of_all_classes(taken):
    rows = specimens.of_table(taken)

    assert len(rows) == specimens.COUNT
    assert set(rows["split"].to_pylist()) == {"holdout", "test"}
    assert np.bincount(rows["label"].to_pylist()).tolist() == [3, 3, 2, 2]
    assert specimens.inputs_of(rows).shape == (10, 3, 32, 32)
    samples = reservoir.decoded(rows, PREPROCESSING, {})
    assert torch.equal(specimens.inputs_of(rows), network().prepare(samples.inputs))


def test_without_others_training_samples_are_kept(table):
    trained = table.set_column(3, "split", pa.array(["train"] * COUNT))

    assert len(specimens.of_table(
        specimens.taken(trained, network(), PREPROCESSING, {}, MADE_WITH)
    )) == specimens.COUNT  # fmt: skip


def test_what_is_as_it_was_is_as_it_was_in_the_store_too(taken, table, tmp_path):
    store = Store(tmp_path)
    digest = preview.store_reservoir(store, taken, PREPROCESSING)

    compare(reservoir.read(store, digest), table)


def test_a_reservoir_of_an_earlier_release_has_none(table):
    assert len(specimens.of_table(table)) == 0


def test_a_sample_that_leaves_takes_its_specimen_along_and_another_takes_its_place(taken):
    gone = specimens.of_table(taken)["sample_id"][0].as_py()
    left = reservoir.without(taken, [gone])

    again = specimens.taken(left, network(), PREPROCESSING, {}, MADE_WITH)

    assert len(specimens.of_table(left)) == 9
    names = specimens.of_table(again)["sample_id"].to_pylist()
    assert len(names) == 10
    assert gone not in names
    assert set(specimens.of_table(left)["sample_id"].to_pylist()) <= set(names)


def test_a_new_version_answers_for_itself(taken, table):
    other = module()
    other[4].bias.data += torch.tensor([0.0, 3.0, 0.0, 0.0])

    renewed = specimens.taken(taken, network(other), PREPROCESSING, {}, MADE_WITH)

    compare(renewed, table, network(other))
    with pytest.raises(JobError, match="answers 10 sample inputs otherwise"):
        compare(renewed, table)


@pytest.mark.parametrize(
    "other",
    [
        lambda pixels: jpeg(np.rot90(pixels).copy()),
        lambda pixels: jpeg(pixels[..., ::-1].copy()),  # BGR
        lambda pixels: jpeg(np.roll(pixels, 1, 0)),
        lambda pixels: jpeg(pixels, quality=30),
    ],
    ids=["rotated", "other channels", "shifted by a pixel", "worse quality"],
)
def test_other_images_in_the_files_are_noticed(taken, images, other):
    with pytest.raises(JobError, match=r"10 of 10 sample inputs .* the dataset's files") as failed:
        compare(taken, kept([other(each) for each in images]))

    assert "Nothing was trained. Restore the files" in str(failed.value)


def test_another_encoding_of_the_same_pixels_is_not_another_input(taken, table):
    def lossless(encoded):
        file = BytesIO()
        Image.open(BytesIO(encoded)).save(file, "PNG")
        return file.getvalue()

    compare(taken, kept([lossless(each) for each in table["input"].to_pylist()]))


@pytest.mark.parametrize("column", ["sample_id", "label"])
def test_other_ids_or_labels_in_the_files_are_noticed(taken, table, column):
    moved = table.set_column(
        table.column_names.index(column),
        column,
        table[column].take(pa.array([*range(1, COUNT), 0])),
    )

    with pytest.raises(JobError, match="The dataset changed since it was indexed"):
        compare(taken, moved)


def test_another_preprocessing_of_the_same_samples_is_noticed_with_what_changed(taken, table):
    other = PREPROCESSING | {"mean": [0.485, 0.456, 0.406]}

    with pytest.raises(JobError, match="decoded or preprocessed in another way now") as failed:
        compare(taken, table, network(preprocessing=other), other, MADE_WITH | {"pillow": "13"})

    assert str(failed.value).endswith("Other than then: pillow (12.0.0, now 13).")


def swapped(model):
    for name in ("weight", "bias"):
        tensor = getattr(model[4], name)
        tensor.data = tensor.data[[1, 0, 2, 3]]
    return model


def with_gelu(model):
    model[1] = nn.GELU()
    return model


def ever_training(model):
    model.insert(1, nn.Dropout(0.5))
    model[1].forward = lambda x: nn.functional.dropout(x, 0.5, training=True)
    return Network(model, head="5", prepare=decode.preparer(PREPROCESSING, InputKind.IMAGE))


@pytest.mark.parametrize("change", [swapped, with_gelu])
def test_another_network_is_noticed_before_anything_is_trained(taken, table, change):
    with pytest.raises(JobError, match=r"does something else now\. Nothing was trained"):
        compare(taken, table, network(change(module())))


def test_less_precise_arithmetic_is_not_another_network(taken, table):
    """What a GPU does with convolutions has 10 bits, and bfloat16 has 8."""
    halved = copy.deepcopy(module()).bfloat16()

    class Halved(nn.Sequential):
        def forward(self, x):
            return super().forward(x.bfloat16())

    compare(taken, table, network(Halved(*halved)))


def test_a_network_that_draws_at_random_is_refused_when_it_is_registered(table):
    with pytest.raises(JobError, match="answers the same input in two ways"):
        specimens.taken(table, ever_training(module()), PREPROCESSING, {}, MADE_WITH)


def test_tokens_must_be_the_same_and_features_nearly():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50, (COUNT, 6))
    features = rng.normal(size=(COUNT, 6)) * [1, 1e6, 1e-3, 1, 1, 1]

    class Answers(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 4)

        def forward(self, x):
            return self.head(x.float() / x.float().norm(dim=1, keepdim=True))

    module = Answers()
    for values, stored, kind, small in (
        (tokens, pa.large_list(pa.int32()), InputKind.TOKENS, np.eye(1, 6, 2, dtype=int)),
        (features, pa.large_list(pa.float64()), InputKind.FEATURES, np.eye(1, 6, 2) * 1e-5),
    ):
        answers = Network(module, head="head", prepare=decode.preparer({}, kind))
        table = kept(values.tolist(), stored)
        taken = specimens.taken(table, answers, {}, {"input_shape": [6]}, MADE_WITH)
        compare(taken, table, answers, {})
        with pytest.raises(JobError, match="sample inputs do not reach the network"):
            compare(taken, kept((values + small).tolist(), stored), answers, {})


def test_large_inputs_make_do_with_fewer(table, monkeypatch):
    monkeypatch.setattr(specimens, "BYTES", 3 * 3 * 32 * 32 * 4 + 5)

    assert len(specimens.of_table(
        specimens.taken(table, network(), PREPROCESSING, {}, MADE_WITH)
    )) == 3  # fmt: skip


def test_the_picture_shows_what_the_network_gets(taken, tmp_path):
    store = Store(tmp_path)
    digest = preview.store_reservoir(store, taken, PREPROCESSING)

    sheet = Image.open(objects.beside(tmp_path, digest, objects.PREVIEW_PICTURE))

    rows = specimens.of_table(taken)
    first = reservoir.decoded(rows, PREPROCESSING, {}).inputs[0].movedim(0, -1)
    shown = np.asarray(sheet)[8 : 8 + 96, 8 : 8 + 96]
    assert np.array_equal(shown, np.kron(first, np.ones((3, 3, 1))).astype(np.uint8))
    store.remove(digest)
    assert not [*objects.path_of(tmp_path, digest).parent.iterdir()]


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        (torch.rand(2, 1, 8, 8), (2, 8, 8)),
        (torch.rand(2, 8, 8) * 255 - 50, (2, 8, 8)),
        (torch.rand(2, 5, 8, 8), (2, 8, 8)),
        (torch.rand(2, 64), None),
        (torch.randint(0, 9, (2, 8, 8)), None),
        (torch.rand(2, 3, 1, 40), None),
    ],
)
def test_what_is_no_image_has_no_picture(inputs, shape):
    images = preview.as_images(inputs, {})

    assert images is None if shape is None else tuple(images.shape) == shape
    if images is not None:
        assert preview.picture(images, [(0, 1), (1, 1)]).startswith(b"\x89PNG")
