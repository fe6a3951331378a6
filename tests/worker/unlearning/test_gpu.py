import copy

import pytest
import torch

from worker.unlearning.config import Objective, default_config
from worker.unlearning.evaluation import Observed, evaluate
from worker.unlearning.forget import unlearn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def test_the_gpu_forgets_as_the_cpu_does(problem):
    forgotten = torch.arange(len(problem.train)) < 40
    arguments = problem.forgetting(forgotten)
    sets = {name: arguments[name] for name in ("forget", "retain", "holdout")}
    config = default_config(
        Objective.UNTRAIN_SAMPLES,
        forget_count=len(sets["forget"]),
        reservoir_count=len(sets["retain"]),
    )

    def result(device):
        network = problem.network.around(copy.deepcopy(problem.network.model).to(device))
        changed = network.around(
            unlearn(network, **arguments, config=config, on_cycle=lambda _: None)
        )
        assert changed.device.type == device
        return evaluate(
            Observed.of(changed, **sets, test=None), class_counts=arguments["class_counts"]
        )

    on_cpu, on_gpu = result("cpu"), result("cuda")

    assert on_gpu.forget_accuracy == pytest.approx(on_cpu.forget_accuracy, abs=0.1)
    assert on_gpu.retain_accuracy == pytest.approx(on_cpu.retain_accuracy, abs=0.05)
    assert on_gpu.membership_auc == pytest.approx(on_cpu.membership_auc, abs=0.1)
