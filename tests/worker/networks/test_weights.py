"""What a weights file may be made of, and where the weights lie."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from domain.errors import JobError
from worker.networks import weights
from worker.store.artifacts import Store


class Tied(nn.Module):
    """Two layers with one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight


class View(nn.Module):
    """A buffer that is a part of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Parameter(torch.rand(4))
        self.register_buffer("part", self.whole.detach()[:2])


def cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))


def saved(tensors: dict, path: Path) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    return path


def loaded(network: nn.Module, tensors: dict, path: Path) -> nn.Module:
    weights.load(network, saved(tensors, path))
    return network


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_and_told(tmp_path, dtype):
    network = cnn()
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    again = loaded(cnn(), state, tmp_path / "w.safetensors")

    torch.testing.assert_close(again[3].weight, network[3].weight, atol=1e-2, rtol=0)
    assert again[3].weight.dtype is torch.float32
    assert weights.dtypes(tmp_path / "w.safetensors") == {
        "int64": 1, str(dtype).removeprefix("torch."): 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    "dtype",
    [
        torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.float8_e4m3fn,
        torch.float8_e5m2,
    ],
)  # fmt: skip
def test_codes_are_not_values(tmp_path, dtype):
    state = cnn().state_dict()
    state["3.weight"] = (state["3.weight"] * 127).to(dtype)

    with pytest.raises(JobError, match=r"3\.weight as .* quantised.* Dequantise .* float16 or"):
        loaded(cnn(), state, tmp_path / "w.safetensors")


def test_packed_codes_are_not_taken_for_a_misfit(tmp_path):
    state = cnn().state_dict()
    packed = torch.randint(0, 255, (3, 36), dtype=torch.uint8)
    state |= {"3.weight": packed, "3.weight.absmax": torch.rand(3)}

    with pytest.raises(JobError, match="weights are quantised"):
        loaded(cnn(), state, tmp_path / "w.safetensors")


def test_counters_may_be_floats_that_are_whole_numbers(tmp_path):
    state = {name: tensor.float() for name, tensor in cnn().state_dict().items()}
    state["1.num_batches_tracked"] = torch.tensor(300.0)
    assert loaded(cnn(), state, tmp_path / "w.safetensors")[1].num_batches_tracked == 300

    state["1.num_batches_tracked"] = torch.tensor(300.0).bfloat16()  # of 257, it would be 256
    with pytest.raises(JobError, match=r"num_batches_tracked as torch\.bfloat16 instead of"):
        loaded(cnn(), state, tmp_path / "w.safetensors")
    state["1.num_batches_tracked"] = torch.tensor(0.5)
    with pytest.raises(JobError, match=r"num_batches_tracked as torch\.float32 instead of"):
        loaded(cnn(), state, tmp_path / "w.safetensors")


def test_values_beyond_float32_are_refused(tmp_path):
    state = {name: tensor.double() for name, tensor in nn.Linear(2, 2).state_dict().items()}
    state["bias"][0] = 1e300

    with pytest.raises(JobError, match=r"bias with values too large for torch\.float32"):
        loaded(nn.Linear(2, 2), state, tmp_path / "w.safetensors")


def test_complex_values_are_not_cut_off(tmp_path):
    state = nn.Linear(2, 2).state_dict() | {"weight": torch.ones(2, 2, dtype=torch.complex64)}

    with pytest.raises(JobError, match="weight as C64"):
        loaded(nn.Linear(2, 2), state, tmp_path / "w.safetensors")


def test_clones_of_tied_weights_are_accepted_while_they_are_equal(tmp_path):
    network, state = Tied(), Tied().state_dict()
    loaded(network, state, tmp_path / "w.safetensors")
    assert torch.equal(network.second.weight, state["first.weight"])

    state["second.weight"] = state["second.weight"] + 1
    with pytest.raises(JobError, match=r"ties first\.weight, second\.weight: .* different values"):
        loaded(Tied(), state, tmp_path / "w.safetensors")

    save_model(network, str(tmp_path / "again.safetensors"))  # as the message advises
    weights.load(Tied(), tmp_path / "again.safetensors")


@pytest.mark.parametrize("kept", ["first.weight", "second.weight"])
def test_either_name_of_a_tied_weight_is_enough(tmp_path, kept):
    state = Tied().state_dict()
    both = {"first.weight", "second.weight"}
    network = loaded(
        Tied(), {n: t for n, t in state.items() if n not in both - {kept}}, tmp_path / "w"
    )
    assert torch.equal(network.first.weight, state[kept])

    with pytest.raises(JobError, match=r"missing: first\.weight, second\.weight"):
        loaded(Tied(), {n: t for n, t in state.items() if n not in both}, tmp_path / "w")


def test_a_part_of_a_parameter_need_not_be_in_the_file(tmp_path):
    view = View()
    save_model(view, str(tmp_path / "w"))
    again = View()
    weights.load(again, tmp_path / "w")
    assert torch.equal(again.part, view.whole[:2])

    state = {"whole": torch.ones(4), "part": torch.zeros(2)}
    with pytest.raises(JobError, match="different values"):
        loaded(View(), state, tmp_path / "w")


@pytest.fixture
def shards(tmp_path) -> Path:
    """A directory with a network in two shards, as save_pretrained writes them."""
    state = cnn().state_dict()
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[:3], names[3:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        saved({name: state[name] for name in part}, tmp_path / file)
        weight_map |= dict.fromkeys(part, file)
    write_index(tmp_path, weight_map)
    return tmp_path


def write_index(directory: Path, weight_map: object) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def read_index(directory: Path) -> dict:
    return json.loads((directory / "model.safetensors.index.json").read_text())["weight_map"]


@pytest.mark.parametrize("named", ["", "model.safetensors.index.json"])
def test_shards_become_one_file(shards, named):
    store = Store(shards / "store")
    digest = weights.store(store, weights.files(shards / named, Path))

    expected = {}
    for file in shards.glob("model-*.safetensors"):
        expected |= load_file(file)
    merged = load_file(store.path(digest))
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)
    weights.load(cnn(), store.path(digest))


def test_every_shard_must_be_allowed(shards):
    seen = []

    def allow(path: str) -> Path:
        seen.append(Path(path).name)
        return Path(path)

    weights.files(shards, allow)
    assert seen == [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "a.bin", "..", "", 3]
)
def test_an_index_names_only_files_beside_it(shards, name):
    weight_map = read_index(shards)
    write_index(shards, weight_map | {"0.bias": name})

    with pytest.raises(JobError, match="not a safetensors file in its own directory"):
        weights.files(shards, Path)


def test_an_index_that_does_not_fit_its_shards_is_refused(shards):
    weight_map = read_index(shards)
    second = "model-00002-of-00002.safetensors"
    for changed, message in (
        (weight_map | {"0.bias": second}, r"it lacks 0\.bias"),
        ({name: file for name, file in weight_map.items() if name != "0.bias"}, "it also has 0"),
        (weight_map | {"gone": second}, "it lacks gone"),
        ([], "has no weight_map"),
        ({}, "has no weight_map"),
    ):
        write_index(shards, changed)
        with pytest.raises(JobError, match=message):
            weights.files(shards, Path)

    write_index(shards, weight_map)
    (shards / second).unlink()
    with pytest.raises(JobError, match="There is no file"):
        weights.files(shards, Path)


def test_shards_without_an_index_are_refused(shards):
    (shards / "model.safetensors.index.json").unlink()

    with pytest.raises(JobError, match=r"no model\.safetensors\.index\.json that says how"):
        weights.files(shards, Path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"weight_map": {"a": 1e999}}'])
def test_an_index_that_is_no_index_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)

    with pytest.raises(JobError, match=r"save_pretrained|write it again"):
        weights.files(tmp_path, Path)


def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("model.safetensors", "model.safetensors.index.json"):
        os.mkfifo(tmp_path / name)

    for name in ("", "model.safetensors.index.json"):
        with pytest.raises(JobError, match="is not a file but a named pipe"):
            weights.files(tmp_path / name, Path)


def test_a_header_of_megabytes_is_not_parsed(tmp_path):
    path = tmp_path / "model.safetensors"
    header = b"{" + b" " * 9 * 2**20 + b"}"  # lawful, and parsed as a whole by the library
    path.write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(JobError, match="begins with a header of 9,437,186 bytes"):
        weights.files(tmp_path, Path)


def test_the_model_is_found_among_other_files(tmp_path):
    for name in ("optimizer", "adapter_extra", "consolidated", "model"):
        saved({"weight": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    assert weights.files(tmp_path, Path) == [tmp_path / "model.safetensors"]

    (tmp_path / "model.safetensors").unlink()
    assert weights.files(tmp_path, Path) == [tmp_path / "consolidated.safetensors"]

    (tmp_path / "consolidated.safetensors").unlink()
    with pytest.raises(JobError, match=r"There is no model\.safetensors"):
        weights.files(tmp_path, Path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pytorch_model.bin", r"save_pretrained\(directory\) of transformers 5"),
        ("last.CKPT", r"torch\.load\(path, weights_only=True\)"),
        ("tf_model.h5", "from_tf=True"),
        ("flax_model.msgpack", "from_flax=True"),
        ("model-q4.gguf", "exports for inference"),
        ("model.onnx", "exports for inference"),
    ],
)
def test_other_formats_get_the_advice_that_fits_them(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"not opened")

    with pytest.raises(JobError, match=f"only {name}.*{advice}"):
        weights.files(tmp_path, Path)


def test_an_adapter_is_to_be_merged_even_beside_its_base_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    saved({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")

    with pytest.raises(JobError, match=r"merge_and_unload\(\)"):
        weights.files(tmp_path, Path)

    adapter = {"base_model.model.0.lora_A.weight": torch.zeros(1)}
    with pytest.raises(JobError, match=r"adapter \(LoRA\): merge it"):
        loaded(nn.Linear(1, 1), adapter, tmp_path / "w.safetensors")
