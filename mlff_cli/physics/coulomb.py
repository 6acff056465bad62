"""Electrostatic energy of atomic charges at long range.

simple    E = k/2 sum_{i != j} (1 - f(d_ij)) q_i q_j / d_ij,    k = Hartree * Bohr = 14.3996 eV A

f is the exponential cutoff, 1 at contact: a learned model describes the near part, so that only
what is left of the Coulomb law at long range is added. There is no outer cutoff.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlff_cli.core.units import COULOMB
from mlff_cli.physics.cutoffs import exponential_cutoff

SHORT_RANGE_CUTOFF = 4.6  # angstrom, as AIMNet2 was published with


def coulomb_simple(
    charges: Tensor, d: Tensor, pairs: Tensor, rc: float, half_k: float = 0.5 * COULOMB
) -> Tensor:
    """Long-range Coulomb energy of molecules in a dense batch.

    Args:
        charges: (B, N) e; zero for padding.
        d: (B, N, N) distances, angstrom; any positive number where `pairs` is false.
        pairs: (B, N, N) true for pairs of two different atoms that exist.
        rc: where the short range ends, angstrom.
        half_k: k/2, eV angstrom (an argument because TorchScript sees no module globals).

    Returns:
        Energy (B,) eV, summed in float64.
    """
    kernel = ((1.0 - exponential_cutoff(d, rc)) / d).masked_fill(~pairs, 0.0)  # [b, i, j] 1/A
    potential = torch.bmm(kernel, charges.unsqueeze(-1)).squeeze(-1)  # [b, i] e/A
    return half_k * (charges * potential).sum(dim=-1, dtype=torch.float64)
