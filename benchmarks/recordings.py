"""Samples that are cut from longer ones, and who belongs together: watch data and docstrings."""

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.persons.data import inside
from worker.unlearning.samples import Samples

STEPS, WORDS = 128, 128
"""Of a window of a recording, and of a text."""

PIECE = WORDS + 19 * WORDS // 2
"""Words that twenty passages are cut from."""

UNKNOWN = 1
"""The token that takes a changed word's place; 0 is padding."""


def watch(step: int) -> tuple[Samples, Tensor]:
    """Windows of people who wear a watch (`seglearn`), labelled by exercise, and which recording
    each is from."""
    # What seglearn ships is a pickled dictionary: read only from the installed package.
    stored = np.load(inside("seglearn", "data/watch_dataset.npy"), allow_pickle=True).item()
    windows, labels, recordings = [], [], []
    for number, (series, label) in enumerate(zip(stored["X"], stored["y"], strict=True)):
        whole = torch.from_numpy(np.asarray(series, np.float32))
        cut = whole.unfold(0, STEPS, step)  # (windows, C, STEPS)
        windows.append(cut)
        labels += [int(label)] * len(cut)
        recordings += [number] * len(cut)
    inputs = torch.cat(windows)
    inputs = (inputs - inputs.mean((0, 2), keepdim=True)) / inputs.std((0, 2), keepdim=True)
    return Samples(inputs, torch.tensor(labels)), torch.tensor(recordings)


def texts() -> dict[str, tuple[Samples, Tensor]]:
    """Docstrings of the standard library as they are, half of them a second time with one word
    changed, and passages of a stream of them that overlap by half, twenty of each piece."""
    known: dict[str, int] = {}
    every = [[known.setdefault(word, len(known) + 2) for word in text] for text in _docstrings()]
    generator = torch.Generator().manual_seed(0)
    changed = []
    for text in every[::2]:
        place = int(torch.randint(min(len(text), WORDS), (1,), generator=generator))
        changed.append([*text[:place], UNKNOWN, *text[place + 1 :]])
    stream = torch.tensor([word for text in every for word in text])
    pieces = stream.unfold(0, PIECE, PIECE).unfold(1, WORDS, WORDS // 2)  # (pieces, 20, WORDS)
    whose = torch.arange(len(pieces)).repeat_interleave(pieces.shape[1])
    alone = torch.arange(len(every))
    return {
        "docstrings as they are": (_padded(every), alone),
        "half of them twice, one word changed": (
            _padded(every + changed),
            torch.cat([alone, alone[::2]]),
        ),
        "passages, half overlapping": (
            Samples(pieces.flatten(0, 1).contiguous(), whose % 2),
            whose,
        ),
    }


def _padded(texts: list[list[int]]) -> Samples:
    """Labelled by whether a text is long."""
    tokens = torch.zeros(len(texts), WORDS, dtype=torch.int64)
    for row, text in enumerate(texts):
        tokens[row, : min(len(text), WORDS)] = torch.tensor(text[:WORDS])
    return Samples(tokens, torch.tensor([int(len(text) > 50) for text in texts]))


def _docstrings() -> list[list[str]]:
    """The different ones of at least 20 words and signs."""
    found = {
        tuple(re.findall(r"\w+|[^\w\s]", text.lower())): None
        for file in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
        if not {"test", "site-packages", "lib2to3"} & {*file.parts}
        for text in _in(file)
    }
    return [list(text) for text in found if len(text) >= 20]


def _in(file: Path) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(file.read_bytes())):
        text = ast.get_docstring(node) if isinstance(node, documented) else None
        if text:
            yield text
