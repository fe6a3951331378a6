"""Architectures and recipes that pass registration and break in training, for failing jobs."""

import torch
from torch import Tensor, nn

from devstack.demo.digits import cnn

WIDTH = 8
"""Of the digits' network in the end-to-end tests: as small as it can be, for their jobs' sake."""


def not_finite_when_trained() -> nn.Module:
    """Its logits are NaN in training mode."""

    def poison(module: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        return logits * torch.nan if module.training else logits

    model = cnn(WIDTH)
    model.register_forward_hook(poison)
    return model


def failing_when_trained() -> nn.Module:
    """It raises what no one expects in training mode."""

    def fail(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if module.training:
            raise ZeroDivisionError

    model = cnn(WIDTH)
    model.register_forward_pre_hook(fail)
    return model


def ruined_when_trained() -> nn.Module:
    """Once it was in training mode it gives one answer to everything."""

    def spoil(module: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        module.spoilt = module.spoilt or module.training
        if module.training or not module.spoilt:
            return logits
        return nn.functional.one_hot(torch.zeros(len(logits)).long(), 10) * 9.0

    model = cnn(WIDTH)
    model.spoilt = False
    model.register_forward_hook(spoil)
    return model


def learn_nothing(model: nn.Module, data: object, *, seed: int) -> nn.Module:
    return model
