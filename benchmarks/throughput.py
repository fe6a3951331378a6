"""How well the method uses the device: samples per second against a plain training loop.

`python -m benchmarks.throughput` runs the forget and the recover phase, and the same batches
through plain cross-entropy, on the GPU if there is one. It prints the ratio and writes
benchmarks/results/throughput-<device>.json. On a CPU, seconds are processor time, so that other
load does not count.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.cifar_models import cnn, prepare
from worker.unlearning import unlearn as method
from worker.unlearning.alignment import Moments
from worker.unlearning.config import Config, default_config
from worker.unlearning.evaluation import Outputs
from worker.unlearning.frozen_stem import Divided
from worker.unlearning.network import Network
from worker.unlearning.phases import forget_phase, recover_phase
from worker.unlearning.samples import Samples

RESULTS = Path(__file__).parent / "results"
CLASSES = 10
FORGET, RETAIN, HOLDOUT = 1_000, 5_000, 1_000
TARGET = 0.85


def main() -> None:
    """Measure in turns, so that a busy minute affects both; print and write the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = Phases(device)
    limit = Network(cnn().to(device), head="head", prepare=prepare)
    seconds = [
        (ours.run(), plain(limit, limit.resident(ours.retain), ours.sizes))
        for _ in range(1 + options.repeats)
    ][1:]  # the first one chooses kernels and allocates memory
    samples = sum(ours.sizes)
    ratio = statistics.median(theirs / mine for mine, theirs in seconds)
    rates = [samples / statistics.median(times) for times in zip(*seconds, strict=True)]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    report = {
        "device": name,
        "threads": torch.get_num_threads(),
        "model": "benchmarks.cifar_models:cnn, images of 3 x 32 x 32",
        "config": asdict(config()),
        "samples": samples,
        "samples_per_second": round(rates[0]),
        "plain_samples_per_second": round(rates[1]),
        "ratio": round(ratio, 3),
        "target": TARGET,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"throughput-{device.type}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"| {name} | samples/s | plain loop | ratio |\n|---|---|---|---|")
    print(f"| forget + recover | {rates[0]:,.0f} | {rates[1]:,.0f} | {ratio:.2f} |")


def config() -> Config:
    """The defaults, for one cycle."""
    default = default_config(removing=False, forget_count=FORGET, reservoir_count=RETAIN)
    return replace(default, cycles=1)


class Phases:
    """The two phases of the method within a run: their seconds and their batches."""

    def __init__(self, device: torch.device) -> None:
        forget, self.retain = drawn(FORGET), drawn(RETAIN)
        self.network = Network(cnn().to(device), head="head", prepare=prepare)
        self.sizes: list[int] = []
        self.network.model.get_submodule("head").register_forward_pre_hook(_counting(self.sizes))
        before = Outputs.of(self.network, self.retain, 500)
        self._arguments: dict[str, Any] = {
            "forget": forget,
            "retain": self.retain,
            "retain_logits": before.logits,
            "holdout": drawn(HOLDOUT),
            "moments": Moments.of(before.features),
            "class_counts": self.retain.labels.bincount(minlength=CLASSES),
            "config": config(),
        }

    def run(self) -> float:
        """Seconds spent in the phases of one cycle and their preparation, without the measurements
        around them."""
        self.sizes.clear()
        seconds: list[float] = []

        def timed_phase(phase: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any) -> Any:
                with timed(self.network.device, seconds):
                    return phase(*arguments)

            return wrapped

        with (
            patch.object(method, "forget_phase", timed_phase(forget_phase)),
            patch.object(method, "recover_phase", timed_phase(recover_phase)),
            patch.object(Divided, "through", timed_phase(Divided.through)),
        ):
            method.unlearn(self.network, **self._arguments, on_cycle=lambda *_: None)
        return sum(seconds)


def _counting(sizes: list[int]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that reports the sizes of training batches; copies of the module report them too."""

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            sizes.append(len(inputs[0]))

    return count


def plain(network: Network, samples: Samples, sizes: list[int]) -> float:
    """The limit: seconds of forward, cross-entropy, backward and step on batches of these sizes.

    What the method freezes is frozen here too.
    """
    network.freeze_leading(config().frozen_share)
    network.train()
    optimizer = torch.optim.SGD(network.model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    order = torch.randint(len(samples), (sum(sizes),)).to(network.device)
    labels = samples.labels.to(network.device)
    lowered = torch.autocast("cuda", torch.bfloat16, enabled=network.device.type == "cuda")
    seconds: list[float] = []
    with timed(network.device, seconds):
        for chosen in order.split(sizes):  # type: ignore[no-untyped-call]  # torch
            inputs = network.prepare(samples.inputs[chosen])
            with lowered:
                loss = F.cross_entropy(network.model(inputs), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            optimizer.step()
    return sum(seconds)


@contextmanager
def timed(device: torch.device, seconds: list[float]) -> Iterator[None]:
    """Add the seconds until the device has finished; processor seconds if the device is the CPU."""
    if device.type == "cpu":
        started = process_time()
        yield
        seconds.append(process_time() - started)
        return
    torch.cuda.synchronize()
    started = perf_counter()
    yield
    torch.cuda.synchronize()
    seconds.append(perf_counter() - started)


def drawn(count: int) -> Samples:
    """Random images: their content does not affect the time."""
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return Samples(images, torch.arange(count) % CLASSES)


if __name__ == "__main__":
    main()
