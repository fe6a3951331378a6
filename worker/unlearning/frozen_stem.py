"""The frozen stem of a network: its output for a sample never changes in a run, so it is computed
once and cached.

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
"""Modules without parameters or randomness that treat each sample separately."""

KEPT_BYTES = 2**30
"""The largest cache of stem outputs per set; a larger set goes through the stem at every step."""


@dataclass(frozen=True, slots=True)
class Divided:
    """A network cut into two successive parts, which share their modules with the whole."""

    stem: Callable[[Tensor], Tensor]
    """Maps stored inputs (N, ...) to the inputs of the rest (N, ...), without gradients."""

    rest: Network

    def through(self, samples: Samples, batch_size: int) -> Samples:
        """The stem's outputs for samples, each computed once."""
        made = [self.stem(inputs) for inputs, _ in samples.batches(batch_size)]
        return Samples(torch.cat(made), samples.labels)


class StemOutputs:
    """Samples with cached stem outputs: each goes through the stem when first needed."""

    def __init__(self, stem: Callable[[Tensor], Tensor], samples: Samples) -> None:
        self.labels = samples.labels
        """(N,) int64."""

        self._stem, self._inputs = stem, samples.inputs
        self._made = torch.empty(0)
        self._new = torch.ones(len(samples), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, chosen: Tensor) -> Tensor:
        """(n, ...) the stem's outputs for the samples at these indices (n,), on the CPU."""
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
    """The network cut where its frozen part ends, for a run on these samples.

    The stem is empty if no leading layers are frozen, if its outputs take more than `KEPT_BYTES`,
    if a pooled head needs the inputs, or if the model cannot be traced or its trace answers
    differently. The run then does the same at a higher cost. The network must be in the mode in
    which it is trained.
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
    """An empty stem."""
    return inputs


def _same(network: Network, cut: Divided, few: Samples) -> bool:
    """Whether both give the same answers: a trace freezes what the model does in training mode."""
    (features, logits), (others, answers) = (
        network.outputs(few, 2),
        cut.rest.outputs(cut.through(few, 2), 2),
    )
    return torch.allclose(features, others, atol=1e-5) and torch.allclose(
        logits, answers, atol=1e-5
    )


def _cut(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The model in two parts, cut after the last point that only one fixed tensor passes."""
    if all(parameter.requires_grad for parameter in model.parameters()) or _hooked(model):
        return None
    try:
        nodes = list(fx.Tracer().trace(model).nodes)
    except Exception:  # models fail to trace in many ways
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
    """Whether a trace would lose hooks: it keeps those of layers, not those of their containers."""
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
    """Whether the output for a sample depends only on that sample and never changes."""
    if node.op == "call_function":
        return node.target in PLAIN_FUNCTIONS
    if node.op != "call_module":
        return False
    module = model.get_submodule(str(node.target))
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return False  # uses the statistics of each batch, even in evaluation mode
    frozen = not any(parameter.requires_grad for parameter in module.parameters())
    return isinstance(module, PLAIN) or (
        isinstance(module, FREEZABLE) and frozen and not module.training
    )


def _part(model: nn.Module, nodes: list[fx.Node], entry: fx.Node | None = None) -> nn.Module:
    """A module that does what these nodes do, with the output of `entry` as its input."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    if entry is not None:
        copies[entry] = graph.placeholder("made")
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    if nodes[-1].op != "output":
        graph.output(copies[nodes[-1]])
    return fx.GraphModule(model, graph)
