"""What a job ran with: stored beside its result, so that it can be run again."""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

import torch

import domain

LIBRARIES = ("torch", "transformers", "safetensors", "numpy", "pillow", "pyarrow")


def describe(device: torch.device) -> dict[str, str]:
    """Versions of the code and the libraries, and the device, by name."""
    return {
        "lethe": domain.__version__,
        "code_sha256": _code_digest(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "cuda": torch.version.cuda or "none",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def _code_digest() -> str:
    """SHA-256 over the names and contents of the worker's source files."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
