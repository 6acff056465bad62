"""Positions as unbounded internal coordinates, and back.

    u = (ln r (N-1), ln tan(theta/2) (N-2), ln tan(|phi|/2) (h), phi (N-3-h))   3N - 6 coordinates
    hand = sign phi (h)

    dx = dt dR V(u) du,    ln V = sum 3 ln r + sum 2 ln sin theta + sum ln sin |phi|  (of the h)

with dt and dR the measures of translations and rotations. Of it r^2 and sin(theta) are the Jacobian
of spherical coordinates, the rest that of the logarithms. Any real u is a molecule: no bond becomes
negative, no angle leaves (0, pi), and the h impropers of atoms with four neighbours keep their half
of the circle, so that no stereocentre changes its hand. cos = -tanh(u) and sin = 1/cosh(u) of such
angles need no inverse trigonometry.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlff_cli.flows.molecule import FlowMolecule


class InternalCoordinates(nn.Module):
    """Internal coordinates of one molecule.

    Args:
        molecule: its Z-matrix, and which torsions are hands.

    Attributes:
        n_atoms: N.
        n_linear: 2N - 3 + h coordinates that are no angles on a circle; they come first.
        free: (N-3-h,) torsions of the Z-matrix that are.
        bent: (h,) those that are not.
    """

    atom: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    back: Tensor
    free: Tensor
    bent: Tensor
    order: Tensor

    def __init__(self, molecule: FlowMolecule) -> None:
        super().__init__()
        zmatrix, handed = molecule.zmatrix, torch.from_numpy(molecule.handed)
        self.n_atoms = zmatrix.n_atoms
        self.n_linear = 2 * self.n_atoms - 3 + int(handed.sum())
        bent, free = handed.nonzero().squeeze(1), (~handed).nonzero().squeeze(1)
        self.register_buffer("bent", bent, persistent=False)
        self.register_buffer("free", free, persistent=False)
        self.register_buffer("order", torch.argsort(torch.cat([bent, free])), persistent=False)
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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Internal coordinates of positions.

        Args:
            x: (B, N, 3) in nm.

        Returns:
            u (B, 3N-6), angles in radian; hand (B, h), 1 or -1; ln V (B,), with r in nm.
        """
        i = x[:, self.atom]  # [B, N, 3]
        a, b, c = x[:, self.a], x[:, self.b], x[:, self.c]  # of rows 1.., 2.., 3..
        ia = i[:, 1:] - a  # [B, N-1, 3]
        r = ia.norm(dim=-1)
        ba = b - a[:, 1:]  # [B, N-2, 3]
        sin = torch.linalg.cross(ia[:, 1:], ba).norm(dim=-1)  # times r |ba|, as cos is
        cos = (ia[:, 1:] * ba).sum(-1)
        half = _log_tan_half(sin, cos, r[:, 1:] * ba.norm(dim=-1))
        sin, cos = _dihedral(-ia[:, 2:], ba[:, 1:], c - b[:, 1:])
        phi = torch.atan2(sin, cos)[:, self.free]
        sin, cos = sin[:, self.bent], cos[:, self.bent]
        bent = _log_tan_half(sin.abs(), cos, torch.hypot(sin, cos))
        u = torch.cat([r.log(), half, bent, phi], dim=1)
        hand = torch.where(sin < 0, -1.0, 1.0).to(x)
        return u, hand, self.log_volume(u)

    def log_volume(self, u: Tensor) -> Tensor:
        """Ln V (B,) of coordinates (B, 3N-6)."""
        ln_r, half, bent, _ = self.split(u)
        return 3 * ln_r.sum(1) + 2 * _log_sin(half).sum(1) + _log_sin(bent).sum(1)

    def split(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four kinds, (B, N-1), (B, N-2), (B, h) and (B, N-3-h), of u (B, 3N-6)."""
        n = self.n_atoms
        ends = (0, n - 1, 2 * n - 3, self.n_linear, 3 * n - 6)
        ln_r, half, bent, phi = (u[:, i:j] for i, j in pairwise(ends))
        return ln_r, half, bent, phi

    def positions(self, u: Tensor, hand: Tensor) -> Tensor:
        """Positions (B, N, 3) in nm, centre at the origin.

        The frame: the first atom of the Z-matrix to the second is +x, the third has y > 0.

        Args:
            u: (B, 3N-6).
            hand: (B, h).
        """
        ln_r, half, bent, phi = self.split(u)
        r, cos, sin = ln_r.exp(), -half.tanh(), 1 / half.cosh()
        # e, p, q: along a-b, towards c, and across; each torsion's row in the Z-matrix's order
        towards = torch.cat([-bent.tanh(), phi.cos()], dim=1)[:, self.order]
        across = torch.cat([hand / bent.cosh(), phi.sin()], dim=1)[:, self.order]
        along = r[:, 2:] * cos[:, 1:]
        out = r[:, 2:] * sin[:, 1:]
        local = torch.stack([along, out * towards, out * across], dim=-1)  # [B, N-3, 3]
        zero = torch.zeros_like(r[:, 0])
        first = torch.stack([zero, zero, zero], dim=-1)
        second = torch.stack([r[:, 0], zero, zero], dim=-1)
        # the third hangs on the first, and its angle is towards the second
        third = torch.stack([r[:, 1] * cos[:, 0], r[:, 1] * sin[:, 0], zero], dim=-1)
        x = torch.stack([first, second, third], dim=1)  # [B, placed, 3]
        for k in range(self.n_levels):
            rows, by = getattr(self, f"rows_{k}"), getattr(self, f"by_{k}")
            a, b, c = (x[:, by[:, j]] for j in (1, 2, 3))  # [B, m, 3]
            e = functional.normalize(b - a, dim=-1, eps=0.0)
            bc = c - b
            p = functional.normalize(bc - (bc * e).sum(-1, keepdim=True) * e, dim=-1, eps=0.0)
            q = torch.linalg.cross(p, e)
            axes = torch.stack([e, p, q], dim=-1)  # [B, m, 3, axis]
            placed = a + (axes @ local[:, rows, :, None]).squeeze(-1)
            x = torch.cat([x, placed], dim=1)
        x = x[:, self.back]
        return x - x.mean(dim=1, keepdim=True)


def _log_tan_half(sin: Tensor, cos: Tensor, length: Tensor) -> Tensor:
    """Ln tan(angle/2) = ln sin - ln(1 + cos), of multiples by a length; sin > 0."""
    return sin.log() - (length + cos).log()


def _log_sin(half: Tensor) -> Tensor:
    """Ln sin theta = -ln cosh(half), without overflow."""
    return math.log(2) - half.abs() - functional.softplus(-2 * half.abs())


def _dihedral(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Multiples of sine and cosine (...) of the IUPAC dihedral of bond vectors (..., 3)."""
    n, m = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    return b.norm(dim=-1) * (a * m).sum(-1), (n * m).sum(-1)
