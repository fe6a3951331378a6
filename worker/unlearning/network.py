"""A classifier seen from the method's side: stored inputs in, features and logits out.

Shapes: N samples, d feature dimensions, C classes.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from worker.unlearning.samples import Samples


class Network:
    """A classifier seen as features and logits; features are whatever enters the head module."""

    def __init__(
        self,
        model: nn.Module,
        *,
        head: str,
        prepare: Callable[[Tensor], Tensor],
        pool: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        """Watch `model` at its head.

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

    @property
    def device(self) -> torch.device:
        """Where the model's first parameter lives."""
        return next(self.model.parameters()).device

    def copy(self) -> "Network":
        """The same network around a deep copy of the model."""
        return self.around(copy.deepcopy(self.model))

    def around(self, model: nn.Module) -> "Network":
        """The same view of another model of the same architecture."""
        return Network(model, head=self.head, prepare=self.prepare, pool=self.pool)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, d) and logits (N, C) of stored inputs, with gradients.

        Raises:
            ValueError: the head is not reached, or does not take one vector per sample, or
                the model does not answer with one row of logits per sample.
        """
        entered: list[Tensor] = []

        def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            entered.append(args[0])

        with self.model.get_submodule(self.head).register_forward_pre_hook(keep):
            prepared = self.prepare(inputs.to(self.device))
            logits = self.model(prepared)
        if not entered:
            raise ValueError(f"the model never calls {self.head!r}; name a module it calls")
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise ValueError("the model must answer with a logits tensor (N, C)")
        features = entered[-1]
        if self.pool is not None and features.ndim == 3:
            features = self.pool(features, prepared)
        return _flattened(features, self.head), logits

    @torch.no_grad()
    def outputs(self, samples: Samples, batch_size: int) -> tuple[Tensor, Tensor]:
        """Features (N, d) and logits (N, C) in evaluation mode, on the CPU, in float32.

        Leaves the model in the mode it was in. No samples give two empty tensors (0, 0).
        """
        features, logits = [torch.empty(0, 0)], [torch.empty(0, 0)]
        with _evaluating(self.model):
            for inputs, _ in samples.batches(batch_size):
                for kept, batch in zip((features, logits), self(inputs), strict=True):
                    kept.append(batch.float().cpu())
        return torch.cat(features[1:] or features), torch.cat(logits[1:] or logits)


def _flattened(features: Tensor, head: str) -> Tensor:
    if features.ndim < 2 or any(size != 1 for size in features.shape[2:]):
        raise ValueError(
            f"{head!r} takes {tuple(features.shape)}, not one vector per sample; "
            "name an inner module that does"
        )
    return features.flatten(1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
