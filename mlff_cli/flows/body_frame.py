"""Positions in a frame that is fixed to three atoms, and the 3N - 6 coordinates left in it.

The first atom is the origin, the second lies on +x, the third in the plane z = 0 at y > 0.

    v = (ln x_2, x_3, ln y_3, x_i, y_i, z_i of the others)             3N - 6 coordinates

    dx = dt dR V(v) dv,    ln V = 3 ln x_2 + 2 ln y_3

of which x_2^2 y_3 is the volume that turning the frame sweeps, and x_2 y_3 is the logarithms'.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlff_cli.flows.zmatrix import ZMatrix


class BodyFrame(nn.Module):
    """Body-fixed coordinates of one molecule.

    Args:
        zmatrix: its first three atoms span the frame, and its order is that of the coordinates.
    """

    atom: Tensor
    back: Tensor

    def __init__(self, zmatrix: ZMatrix) -> None:
        super().__init__()
        self.n_atoms = zmatrix.n_atoms
        atom = torch.from_numpy(zmatrix.atom)
        self.register_buffer("atom", atom, persistent=False)
        self.register_buffer("back", torch.argsort(atom), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Body-fixed coordinates of positions.

        Args:
            x: (B, N, 3) in nm.

        Returns:
            v (B, 3N-6); ln V (B,), both with lengths in nm.
        """
        y = self._turned(x)[:, self.atom]  # [B, N, 3]
        y = y - y[:, :1]
        v = torch.stack([y[:, 1, 0].log(), y[:, 2, 0], y[:, 2, 1].log()], dim=1)
        v = torch.cat([v, y[:, 3:].flatten(1)], dim=1)
        return v, self.log_volume(v)

    def log_volume(self, v: Tensor) -> Tensor:
        """Ln V (B,) of coordinates (B, 3N-6)."""
        return 3 * v[:, 0] + 2 * v[:, 2]

    def positions(self, v: Tensor) -> Tensor:
        """Positions (B, N, 3) in nm of coordinates (B, 3N-6), centre at the origin."""
        zero = torch.zeros_like(v[:, 0])
        rows = [zero, zero, zero, v[:, 0].exp(), zero, zero, v[:, 1], v[:, 2].exp(), zero]
        first = torch.stack(rows, dim=1).view(-1, 3, 3)
        y = torch.cat([first, v[:, 3:].view(-1, self.n_atoms - 3, 3)], dim=1)
        return _centred(y[:, self.back])

    def placed(self, x: Tensor) -> Tensor:
        """Positions (B, N, 3) turned into the frame, centre at the origin."""
        return _centred(self._turned(x))

    def _turned(self, x: Tensor) -> Tensor:
        """Positions along the frame's axes; the origin is the first atom's."""
        i, j, k = (x[:, self.atom[n]] for n in range(3))  # [B, 3]
        x = x - i[:, None]
        ex = nn.functional.normalize(j - i, dim=-1, eps=0.0)
        plane = (k - i) - ((k - i) * ex).sum(-1, keepdim=True) * ex
        ey = nn.functional.normalize(plane, dim=-1, eps=0.0)
        ez = torch.linalg.cross(ex, ey)
        axes = torch.stack([ex, ey, ez], dim=-1)  # [B, 3, axis]
        return x @ axes


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=1, keepdim=True)
