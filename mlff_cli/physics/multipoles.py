"""Electric moments of atomic charges.

    dipole       D_a  = sum_i q_i r_ia                                                 e angstrom
    quadrupole   Q_ab = sum_i q_i (r_ia r_ib - delta_ab |r_i|^2 / 3)                   e angstrom^2

Quadrupoles are traceless and stored as xx, yy, zz, xy, yz, zx: the convention of aimnet 0.2.5. Some
programs write 3/2 of it (Buckingham 1959), some keep the trace.

The origin is that of the coordinates. It matters: when all coordinates move by t, D of a molecule
of charge C moves by C t, and Q moves wherever there is a charge or a dipole,

    D_a  <- D_a + C t_a
    Q_ab <- Q_ab + [D_a t_b + t_a D_b + C t_a t_b] - trace.

Labels must therefore come with the coordinates that they were computed for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor


def dipole(charges: Tensor, coord: Tensor, real: Tensor) -> Tensor:
    """Dipole moments of padded molecules.

    Args:
        charges: (B, N) e.
        coord: (B, N, 3) angstrom; padding may hold anything.
        real: (B, N) false for padding.

    Returns:
        (B, 3) e angstrom, summed in float64.
    """
    q, r = _taken(charges, coord, real)
    return (q.unsqueeze(-1) * r).sum(dim=1)


def quadrupole(charges: Tensor, coord: Tensor, real: Tensor) -> Tensor:
    """Traceless quadrupole moments of padded molecules; arguments as of `dipole`.

    Returns:
        (B, 6) e angstrom^2: xx, yy, zz, xy, yz, zx; summed in float64.
    """
    q, r = _taken(charges, coord, real)
    squares = torch.cat([r.square(), r * r.roll(-1, dims=-1)], dim=-1)  # [b, i, xx yy zz xy yz zx]
    second = (q.unsqueeze(-1) * squares).sum(dim=1)  # [b, xx yy zz xy yz zx]
    diagonal = second[:, :3]
    return torch.cat([diagonal - diagonal.mean(dim=-1, keepdim=True), second[:, 3:]], dim=-1)


def _taken(charges: Tensor, coord: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Charges q [b, i] and positions r [b, i, xyz], zeros for padding, in float64."""
    q = torch.where(real, charges, 0.0).to(torch.float64)
    return q, torch.where(real.unsqueeze(-1), coord, 0.0).to(torch.float64)


MOMENTS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "dipole": dipole,
    "quadrupole": quadrupole,
}


def moments(
    charges: Tensor, batch: Mapping[str, Tensor], wanted: Collection[str]
) -> dict[str, Tensor]:
    """The moments among `wanted` labels, from predicted charges (B, N) and a batch.

    The coordinates are the batch's own: gradients reach the charges only.
    """
    real = batch["numbers"] > 0
    return {
        name: moment(charges, batch["coord"], real)
        for name, moment in MOMENTS.items()
        if name in wanted
    }
