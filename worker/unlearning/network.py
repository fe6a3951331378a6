"""A classifier as the method sees it: stored inputs in, features and logits out.

Shapes: N samples, d feature dimensions, C classes.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.unlearning.samples import Samples, moved

LAYER_KINDS = (nn.modules.conv._ConvNd, nn.Linear)
"""The module types that count as layers when layers are inspected."""

FREEZABLE = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
"""The module types that `freeze_leading` may freeze."""

LAYERS, WIDTH = 8, 512
"""The most layers that are inspected, and the most dimensions kept of each layer's input."""

RESIDENT_SHARE = 0.25
"""A set of samples stays on the GPU if it takes at most this share of the free memory there."""


class Network:
    """A classifier seen as features and logits; features are the input of the head module.

    On a GPU, images and convolutions use the channels-last layout, and computations with gradients
    run in bfloat16 if the GPU supports it. Measurements use full precision: the 8 bits of a
    bfloat16 would lose the ranks of losses.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        head: str,
        prepare: Callable[[Tensor], Tensor],
        pool: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        """Hook `model` at its head.

        Args:
            model: answers `model(prepare(inputs))` with logits (N, C).
            head: dotted name of the submodule that turns features into logits.
            prepare: maps a batch of stored inputs, already on the model's device, to what
                the model takes.
            pool: for a head that takes a sequence (N, T, d): maps that and the prepared inputs
                to the one vector (N, d) whose logits count.

        Raises:
            ValueError: the model has no submodule of that name; the names it has are listed.
        """
        modules = dict(model.named_modules())
        if not head or head not in modules:
            raise ValueError(f"no module {head!r}; choose one of {sorted(filter(None, modules))}")
        self.model = model
        self.head = head
        self.prepare = prepare
        self.pool = pool
        if self.device.type == "cuda":
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch

    @property
    def device(self) -> torch.device:
        """The device of the model's first parameter."""
        return next(self.model.parameters()).device

    def freeze_leading(self, share: float) -> None:
        """Train everything except the leading convolutions, which stay frozen.

        Leading modules are the first ones, in the order the model names them, as long as they are
        convolutions or normalisations and together hold at most `share` of all parameters. Other
        kinds are not frozen: a small text classifier was seen to memorise in its embeddings.
        """
        self.model.requires_grad_(True)
        left = share * sum(parameter.numel() for parameter in self.model.parameters())
        for name, module in self.model.named_modules():
            own = list(module.parameters(recurse=False))
            left -= sum(parameter.numel() for parameter in own)
            if own and (left < 0 or name == self.head or not isinstance(module, FREEZABLE)):
                return
            for parameter in own:
                parameter.requires_grad_(False)

    def train(self) -> None:
        """Set the model to training mode, and frozen modules to evaluation mode, so that their
        running statistics stay fixed too."""
        self.model.train()
        for module in self.model.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()

    def copy(self) -> "Network":
        """The same network around a deep copy of the model."""
        return self.around(copy.deepcopy(self.model))

    def around(self, model: nn.Module) -> "Network":
        """The same view of another model of the same architecture."""
        return Network(model, head=self.head, prepare=self.prepare, pool=self.pool)

    def resident(self, samples: Samples) -> Samples:
        """The samples with their inputs on the model's device, if that is a GPU with room."""
        if self.device.type != "cuda":
            return samples
        free, _ = torch.cuda.mem_get_info(self.device)
        if samples.inputs.nbytes > RESIDENT_SHARE * free:
            return samples
        return Samples(samples.inputs.to(self.device), samples.labels)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, d) and logits (N, C) of stored inputs, with gradients.

        Never makes the host wait for a GPU.

        Raises:
            ValueError: the head is not reached, or does not take one vector per sample, or
                the model does not answer with one row of logits per sample.
        """
        entered: list[Tensor] = []

        def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            entered.append(args[0])

        prepared = self.prepared(inputs)
        with self.model.get_submodule(self.head).register_forward_pre_hook(keep), self._autocast():
            logits = self.model(prepared)
        if not entered:
            raise ValueError(f"the model never calls {self.head!r}; name a module it calls")
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise ValueError("the model must answer with a logits tensor (N, C)")
        features = entered[-1]
        if self.pool is not None and features.ndim == 3:
            features = self.pool(features, prepared)
        return self._widened(_flattened(features, self.head)), self._widened(logits)

    @torch.no_grad()
    def outputs(self, samples: Samples, batch_size: int) -> tuple[Tensor, Tensor]:
        """Features (N, d) and logits (N, C) in evaluation mode, on the CPU, in float32.

        Leaves the model in the mode it was in. No samples give two empty tensors (0, 0).
        """
        if not len(samples):
            return torch.empty(0, 0), torch.empty(0, 0)
        with _evaluating(self.model):
            batches = [self(inputs) for inputs, _ in samples.batches(batch_size)]
        features, logits = zip(*batches, strict=True)
        return torch.cat(features).float().cpu(), torch.cat(logits).float().cpu()

    @property
    def layers(self) -> list[str]:
        """Names of the convolutions and linear layers, in order; `LAYERS` of them, evenly spaced,
        if there are more."""
        every = [
            name for name, module in self.model.named_modules() if isinstance(module, LAYER_KINDS)
        ]
        places = torch.linspace(0, len(every) - 1, min(LAYERS, len(every))).round().long()
        return [every[place] for place in places.tolist()]

    def entering(
        self, samples: Samples, layers: Sequence[str], batch_size: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The inputs of these layers (N, d), and logits (N, C), as from `outputs`.

        The input of a convolution is averaged over a grid of 4 x 4 parts, or fewer, so that d does
        not exceed `WIDTH`; a sequence is averaged whole. Layers that are not reached once per
        sample are left out.
        """
        _, logits, reached = self.looked_into(samples, layers, batch_size)
        return reached, logits

    @torch.no_grad()
    def looked_into(
        self, samples: Samples, layers: Sequence[str], batch_size: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Features and logits as from `outputs`, and the inputs of layers as from `entering`, in
        one pass."""
        kept: dict[str, list[Tensor]] = {name: [] for name in layers}

        def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            return lambda module, args: kept[name].append(_summary(module, args[0]).float().cpu())

        outputs = []
        with _evaluating(self.model), ExitStack() as hooks:
            for name in layers:
                module = self.model.get_submodule(name)
                hooks.enter_context(module.register_forward_pre_hook(keep(name)))
            for inputs, _ in samples.batches(batch_size):
                outputs.append([each.float().cpu() for each in self(inputs)])
        features, logits = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        whole = {name: torch.cat(parts) for name, parts in kept.items() if parts}
        reached = {name: each for name, each in whole.items() if len(each) == len(samples)}
        return features, logits, reached

    def prepared(self, inputs: Tensor) -> Tensor:
        """The model's input for stored inputs, on its device."""
        prepared = self.prepare(moved(inputs, self.device))
        if self.device.type == "cuda" and prepared.ndim == 4:
            return prepared.contiguous(memory_format=torch.channels_last)
        return prepared

    def _autocast(self) -> torch.autocast:
        lowered = (
            self.device.type == "cuda"
            and torch.is_grad_enabled()
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )
        return torch.autocast("cuda", torch.bfloat16, enabled=lowered)

    def _widened(self, values: Tensor) -> Tensor:
        return values.float() if values.dtype is torch.bfloat16 else values


def _flattened(features: Tensor, head: str) -> Tensor:
    if features.ndim < 2 or any(size != 1 for size in features.shape[2:]):
        raise ValueError(
            f"{head!r} takes {tuple(features.shape)}, not one vector per sample; "
            "name an inner module that does"
        )
    return features.flatten(1)


def _summary(layer: nn.Module, entered: Tensor) -> Tensor:
    """(N, d) from a layer's input: means over parts of a map, or over a sequence."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        dimensions = entered.ndim - 2
        pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[dimensions - 1]
        parts = max((n for n in (4, 2) if entered.shape[1] * n**dimensions <= WIDTH), default=1)
        entered = pool(entered, parts).flatten(1)
    elif entered.ndim > 2:
        entered = entered.flatten(1, -2).mean(1)
    if entered.shape[1] > WIDTH:
        entered = F.adaptive_avg_pool1d(entered[:, None], WIDTH).squeeze(1)
    return entered


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
