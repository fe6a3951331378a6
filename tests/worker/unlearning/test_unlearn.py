import dataclasses

import pytest
import torch

from worker.unlearning import unlearn as method
from worker.unlearning.config import default_config
from worker.unlearning.errors import NotFinite, NothingStays
from worker.unlearning.evaluation import Observed, evaluate
from worker.unlearning.unlearn import unlearn


def some(count):
    forgotten = torch.zeros(240, dtype=torch.bool)
    forgotten[torch.randperm(240, generator=torch.Generator().manual_seed(1))[:count]] = True
    return forgotten


ONE = {"cycles": 1, "more_cycles": 0}


def run(
    problem,
    arguments,
    removing=False,
    on_cycle=lambda *_: None,
    resume=None,
    **changes,
):
    config = default_config(
        removing=removing,
        forget_count=len(arguments["forget"]),
        reservoir_count=len(arguments["retain"]),
    )
    config = dataclasses.replace(config, **changes)
    model = unlearn(problem.network, **arguments, config=config, on_cycle=on_cycle, resume=resume)
    return problem.network.around(model)


def measured(network, arguments):
    sets = {name: arguments[name] for name in ("forget", "retain", "holdout")}
    observed = Observed.of(network, **sets, test=None)
    return evaluate(observed, class_counts=arguments["class_counts"])


def test_forgets_samples_and_keeps_the_rest(problem):
    arguments = problem.forgetting(some(40))

    before = measured(problem.network, arguments)
    after = measured(run(problem, arguments), arguments)

    assert before.membership_auc > 0.6
    assert abs(after.membership_auc - 0.5) < abs(before.membership_auc - 0.5)
    assert after.forget_accuracy < before.forget_accuracy
    assert after.retain_accuracy > 0.9
    assert after.holdout_accuracy > before.holdout_accuracy - 0.1


@pytest.mark.parametrize("classes", [[1], [1, 2]])
def test_removes_whole_classes_from_samples_seen_and_unseen(problem, classes):
    arguments = problem.forgetting(torch.isin(problem.train.labels, torch.tensor(classes)))

    before = measured(problem.network, arguments)
    after = measured(run(problem, arguments, removing=True), arguments)

    assert after.forget_accuracy < 0.15
    assert after.holdout_accuracy_same_classes < before.holdout_accuracy_same_classes - 0.1
    assert after.retain_accuracy > 0.9
    assert after.k == max(3 - len(classes), 1)


def test_a_class_of_which_nothing_stays_is_lost_though_only_samples_were_to_be_untrained(problem):
    arguments = problem.forgetting(problem.train.labels == 1)
    assert measured(run(problem, arguments), arguments).forget_accuracy < 0.2


def test_forgets_a_single_sample(problem):
    arguments = problem.forgetting(some(1))
    scores = []

    after = measured(
        run(problem, arguments, on_cycle=lambda score, _: scores.append(score)), arguments
    )

    assert after.retain_accuracy > 0.9
    assert (scores[-1].da_gap_low, after.da_gap_low, after.subspace_overlap) == (None, None, None)


def test_forgets_a_class_that_the_holdout_lacks(problem):
    arguments = problem.forgetting(some(40))
    arguments["holdout"] = problem.holdout.select(problem.holdout.labels != 2)

    after = measured(run(problem, arguments), arguments)

    assert after.retain_accuracy > 0.9


def test_forgets_more_samples_than_the_reservoir_holds(problem):
    arguments = problem.forgetting(some(120))
    arguments["retain"] = arguments["retain"].select(torch.arange(60))
    arguments["retain_logits"] = arguments["retain_logits"][:60]

    after = measured(run(problem, arguments), arguments)

    assert after.retain_accuracy > 0.9


def test_reports_every_cycle(problem):
    scores = []

    run(
        problem,
        problem.forgetting(some(20)),
        on_cycle=lambda score, _: scores.append(score),
        cycles=3,
        more_cycles=0,
    )

    assert [score.cycle for score in scores] == [1, 2, 3]
    assert all(0 <= score.da_forget <= 1 for score in scores)
    assert scores[0].da_gap_low <= scores[0].da_gap <= scores[0].da_gap_high


def test_leaves_the_model_and_the_random_state_alone(problem):
    before = {name: t.clone() for name, t in problem.network.model.state_dict().items()}
    random_state = torch.get_rng_state()

    run(problem, problem.forgetting(some(20)), cycles=1)

    after = problem.network.model.state_dict()
    assert all(after[name].equal(t) for name, t in before.items())
    assert not problem.network.model.training
    assert torch.get_rng_state().equal(random_state)


def test_gives_the_same_weights_for_the_same_seed_and_others_for_another(problem):
    arguments = problem.forgetting(some(20))

    first, second, other = (
        torch.cat(
            [w.flatten() for w in run(problem, arguments, cycles=1, seed=s).model.parameters()]
        )
        for s in (0, 0, 1)
    )

    assert first.equal(second)
    assert not first.equal(other)


def test_says_when_it_diverges(problem):
    with pytest.raises(NotFinite, match="non-finite in cycle 1"):
        run(problem, problem.forgetting(some(20)), recover_lr=1e30)


def test_stops_when_the_caller_does(problem):
    def cancel(scores, _):
        raise InterruptedError(f"cycle {scores.cycle}")

    with pytest.raises(InterruptedError, match="cycle 1"):
        run(problem, problem.forgetting(some(20)), on_cycle=cancel)


def test_refuses_to_forget_nothing_and_to_keep_nothing(problem):
    with pytest.raises(ValueError, match="forget set is empty"):
        run(problem, problem.forgetting(some(0)) | {"retain": problem.train}, cycles=1)
    with pytest.raises(NothingStays, match="no class would stay"):
        run(problem, problem.forgetting(some(40)), removing=True)


