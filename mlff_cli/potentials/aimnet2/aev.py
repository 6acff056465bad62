"""The local geometry: Gaussians of distances, and the same times unit vectors.

mu_g = rmin + g (rc - rmin) / n,   g = 0..n-1          eta = (n / (rc - rmin))^2
g_ijg = exp(-eta (d_ij - mu_g)^2) (cos(pi d_ij / rc) + 1) / 2
G_ijg = g_ijg (1, u_ij),           u_ij = (r_j - r_i) / d_ij

The scalar and its three vector components are kept in one tensor, so that one matrix product per
molecule and Gaussian contracts all four with the neighbours' features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlff_cli.physics.cutoffs import cosine_cutoff


class LocalGeometry(nn.Module):
    """Distances and the basis G of every pair of atoms in a dense batch.

    Args:
        rmin: centre of the first Gaussian, angstrom.
        rc: cutoff, angstrom.
        n: number of Gaussians.
    """

    def __init__(self, rmin: float, rc: float, n: int) -> None:
        super().__init__()
        self.rmin = float(rmin)
        self.rc = float(rc)
        self.n = int(n)
        self.eta = (n / (rc - rmin)) ** 2

    def forward(self, coord: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs, distances and basis.

        Args:
            coord: (B, N, 3) angstrom; finite also in the padding.
            real: (B, N) false for padding.

        Returns:
            pairs (B, N, N) bool; d (B, N, N) angstrom, 1 where there is no pair;
            G (B, n, N_j, 4, N_i), zero where there is no pair.
        """
        n_atoms = coord.shape[1]
        itself = torch.eye(n_atoms, dtype=torch.bool, device=coord.device)
        pairs = real.unsqueeze(2) & real.unsqueeze(1) & ~itself  # [b, j, i]
        r = coord.unsqueeze(3) - coord.transpose(1, 2).unsqueeze(1)  # [b, j, xyz, i]: r_j - r_i
        # the root of zero has no derivative: pairs that do not exist get distance 1 first
        squared = (r * r).sum(dim=2).masked_fill(~pairs, 1.0)  # [b, j, i]
        inverse = squared.rsqrt()
        d = squared * inverse
        u = r * inverse.unsqueeze(2)  # [b, j, xyz, i]
        directions = torch.cat([torch.ones_like(u[:, :, :1]), u], dim=2)  # [b, j, (1, xyz), i]

        # made here and not stored: exact in whatever precision the model runs in
        steps = torch.arange(self.n, device=d.device, dtype=d.dtype)
        mu = (self.rmin + steps * ((self.rc - self.rmin) / self.n)).view(1, -1, 1, 1)
        width = self.eta**0.5
        s = (width * d).unsqueeze(1) - width * mu  # [b, g, j, i]
        f = cosine_cutoff(d, self.rc).masked_fill(~pairs, 0.0)
        g = torch.exp(-(s * s)) * f.unsqueeze(1)  # [b, g, j, i]
        basis = g.unsqueeze(3) * directions.unsqueeze(1)  # [b, g, j, (1, xyz), i]
        return pairs, d, basis
