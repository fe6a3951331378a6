import pytest
import torch
from sklearn.metrics import f1_score, normalized_mutual_info_score

from worker.unlearning.probes import RIDGE, Cells, Probe


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tables(labels, predictions):
    cells = Cells.of(torch.tensor(labels), torch.tensor(predictions))
    return cells, cells.count(torch.ones(1, len(labels)).double())


def test_the_probe_is_ridge_regression():
    features = torch.randn(50, 4, generator=seeded()).double() * 3 + 7
    labels, ones = torch.arange(50) % 3, torch.ones(50)
    probe = Probe.fit(features, labels, ones, 3)

    inputs = (features - features.mean(0)) / features.std(0, correction=0)
    targets = torch.eye(3).double()[labels]
    penalty = (RIDGE * 50) ** 0.5 * torch.eye(4).double()
    stacked = (
        torch.cat([inputs, penalty]),
        torch.cat([targets - targets.mean(0), 0 * penalty[:, :3]]),
    )

    torch.testing.assert_close(probe.weights, torch.linalg.lstsq(*stacked).solution)
    torch.testing.assert_close(probe.bias, targets.mean(0))


def test_a_weight_counts_a_sample_so_many_times():
    features = torch.randn(20, 3, generator=seeded())
    labels, counts = torch.arange(20) % 2, torch.arange(20) % 3 + 1

    weighted = Probe.fit(features, labels, counts, 2)

    repeated = Probe.fit(
        features.repeat_interleave(counts, 0), labels.repeat_interleave(counts), torch.ones(39), 2
    )
    torch.testing.assert_close(weighted.weights, repeated.weights)


def test_the_probe_reads_separable_features_and_ignores_the_scale_of_each():
    labels = torch.arange(30) % 3
    features = torch.eye(3)[labels] * torch.tensor([1e-3, 1.0, 1e3]) + 5
    probe = Probe.fit(features, labels, torch.ones(30), 3)
    assert (probe.predict(features) == labels).all()


def test_collapsed_features_are_all_read_alike():
    probe = Probe.fit(torch.full((10, 4), 0.1), torch.arange(10) % 2, torch.ones(10), 2)
    assert len(probe.predict(torch.randn(20, 4, generator=seeded())).unique()) == 1


def test_f1_by_hand():
    cells, table = tables([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 0])
    # class 0: 2 right of 3 and 3; class 1: 1 of 2 and 2; class 2: 0 of 1 and 1
    assert cells.macro_f1(table).item() == pytest.approx((2 * 2 / 6 + 2 * 1 / 4 + 0) / 3)


def test_nmi_by_hand():
    cells, table = tables([0, 0, 1, 1], [5, 5, 7, 7])
    assert cells.nmi(table).item() == pytest.approx(1)
    cells, table = tables([0, 0, 1, 1], [0, 1, 0, 1])
    assert cells.nmi(table).item() == pytest.approx(0, abs=1e-12)
    cells, table = tables([3, 3], [3, 3])
    assert cells.nmi(table).item() == 0


def test_f1_and_nmi_are_those_of_scikit_learn():
    labels = torch.randint(0, 5, (200,), generator=seeded())
    noise = torch.randint(0, 5, (200,), generator=seeded(1))
    predictions = torch.where(torch.arange(200) % 3 == 0, noise, labels)
    cells, table = tables(labels.tolist(), predictions.tolist())

    f1 = f1_score(labels.numpy(), predictions.numpy(), average="macro")
    assert cells.macro_f1(table).item() == pytest.approx(f1)
    nmi = normalized_mutual_info_score(labels.numpy(), predictions.numpy())
    assert cells.nmi(table).item() == pytest.approx(nmi)


def test_tables_count_by_weight():
    cells = Cells.of(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 9]))
    counts = cells.count(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]]))
    assert counts.tolist() == [[3, 4], [0, 1]]
