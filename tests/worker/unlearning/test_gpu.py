import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from worker.engine import forks
from worker.unlearning.config import default_config
from worker.unlearning.evaluation import Observed, evaluate
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples
from worker.unlearning.unlearn import unlearn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def test_the_gpu_forgets_as_the_cpu_does(problem):
    forgotten = torch.arange(len(problem.train)) < 40
    arguments = problem.forgetting(forgotten)
    sets = {name: arguments[name] for name in ("forget", "retain", "holdout")}
    config = default_config(
        removing=False,
        forget_count=len(sets["forget"]),
        reservoir_count=len(sets["retain"]),
    )

    def result(device):
        network = problem.network.around(copy.deepcopy(problem.network.model).to(device))
        changed = network.around(
            unlearn(network, **arguments, config=config, on_cycle=lambda *_: None)
        )
        assert changed.device.type == device
        return evaluate(
            Observed.of(changed, **sets, test=None), class_counts=arguments["class_counts"]
        )

    on_cpu, on_gpu = result("cpu"), result("cuda")

    assert on_gpu.forget_accuracy == pytest.approx(on_cpu.forget_accuracy, abs=0.1)
    assert on_gpu.retain_accuracy == pytest.approx(on_cpu.retain_accuracy, abs=0.05)
    assert on_gpu.membership_auc == pytest.approx(on_cpu.membership_auc, abs=0.1)


def test_training_is_in_bfloat16_and_channels_last_while_measuring_is_exact():
    seen = []
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    model[0].register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    network = Network(model.cuda(), head="3", prepare=lambda images: images.float())
    images = Samples(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))

    features, logits = network(network.resident(images).inputs)
    network.outputs(images, 2)

    (entering, trained), (_, measured), _ = seen
    assert entering.is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert (trained.dtype, measured.dtype) == (torch.bfloat16, torch.float32)
    assert (features.dtype, logits.dtype) == (torch.float32, torch.float32)


def test_samples_move_to_the_gpu_when_they_fit(problem, monkeypatch):
    network = problem.network.around(copy.deepcopy(problem.network.model).cuda())

    assert network.resident(problem.train).inputs.is_cuda
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 1000))
    assert not network.resident(problem.train).inputs.is_cuda


def test_more_steps_are_not_more_waiting(problem):
    network = problem.network.around(copy.deepcopy(problem.network.model).cuda())
    arguments = problem.forgetting(torch.arange(len(problem.train)) < 40)
    default = default_config(removing=False, forget_count=40, reservoir_count=200)

    def waits(times):
        config = replace(
            default,
            cycles=1,
            recover_least=200 * times,
            recover_most=200 * times,
            forget_epochs=times,
        )
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            unlearn(network, **arguments, config=config, on_cycle=lambda *_: None)
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in seen)

    waits(1)  # whatever is set up once

    assert waits(1) == waits(10)


def test_a_fork_of_what_has_imported_torch_can_use_the_gpu():
    process = forks.start(compute)

    process.join()

    assert process.exitcode == 0


def compute():
    assert (torch.ones(2, device="cuda") * 2).sum().item() == 4
