"""Architectures that pass registration and break in training, for tests of failing jobs."""

import torch
from torch import Tensor, nn

from demo.digits import cnn


def not_finite_when_trained() -> nn.Module:
    """Its logits are NaN in training mode."""

    def poison(module: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        return logits * torch.nan if module.training else logits

    model = cnn()
    model.register_forward_hook(poison)
    return model


def failing_when_trained() -> nn.Module:
    """It raises what no one expects in training mode."""

    def fail(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if module.training:
            raise ZeroDivisionError

    model = cnn()
    model.register_forward_pre_hook(fail)
    return model
