"""Student's t distribution: torch has no cumulative distribution function of it."""

import math

import torch

STEPS = 1001


def two_sided(t: float, df: float) -> float:
    """The chance that a Student variable with `df` degrees of freedom is at least |t| from 0.

    With x = sqrt(df) tan(a), the density becomes cos(a) ** (df - 1), up to a constant.
    """
    angle = math.atan(abs(t) / math.sqrt(df))
    return min(_area(angle, df) / _area(0.0, df), 1.0)


def quantile(chance: float, df: float) -> float:
    """The distance from 0, at most 10,000, that such a variable exceeds with this chance."""
    low, high = 0.0, 1e4
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, df) > chance else (low, middle)
    return high


def _area(start: float, df: float) -> float:
    """The integral of cos(a) ** (df - 1) from `start` to a right angle."""
    angles = torch.linspace(start, math.pi / 2, STEPS, dtype=torch.float64)
    return torch.trapezoid(angles.cos().clamp_min(0) ** (df - 1), angles).item()
