import pytest
import torch
from torch import nn

from worker.unlearning.network import Network
from worker.unlearning.samples import Samples, moved


class Transformer(nn.Module):
    """Token ids in; every token passes the encoder, only the first reaches the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.pooler = nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)
        self.never = nn.Linear(1, 1)

    def forward(self, tokens):
        return self.head(self.pooler(self.encoder(self.embedding(tokens)))[:, 0])


def convolutional():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 5, 1)]
    return nn.Sequential(*layers, nn.Flatten())


def test_sees_what_enters_the_head_of_a_transformer():
    network = Network(Transformer(), head="head", prepare=lambda tokens: tokens)
    samples = Samples(torch.randint(50, (7, 6)), torch.zeros(7, dtype=torch.int64))

    features, logits = network.outputs(samples, 3)

    assert features.shape == (7, 8)
    torch.testing.assert_close(network.model.head(features), logits)


def test_flattens_what_enters_a_convolutional_head():
    network = Network(convolutional(), head="3", prepare=lambda images: images.float())

    features, logits = network(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))

    assert (features.shape, logits.shape) == ((2, 4), (2, 5))
    assert features.requires_grad


def test_names_the_modules_when_the_head_is_unknown():
    with pytest.raises(ValueError, match=r"no module 'fc'.*'encoder'.*'head'"):
        Network(Transformer(), head="fc", prepare=lambda tokens: tokens)


@pytest.mark.parametrize(
    ("head", "message"), [("pooler", "inner module"), ("never", "never calls")]
)
def test_says_why_a_module_cannot_be_the_head(head, message):
    network = Network(Transformer(), head=head, prepare=lambda tokens: tokens)
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(2, 6, dtype=torch.int64))


def test_outputs_leave_the_mode_of_every_module_and_the_statistics_alone():
    model = convolutional().train()
    model[1].eval()
    before = model[1].running_mean.clone()

    samples = Samples(torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
    Network(model, head="3", prepare=lambda images: images).outputs(samples, 2)

    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    assert model[1].running_mean.equal(before)


def test_the_host_asks_nothing_of_the_device_while_it_trains():
    """On the meta device, which has no values: whoever asks for one gets an error."""
    with torch.device("meta"):
        network = Network(convolutional(), head="3", prepare=lambda images: images.float())
    labels = torch.arange(9) % 5
    samples = Samples(torch.zeros(9, 3, 8, 8, dtype=torch.uint8, device="meta"), labels)

    for inputs, wanted in samples.batches(4, torch.Generator()):
        features, logits = network(inputs)
        loss = nn.functional.cross_entropy(logits, moved(wanted, network.device))
        (loss + features.sum()).backward()

    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


def test_samples_stay_where_they_are_without_a_gpu():
    network = Network(convolutional(), head="3", prepare=lambda images: images)
    samples = Samples(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64))
    assert network.resident(samples) is samples


def test_no_samples_have_no_outputs():
    network = Network(convolutional(), head="3", prepare=lambda images: images)
    samples = Samples(torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert [len(output) for output in network.outputs(samples, 2)] == [0, 0]


def frozen(network):
    return [name for name, each in network.model.named_parameters() if not each.requires_grad]


def test_leading_convolutions_are_frozen_up_to_a_share_of_the_parameters():
    network = Network(convolutional(), head="3", prepare=lambda images: images.float())
    network.freeze_leading(0.9)
    network.train()
    statistics = network.model[1].running_mean.clone()
    network(torch.rand(2, 3, 8, 8))

    assert frozen(network) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert network.model[1].running_mean.equal(statistics)
    assert network.model[3].training
    network.freeze_leading(0.5)
    assert frozen(network) == []


def test_embeddings_are_not_frozen():
    network = Network(Transformer(), head="head", prepare=lambda tokens: tokens)
    network.freeze_leading(0.99)
    assert frozen(network) == []
