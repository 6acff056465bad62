"""Fraction of native contacts, soft.

    Q = 1/C sum_(ij) 1 / (1 + exp(beta (r_ij - lambda r0_ij)))

over the C pairs that are in contact in the native structure, r0 their distance there (R. B. Best,
G. Hummer, W. A. Eaton, PNAS 110, 17874, 2013): beta 5 / angstrom; lambda 1.8 for all atoms, and 1.2
for one bead per residue, whose contacts are longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.physics.internal_coordinates import distances

BETA = 5.0  # 1 / angstrom
LAMBDA = 1.2
CUTOFF = 8.0  # angstrom between beads; 4.5 is usual between heavy atoms
APART = 4  # residues along the chain, at least


@dataclass(frozen=True)
class NativeContacts:
    """Pairs that are in contact in the native structure.

    Attributes:
        pairs: (C, 2) int64.
        r0: (C,) their distances there, angstrom.
        beta: 1 / angstrom.
        scale: lambda.
    """

    pairs: np.ndarray
    r0: np.ndarray
    beta: float = BETA
    scale: float = LAMBDA

    @classmethod
    def of(
        cls, structure: np.ndarray, candidates: np.ndarray, cutoff: float = CUTOFF
    ) -> NativeContacts:
        """Those of a structure.

        Args:
            structure: (n, 3) angstrom.
            candidates: (m, 2) pairs that may be contacts, usually `APART` residues apart.
            cutoff: angstrom; a pair farther apart is none.
        """
        pairs = np.asarray(candidates, np.int64).reshape(-1, 2)
        r = distances(np.asarray(structure, np.float64)[None], pairs)[0]
        return cls(pairs[r < cutoff], r[r < cutoff])

    def fraction(self, x: np.ndarray) -> np.ndarray:
        """Q (T,), 0 to 1, of coordinates (T, n, 3) in angstrom; NaN without any contact."""
        if not len(self.pairs):
            return np.full(len(x), np.nan)
        r = distances(np.asarray(x, np.float64), self.pairs)
        soft = np.exp(-np.logaddexp(0.0, self.beta * (r - self.scale * self.r0)))
        return np.asarray(soft.mean(axis=1))
