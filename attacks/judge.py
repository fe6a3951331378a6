"""Runs the verifier from its file, and says whether it refused as it should."""

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from attacks.evidence import Evidence, Given

VERIFIER = Path(__file__).parents[1] / "verifier" / "verify.py"

FORM, SIGNATURE, INCLUSION, CONSISTENCY, CERTIFICATE, CONTENT = range(3, 9)
"""The verifier's exit statuses for a refusal; its users rely on these numbers."""


def load(path: Path) -> ModuleType:
    """The verifier, loaded from a file because it is not a package."""
    spec = importlib.util.spec_from_file_location("lethe_verify", path)
    assert spec is not None  # noqa: S101 (a path to a .py file has one)
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


verify = load(VERIFIER)


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to deceive an auditor."""

    name: str
    exit_status: int
    """The exit status with which the verifier must refuse it."""

    says: str
    """A regular expression that the reason must match, so that it names what is wrong."""

    act: Callable[[Evidence], Given]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verifier's answer to an attack."""

    attack: Attack
    exit_status: int
    reason: str

    @property
    def caught(self) -> bool:
        named = re.search(self.attack.says, self.reason) is not None
        return self.exit_status == self.attack.exit_status != 0 and named


def judge(given: Given, weights: Sequence[Path] = ()) -> tuple[int, str]:
    """The verifier's exit status and reason."""
    text = given.bundle if isinstance(given.bundle, str) else json.dumps(given.bundle)
    try:
        keys = [verify.read_key(key) for key in given.keys]
        verify.check_bundle(text, keys, given.older, weights, verify.Report())
    except verify.Refusal as refusal:
        return int(refusal.code), str(refusal)
    return 0, "valid"


def run(attacks: Sequence[Attack], evidence: Evidence) -> list[Judgement]:
    return [Judgement(attack, *judge(attack.act(evidence))) for attack in attacks]
