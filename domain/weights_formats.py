"""What is said of files that are not safetensors weights: how to convert each kind, in words."""

from pathlib import PurePath

FROM_A_STATE_DICT = (
    "build the model, load_state_dict(torch.load(path, weights_only=True)), then "
    "safetensors.torch.save_model(model, 'model.safetensors')"
)
PICKLED = (
    "Pickled weights can run code when they are loaded. Convert them where you trained: for "
    "transformers, load the directory with from_pretrained(directory) and call "
    f"save_pretrained(directory) of transformers 5; otherwise {FROM_A_STATE_DICT}."
)
TENSORFLOW = (
    "Weights of TensorFlow, Keras and Flax do not fit a PyTorch network. Load the directory with "
    "transformers 4, as from_pretrained(directory, from_tf=True) or from_flax=True, and call "
    "save_pretrained(directory)."
)
EXPORTED = (
    "GGUF, ONNX and TFLite files are exports for inference, often quantised, and cannot be "
    "trained. Register the weights they were exported from, as safetensors."
)
ADAPTER = (
    "The directory holds an adapter (adapter_config.json or adapter_model.*), which is only the "
    "difference to a base model. Merge it: load it with peft, "
    "model = model.merge_and_unload(), and call model.save_pretrained(directory) with a new "
    "directory."
)

_ADVICE = {
    **dict.fromkeys((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"), PICKLED),
    **dict.fromkeys((".h5", ".keras", ".msgpack"), TENSORFLOW),
    **dict.fromkeys((".gguf", ".onnx", ".tflite"), EXPORTED),
}

OTHERS = frozenset(_ADVICE)
"""Suffixes, in lower case, of files that hold weights in another form."""


def advice(name: str) -> str:
    """What to do with a file of this name instead of registering it."""
    return _ADVICE.get(PurePath(name).suffix.lower(), PICKLED)
