import pytest
import torch

from worker.unlearning.config import Objective, default_config
from worker.unlearning.evaluation import evaluate
from worker.unlearning.forget import unlearn
from worker.unlearning.network import Network


def run(problem, forgotten, objective=Objective.UNTRAIN_SAMPLES, on_cycle=lambda _: None):
    arguments = problem.forgetting(forgotten)
    config = default_config(
        objective,
        forget_count=len(arguments["forget"]),
        reservoir_count=len(arguments["retain"]),
    )
    model = unlearn(problem.network, **arguments, config=config, on_cycle=on_cycle)
    changed = Network(model, head=problem.network.head, prepare=problem.network.prepare)
    del arguments["moments"]
    return evaluate(problem.network, **arguments, test=None), evaluate(
        changed, **arguments, test=None
    )


def some(problem, count):
    forgotten = torch.zeros(len(problem.train), dtype=torch.bool)
    forgotten[torch.randperm(240, generator=torch.Generator().manual_seed(1))[:count]] = True
    return forgotten


def test_forgets_samples_and_keeps_the_rest(problem):
    before, after = run(problem, some(problem, 40))

    assert before.membership_auc > 0.6
    assert abs(after.membership_auc - 0.5) < abs(before.membership_auc - 0.5)
    assert after.forget_accuracy < before.forget_accuracy
    assert after.retain_accuracy > 0.9
    assert after.holdout_accuracy > before.holdout_accuracy - 0.05


@pytest.mark.parametrize("classes", [[1], [1, 2]])
def test_removes_whole_classes(problem, classes):
    forgotten = torch.isin(problem.train.labels, torch.tensor(classes))
    _, after = run(problem, forgotten, Objective.REMOVE_CLASS)

    assert after.forget_accuracy < 0.1
    assert after.holdout_accuracy_same_classes < 0.1
    assert after.retain_accuracy > 0.9
