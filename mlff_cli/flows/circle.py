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

MEDIAN_TO_SPREAD = 1.482602218505602  # 1 / the normal distribution's upper quartile


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
    """Mean direction (m,) and spread (m,) of angles (n, m), in radian.

    The spread is 1.4826 median |deviation|, a normal distribution's standard deviation. It does not
    see the rare turns of a stiff torsion, as an amide's to cis at 1000 K, which are no fluctuation.
    """
    mean = torch.atan2(angle.sin().mean(0), angle.cos().mean(0))
    return mean, MEDIAN_TO_SPREAD * wrap(angle - mean).abs().median(0).values
