"""The convolution: neighbours' features weighted by geometry, made invariant.

T_iag = sum_j a_jag G_ijg                        (a_ja for features that do not depend on g)
S_iag = its scalar component                     n_a * n_g numbers
V_iah = |sum_g A_agh (its vector component)|^2   n_a * n_h numbers

A ("agh") mixes the Gaussians of one channel into n_h vectors; it starts from diverse smooth rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def contract(features: Tensor, basis: Tensor) -> Tensor:
    """Sum the neighbours' features over the basis.

    Args:
        features: (B, n_g, n_a, N_j).
        basis: (B, n_g, N_j, 4, N_i).

    Returns:
        T (B, n_g, n_a, 4, N_i).
    """
    b, n_g, n_a, n = features.shape
    flat = torch.bmm(
        features.reshape(b * n_g, n_a, n), basis.reshape(b * n_g, n, 4 * n)
    )  # [(b, g), a, (1xyz, i)]
    return flat.view(b, n_g, n_a, 4, n)


class Invariants(nn.Module):
    """S and |V|^2 of contracted features.

    Args:
        n_channels: n_a.
        n_gaussians: n_g.
        n_combinations: n_h.
    """

    def __init__(self, n_channels: int, n_gaussians: int, n_combinations: int) -> None:
        super().__init__()
        self.n_out = n_channels * (n_gaussians + n_combinations)
        self.agh = nn.Parameter(diverse_rows(n_channels, n_gaussians, n_combinations))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Invariants of T.

        Args:
            t: (B, n_g, n_a, 4, N).

        Returns:
            S (B, N, n_a n_g) with g running fastest, |V|^2 (B, N, n_a n_h) with h running fastest.
        """
        b, n_g, n_a, _, n = t.shape
        scalars, vectors = t.split_with_sizes([1, 3], dim=3)
        s = scalars.squeeze(3).permute(0, 3, 2, 1).reshape(b, n, n_a * n_g)
        # xyz outside: the sum over it then runs along whole rows of (b, i)
        vectors = vectors.permute(2, 1, 3, 0, 4).reshape(n_a, n_g, 3 * b * n)
        mixed = torch.bmm(self.agh.transpose(1, 2), vectors)  # [a, h, (xyz, b, i)]
        v = (mixed * mixed).view(n_a, -1, 3, b * n).sum(dim=2)  # [a, h, (b, i)]
        return s, v.view(n_a, -1, b, n).permute(2, 3, 0, 1).reshape(b, n, -1)


def diverse_rows(n_channels: int, n_gaussians: int, n_combinations: int) -> Tensor:
    """Initial A (n_a, n_g, n_h): for each channel n_h random waves, far from each other.

    Random sums of a sine and a cosine over the Gaussians are standardised; of eight times as many
    as needed, the one farthest from the chosen ones is taken again and again. Uses torch's RNG.
    """
    shape = (n_channels, 8 * n_combinations, 1)
    phase = 2.0 * math.pi / n_gaussians * torch.arange(n_gaussians)  # [g]
    waves = torch.randn(shape) * torch.sin(torch.randn(shape) * phase)
    waves = waves + torch.randn(shape) * torch.cos(torch.randn(shape) * phase)  # [a, candidate, g]
    waves = waves - waves.mean(dim=-1, keepdim=True)
    waves = waves / waves.std(dim=-1, keepdim=True).clamp(min=1e-6)
    apart = torch.cdist(waves, waves)  # [a, candidate, candidate]
    channel = torch.arange(n_channels)
    chosen = [apart.sum(dim=-1).argmax(dim=-1)]  # [a]
    nearest = apart[channel, chosen[0]]  # [a, candidate]: distance to the nearest chosen one
    while len(chosen) < n_combinations:
        chosen.append(nearest.argmax(dim=-1))
        nearest = torch.minimum(nearest, apart[channel, chosen[-1]])
    return torch.stack([waves[channel, row] for row in chosen], dim=-1)
