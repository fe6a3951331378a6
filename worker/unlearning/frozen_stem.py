"""The frozen part of a network, apart from the rest: what it makes of a sample never changes in a
run, and is computed once.

Shapes: N samples.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from worker.unlearning.network import FREEZABLE, Network
from worker.unlearning.samples import Samples, moved, rows

PLAIN = (
    nn.Identity,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh,
    nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd,
)  # fmt: skip
PLAIN_FUNCTIONS = (
    operator.add,
    operator.iadd,
    torch.add,
    torch.relu,
    F.relu,
    F.max_pool2d,
    F.avg_pool2d,
)
"""What has no parameters, draws no chance, and treats each sample alone."""

KEPT_BYTES = 2**30
"""Of what the stem makes of a set, at most: a larger one goes through it at every step."""


@dataclass(frozen=True, slots=True)
class Divided:
    """A network in two parts, one after the other, that shares its modules with the whole."""

    stem: Callable[[Tensor], Tensor]
    """Stored inputs (N, ...) to what the rest takes (N, ...), without gradients."""

    rest: Network

    def through(self, samples: Samples, batch_size: int) -> Samples:
        """What the stem makes of samples, each seen once."""
        made = [self.stem(inputs) for inputs, _ in samples.batches(batch_size)]
        return Samples(torch.cat(made), samples.labels)


class StemOutputs:
    """Samples that go through the stem when they are first asked for, and then are kept."""

    def __init__(self, stem: Callable[[Tensor], Tensor], samples: Samples) -> None:
        self.labels = samples.labels
        """(N,) int64."""

        self._stem, self._inputs = stem, samples.inputs
        self._made = torch.empty(0)
        self._new = torch.ones(len(samples), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, chosen: Tensor) -> Tensor:
        """(n, ...) what the stem makes of the samples at these indices (n,), on the CPU."""
        new = chosen[self._new[chosen]]
        if len(new):
            made = self._stem(rows(self._inputs, new))
            if self._stem is _unchanged or made[0].nbytes * len(self) > KEPT_BYTES:
                return made
            if self._new.all():
                self._made = made.new_empty(len(self), *made.shape[1:])
            self._made[moved(new, made.device)] = made
            self._new[new] = False
        return rows(self._made, chosen)


def divided(network: Network, samples: Samples) -> Divided:
    """The network cut where its frozen part ends, for a run in which these samples are changed.

    The stem is empty where nothing leading is frozen, where what it makes of the samples takes more
    than `KEPT_BYTES`, where a pooled head needs the inputs, and where the model cannot be traced or
    its trace answers differently: a run does the same then, and costs more. The network must be in
    the mode in which it is trained.
    """
    whole = Divided(_unchanged, network)
    parts = _cut(network.model) if network.pool is None else None
    if parts is None:
        return whole
    leading, remaining = parts

    @torch.no_grad()
    def stem(inputs: Tensor) -> Tensor:
        made: Tensor = leading(network.prepared(inputs))
        return made

    if stem(samples.inputs[:1]).nbytes * len(samples) > KEPT_BYTES:
        return whole
    cut = Divided(stem, Network(remaining, head=network.head, prepare=lambda made: made))
    return cut if _same(network, cut, samples.select(torch.arange(min(2, len(samples))))) else whole


def _unchanged(inputs: Tensor) -> Tensor:
    """A stem that is empty."""
    return inputs


def _same(network: Network, cut: Divided, few: Samples) -> bool:
    """Whether both answer alike: a trace keeps what the model does while it is trained, always."""
    (features, logits), (others, answers) = (
        network.outputs(few, 2),
        cut.rest.outputs(cut.through(few, 2), 2),
    )
    return torch.allclose(features, others, atol=1e-5) and torch.allclose(
        logits, answers, atol=1e-5
    )


def _cut(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The model in two, after the last place that nothing but one fixed tensor passes."""
    if all(parameter.requires_grad for parameter in model.parameters()) or _hooked(model):
        return None
    try:
        nodes = list(fx.Tracer().trace(model).nodes)
    except Exception:  # there are as many ways to fail as there are models
        return None
    places = {node: place for place, node in enumerate(nodes)}
    cut = needed = 0
    for place, node in enumerate(nodes[1:], start=1):
        needed = max([needed, *(places[user] for user in nodes[place - 1].users)])
        if not _fixed(model, node):
            break
        if needed == place:
            cut = place
    if cut == 0:
        return None
    return _part(model, nodes[: cut + 1]), _part(model, nodes[cut + 1 :], nodes[cut])


def _hooked(model: nn.Module) -> bool:
    """Whether a trace would lose hooks: it keeps those of layers, not those of what holds them."""
    is_layer = fx.Tracer().is_leaf_module
    return any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for name, module in model.named_modules()
        if not name or not is_layer(module, name)
    )


def _fixed(model: nn.Module, node: fx.Node) -> bool:
    """Whether what comes out for a sample depends on that sample only, and never changes."""
    if node.op == "call_function":
        return node.target in PLAIN_FUNCTIONS
    if node.op != "call_module":
        return False
    module = model.get_submodule(str(node.target))
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return False  # takes the statistics of each batch, even in evaluation mode
    frozen = not any(parameter.requires_grad for parameter in module.parameters())
    return isinstance(module, PLAIN) or (
        isinstance(module, FREEZABLE) and frozen and not module.training
    )


def _part(model: nn.Module, nodes: list[fx.Node], entry: fx.Node | None = None) -> nn.Module:
    """A module that does what these nodes do, and takes what comes out of `entry`."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    if entry is not None:
        copies[entry] = graph.placeholder("made")
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    if nodes[-1].op != "output":
        graph.output(copies[nodes[-1]])
    return fx.GraphModule(model, graph)
