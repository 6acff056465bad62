"""Bijections of the circle that stretch like a factor near a point.

    tan(M_k(t) / 2) = k tan(t / 2),        M_k' = k / (cos^2(t/2) + k^2 sin^2(t/2))

M_k(t) = k t for small t, and the circle still closes: the other side is squeezed by 1/k. (A factor
alone would lay the ends of the circle over one another.) Its inverse is M_{1/k}. With n periods,

    phi -> phi + (M_k(t) - t) / n,         t = n phi  in (-pi, pi]

stretches around each of n equal minima.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def stretch(phi: Tensor, k: Tensor, periods: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch angles about zero.

    Args:
        phi: (B, m) in radian.
        k: (m,) factors, positive.
        periods: (m,) n, at least 1.

    Returns:
        angles (B, m) in [-pi, pi) and the logarithms (B, m) of the derivatives.
    """
    t = wrap(periods * phi)
    cos, sin = (t / 2).cos(), (t / 2).sin()
    turned = 2 * torch.atan2(k * sin, cos)
    ladj = k.log() - (cos**2 + (k * sin) ** 2).log()
    return wrap(phi + (turned - t) / periods), ladj


def circular_mean_and_spread(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Mean direction (m,) and spread sqrt(-2 ln R) (m,) of angles (n, m), in radian.

    R is the length of the mean unit vector. For narrow distributions the spread is the standard
    deviation (Mardia and Jupp, Directional Statistics, 2000, section 2.3).
    """
    cos, sin = angle.cos().mean(0), angle.sin().mean(0)
    length = (cos**2 + sin**2).sqrt().clamp(max=1.0)
    return torch.atan2(sin, cos), (-2 * length.log()).clamp(min=0.0).sqrt()
