"""What a job ran with, stored beside its result so that it can be reproduced."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

import domain

LIBRARIES = ("torch", "transformers", "safetensors", "numpy", "pillow", "pyarrow")

DECIDING = ("domain", "evidence", "worker")
"""The folders whose code decides what a job's result is, and what a certificate says of it."""

ROOT = Path(__file__).parents[2]


def describe(device: torch.device, users_code: Mapping[str, str]) -> dict[str, str]:
    """Versions of the code and libraries, and the device, by name.

    Args:
        users_code: the same for functions that the model names; see `champion.users_code`.
    """
    return {
        "lethe": domain.__version__,
        "code_sha256": code_sha256(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        **users_code,
        "cuda": torch.version.cuda or "none",
        "device": name_of(device),
    }


def name_of(device: torch.device) -> str:
    """What kind of device it is, such as `cpu` or `NVIDIA H200`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@cache
def code_sha256(root: Path = ROOT) -> str:
    """SHA-256 over the names and contents of all source files that decide a result."""
    digest = hashlib.sha256()
    for path in sorted(file for folder in DECIDING for file in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix().encode()
        digest.update(hashlib.sha256(name).digest() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
