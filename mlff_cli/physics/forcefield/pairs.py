"""Coulomb and Lennard-Jones between all pairs, as functions of s = r^2.

    U(s)  = k_e q_i q_j s^(-1/2) + 4 eps (t^2 - t),    t = (sigma^2/s)^3
    U'(s) = -(1/2 k_e q_i q_j s^(-1/2) + 12 eps (2 t^2 - t)) / s

Below the core, s0 = CORE^2, U goes on along its tangent in s: energies and gradients stay finite
when atoms meet, also in single precision, and belong together. No molecule comes near the core.
nm, kJ/mol, e.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

CORE = 2e-3  # nm; (sigma/CORE)^14 eps still is a float32
COULOMB = 138.93545764438198  # kJ/mol nm/e^2, OpenMM's ONE_4PI_EPS0


class NonbondedPairs(nn.Module):
    """Coulomb and Lennard-Jones; an excluded pair has zeros.

    Args:
        charges: (P,) product of both charges, e^2.
        sigma: (P,) nm.
        epsilon: (P,) kJ/mol.
    """

    def __init__(self, charges: np.ndarray, sigma: np.ndarray, epsilon: np.ndarray) -> None:
        super().__init__()
        self.coulomb = nn.Buffer(torch.as_tensor(COULOMB * charges)[:, None])
        self.square = nn.Buffer(torch.as_tensor(sigma**2)[:, None])
        self.four_epsilon = nn.Buffer(torch.as_tensor(4 * epsilon)[:, None])

    def forward(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """U (P, B) and U' (P, B) of s (P, B), which is not below the core."""
        inverse = 1 / s
        charge = self.coulomb * inverse.sqrt()
        ratio = self.square * inverse
        t = ratio * ratio * ratio
        attraction = self.four_epsilon * t
        repulsion = attraction * t
        slope = (0.5 * charge + 3 * (2 * repulsion - attraction)) * inverse
        return charge + (repulsion - attraction), -slope
