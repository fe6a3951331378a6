"""Which samples of an audit belong together: those of one person, account or household."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """A number for the group of every sample; the same number for samples that belong together.

    Raises:
        ValueError: the codes are not int64 vectors, or a group stands on both sides.
    """

    forget: Tensor
    """(F,) int64."""

    holdout: Tensor
    """(H,) int64."""

    def __post_init__(self) -> None:
        for name in ("forget", "holdout"):
            codes = getattr(self, name)
            if codes.ndim != 1 or codes.dtype != torch.int64:
                shape = tuple(codes.shape)
                raise ValueError(f"codes of {name} must be (N,) int64, got {shape} {codes.dtype}")
        if both := len(set(self.forget.tolist()) & set(self.holdout.tolist())):
            raise ValueError(
                f"{both} groups are in the forget set and in the hold-out; leave their hold-out "
                "samples out, because they are no samples of people that the model never saw"
            )

    @property
    def single(self) -> bool:
        """Whether every sample is a group of its own."""
        codes = torch.cat([self.forget, self.holdout])
        return len(set(codes.tolist())) == len(codes)
