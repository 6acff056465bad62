"""Charge equilibration: what the network proposes, made to add up to the molecule's charge.

q_i = q~_i + f_i (Q - sum q~) / (sum f + 1e-6),        f = f_raw^2

With two channels, alpha and beta electrons are treated alike: their targets are
Q/2 + (mult - 1)/2 and Q/2 - (mult - 1)/2; charges are their sum, spin charges their difference.
"""

from __future__ import annotations

import torch
from torch import Tensor


def charge_targets(charge: Tensor, mult: Tensor, n_channels: int) -> Tensor:
    """What each channel must add up to.

    Args:
        charge: (B,) e.
        mult: (B,) spin multiplicity; 0 means "not given" and counts as 1.
        n_channels: 1 (charges) or 2 (alpha and beta).

    Returns:
        (B, C) e.
    """
    if n_channels == 1:
        return charge.unsqueeze(-1)
    unpaired = 0.5 * (mult.clamp(min=1.0) - 1.0)
    return torch.stack([0.5 * charge + unpaired, 0.5 * charge - unpaired], dim=-1)


def equilibrate(proposed: Tensor, f_raw: Tensor, target: Tensor, real: Tensor) -> Tensor:
    """Spread what is missing to the target over the atoms, in proportion to f.

    Args:
        proposed: q~ (B, N, C) e.
        f_raw: (B, N, C).
        target: (B, C) e.
        real: (B, N) false for padding.

    Returns:
        q (B, N, C) e, zero for padding.
    """
    padding = ~real.unsqueeze(-1)
    q = proposed.masked_fill(padding, 0.0)
    f = f_raw.square().masked_fill(padding, 0.0)
    missing = target - q.sum(dim=1)  # [b, c]
    share = missing / (f.sum(dim=1) + 1e-6)
    return q + f * share.unsqueeze(1)