def test_says_when_the_original_is_broken(problem):
    arguments = problem.forgetting(some(20))
    broken = problem.network.copy()
    torch.nn.init.constant_(broken.model[0].weight, float("nan"))

    with pytest.raises(NotFinite, match="not finite"):
        run(dataclasses.replace(problem, network=broken), arguments)


@pytest.mark.parametrize(("forget_lr", "cycles"), [(None, 2), (1e-6, 4)])
def test_goes_on_while_the_network_remembers(problem, forget_lr, cycles):
    scores = []
    changes = {} if forget_lr is None else {"forget_lr": forget_lr, "hold_weight": 0.0}

    run(
        problem,
        problem.forgetting(some(40)),
        on_cycle=lambda score, _: scores.append(score),
        cycles=2,
        more_cycles=2,
        **changes,
    )

    assert [score.cycle for score in scores] == list(range(1, cycles + 1))


def test_follows_out_of_sample_predictions(problem):
    arguments = problem.forgetting(some(40))
    labels = arguments["forget"].labels

    def answer(predicted):
        predictions = torch.nn.functional.one_hot(predicted, 4).float() * 0.9 + 0.025
        network = run(
            problem, arguments | {"predictions": predictions}, recover_most=8, recover_least=8
        )
        _, logits = network.outputs(arguments["forget"], 100)
        return logits.softmax(1).gather(1, labels[:, None]).mean()

    assert answer((labels + 1) % 4) < answer(labels) - 0.05


def test_refuses_predictions_of_other_samples(problem):
    arguments = problem.forgetting(some(40)) | {"predictions": torch.full((3, 4), 0.25)}
    with pytest.raises(ValueError, match="3 predictions, but 40 forget samples"):
        run(problem, arguments)


def test_refuses_answers_to_another_reservoir(problem):
    arguments = problem.forgetting(some(40)) | {"retain_logits": torch.zeros(3, 4)}
    with pytest.raises(ValueError, match="3 rows of logits, but 200 retain samples"):
        run(problem, arguments)


def test_the_losses_of_a_lost_class_tell_less_who_was_trained_on(problem):
    arguments = problem.forgetting(problem.train.labels == 1)

    before = measured(problem.network, arguments).membership_auc
    changed = run(problem, arguments, removing=True, cycles=4)
    after = measured(changed, arguments).membership_auc

    assert before > 0.6
    assert abs(after - 0.5) < 0.8 * (before - 0.5)


@pytest.mark.parametrize("cycle", [1, 2, 3])
def test_goes_on_from_any_cycle_to_the_same_weights(problem, cycle):
    arguments = problem.forgetting(some(40))
    states = []

    undisturbed = run(
        problem, arguments, on_cycle=lambda _, state: states.append(copied(state)), cycles=3
    )
    torch.rand(100)
    seen = []
    resumed = run(
        problem, arguments, on_cycle=lambda _, state: seen.append(state.cycle), cycles=3,
        resume=states[cycle - 1],
    )  # fmt: skip

    assert seen == list(range(cycle + 1, 4))
    assert states[-1].finished
    for name, weight in undisturbed.model.state_dict().items():
        assert weight.equal(resumed.model.state_dict()[name]), name


def copied(state):
    """The state as it would be in a file."""
    weights = {name: weight.clone() for name, weight in state.weights.items()}
    return dataclasses.replace(state, weights=weights, companions=state.companions.clone())


def test_what_is_rehearsed_is_what_the_original_answers_and_not_the_true_label(problem):
    """True labels teach a network to be sure again, of what it had forgotten too."""
    arguments = problem.forgetting(some(40))

    def sure(temperature):
        told = arguments | {"retain_logits": arguments["retain_logits"] / temperature}
        _, logits = run(problem, told).outputs(arguments["retain"], 100)
        return logits.softmax(1).amax(1).mean()

    assert sure(4.0) < sure(1.0) - 0.1


@pytest.fixture
def phases_seen(monkeypatch):
    """How many samples each recover phase rehearsed, and what each forget phase left."""
    seen = {"rehearsed": [], "left": []}
    count, forget = method.recover_count, method.forget_phase

    def counted(damage, config):
        seen["rehearsed"].append(count(damage, config))
        return seen["rehearsed"][-1]

    def watched(*arguments, **named):
        done = forget(*arguments, **named)
        seen["left"].append(done.excess)
        return done

    monkeypatch.setattr(method, "recover_count", counted)
    monkeypatch.setattr(method, "forget_phase", watched)
    return seen


def test_the_work_of_recovery_follows_the_damage(problem, phases_seen):
    arguments = problem.forgetting(some(20))

    for rate in (1e-6, 0.5):
        run(problem, arguments, forget_lr=rate, recover_least=40, recover_most=900, **ONE)

    little, much = phases_seen["rehearsed"]
    assert 40 <= little < much <= 900


def test_the_forget_phase_goes_on_while_its_samples_are_remembered(problem, phases_seen):
    arguments = problem.forgetting(some(40))

    run(problem, arguments, forget_lr=1e-6, **ONE)
    idle = list(phases_seen["left"])
    run(problem, arguments, **ONE)
    done = phases_seen["left"][len(idle) :]

    assert len(idle) == method.TRIES
    assert min(idle) > method.REMEMBERED
    assert len(done) > 1
    assert min(done) < idle[-1] / 2


def test_an_eigenspace_that_is_all_there_is_does_not_stop_a_run(problem):
    arguments = problem.forgetting(some(40))
    scores = []

    changed = run(problem, arguments, k=32, on_cycle=lambda s, _: scores.append(s))

    assert {round(s.da_forget, 4) for s in scores} == {1.0}
    assert measured(changed, arguments).retain_accuracy > 0.9
