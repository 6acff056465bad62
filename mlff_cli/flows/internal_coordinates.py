"""Positions as unbounded internal coordinates, and back.

    u = (ln r (N-1), ln tan(theta/2) (N-2), phi (N-3))                 3N - 6 coordinates

    dx = dt dR V(u) du,    ln V = sum 3 ln r + sum 2 ln sin theta

with dt and dR the measures of translations and rotations. Of it r^2 and sin(theta) are the Jacobian
of spherical coordinates, and r and sin(theta) that of the logarithms. Any real u is a molecule: no
bond becomes negative, and no angle leaves (0, pi). cos(theta) = -tanh(u) and sin(theta) = 1/cosh(u)
need no inverse trigonometry.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlff_cli.flows.zmatrix import ZMatrix


class InternalCoordinates(nn.Module):
    """Internal coordinates of one molecule.

    Args:
        zmatrix: which atoms every atom is placed by.
    """

    atom: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    back: Tensor

    def __init__(self, zmatrix: ZMatrix) -> None:
        super().__init__()
        self.n_atoms = zmatrix.n_atoms
        columns = {
            "atom": zmatrix.atom,
            "a": zmatrix.bond,
            "b": zmatrix.angle,
            "c": zmatrix.torsion,
        }
        for name, column in columns.items():
            self.register_buffer(name, torch.from_numpy(column), persistent=False)
        # rows are placed level by level; `back` undoes that order
        levels = zmatrix.levels
        placed = np.concatenate([zmatrix.atom[:3], *(zmatrix.atom[3 + rows] for rows in levels)])
        slot = np.argsort(placed)  # of every atom
        for k, rows in enumerate(levels):
            by = torch.from_numpy(slot[zmatrix.torsions[rows]])  # [m, 4]
            self.register_buffer(f"rows_{k}", torch.from_numpy(rows), persistent=False)
            self.register_buffer(f"by_{k}", by, persistent=False)
        self.n_levels = len(levels)
        self.register_buffer("back", torch.from_numpy(slot), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Internal coordinates of positions.

        Args:
            x: (B, N, 3) in nm.

        Returns:
            u (B, 3N-6), angles in radian; ln V (B,), with r in nm.
        """
        i = x[:, self.atom]  # [B, N, 3]
        a, b, c = x[:, self.a], x[:, self.b], x[:, self.c]  # of rows 1.., 2.., 3..
        ia = i[:, 1:] - a  # [B, N-1, 3]
        r = ia.norm(dim=-1)
        ba = b - a[:, 1:]  # [B, N-2, 3]
        cross = torch.linalg.cross(ia[:, 1:], ba).norm(dim=-1)  # r |ba| sin theta
        product = r[:, 1:] * ba.norm(dim=-1)
        dot = (ia[:, 1:] * ba).sum(-1)
        half = cross.log() - (product + dot).log()  # tan(theta/2) = sin / (1 + cos)
        phi = _dihedral(-ia[:, 2:], ba[:, 1:], c - b[:, 1:])
        u = torch.cat([r.log(), half, phi], dim=1)
        return u, self.log_volume(u)

    def log_volume(self, u: Tensor) -> Tensor:
        """Ln V (B,) of coordinates (B, 3N-6)."""
        ln_r, half, _ = self.split(u)
        return 3 * ln_r.sum(1) + 2 * _log_sin(half).sum(1)

    def split(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ln r (B, N-1), ln tan(theta/2) (B, N-2) and phi (B, N-3) of coordinates (B, 3N-6)."""
        n = self.n_atoms
        return u[:, : n - 1], u[:, n - 1 : 2 * n - 3], u[:, 2 * n - 3 :]

    def positions(self, u: Tensor) -> Tensor:
        """Positions (B, N, 3) in nm of coordinates (B, 3N-6), centre at the origin.

        The frame: the first atom of the Z-matrix to the second is +x, the third has y > 0.
        """
        ln_r, half, phi = self.split(u)
        r, cos, sin = ln_r.exp(), -half.tanh(), 1 / half.cosh()
        zero = torch.zeros_like(r[:, 0])
        first = torch.stack([zero, zero, zero], dim=-1)
        second = torch.stack([r[:, 0], zero, zero], dim=-1)
        # the third hangs on the first, and its angle is towards the second
        third = torch.stack([r[:, 1] * cos[:, 0], r[:, 1] * sin[:, 0], zero], dim=-1)
        x = torch.stack([first, second, third], dim=1)  # [B, placed, 3]
        # along a-b, and around it with phi = 0 towards c
        local = torch.stack([cos, sin], dim=-1) * r[:, 1:, None]  # [B, N-2, 2]
        for k in range(self.n_levels):
            rows, by = getattr(self, f"rows_{k}"), getattr(self, f"by_{k}")
            a, b, c = (x[:, by[:, j]] for j in (1, 2, 3))  # [B, m, 3]
            e = functional.normalize(b - a, dim=-1, eps=0.0)
            bc = c - b
            p = functional.normalize(bc - (bc * e).sum(-1, keepdim=True) * e, dim=-1, eps=0.0)
            q = torch.linalg.cross(p, e)
            along, around = local[:, 1 + rows].unbind(-1)
            turn = phi[:, rows]
            x_i = (
                a
                + along[..., None] * e
                + (around * turn.cos())[..., None] * p
                + (around * turn.sin())[..., None] * q
            )
            x = torch.cat([x, x_i], dim=1)
        x = x[:, self.back]
        return x - x.mean(dim=1, keepdim=True)


def _log_sin(half: Tensor) -> Tensor:
    """Ln sin theta = -ln cosh(half), without overflow."""
    return math.log(2) - half.abs() - functional.softplus(-2 * half.abs())


def _dihedral(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """IUPAC dihedral (...) in radian of three bond vectors (..., 3) along i, a, b, c."""
    n, m = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    return torch.atan2(b.norm(dim=-1) * (a * m).sum(-1), (n * m).sum(-1))
