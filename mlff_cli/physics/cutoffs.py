"""Functions that take an interaction to zero at a cutoff rc.

cosine        f(d) = (cos(pi d / rc) + 1) / 2          f(0) = 1, f(rc) = 0, one derivative vanishes
exponential   f(d) = exp(1 - 1 / (1 - (d / rc)^2))     f(0) = 1, f(rc) = 0, all derivatives vanish

Both are zero beyond rc.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_cutoff(d: Tensor, rc: float) -> Tensor:
    """Half a cosine wave from 1 at d = 0 to 0 at rc.

    Args:
        d: distances, any shape, angstrom.
        rc: cutoff, angstrom.

    Returns:
        f(d), the shape of `d`.
    """
    return 0.5 * (torch.cos(d.clamp(max=rc) * (math.pi / rc)) + 1.0)


def exponential_cutoff(d: Tensor, rc: float) -> Tensor:
    """The infinitely smooth bump, scaled to 1 at d = 0.

    Args:
        d: distances, any shape, angstrom.
        rc: cutoff, angstrom.

    Returns:
        f(d), the shape of `d`.
    """
    # x stops short of 1: exp(-5e5) is zero in any precision, and 1 / (1 - x^2) stays finite, so
    # that the derivatives are zero and not 0 * inf
    x = (d / rc).clamp(max=1.0 - 1e-6)
    return torch.exp(1.0 - 1.0 / (1.0 - x * x))
