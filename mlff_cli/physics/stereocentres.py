"""Hands of atoms with four neighbours, which molecular dynamics never changes.

    chi = (n_1 - n_4) x (n_2 - n_4) . (n_3 - n_4)          n_1 ... n_4: neighbours by their index

chi changes sign in a mirror image and when two neighbours change places, not by a rotation. A force
field tells neither of them: its energy is the same for both hands. So two hydrogens of CH2 are told
apart here as well: which of them is which never changes in a simulation either.
"""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 4


def crowded_atoms(bonds: np.ndarray) -> np.ndarray:
    """(c, 4) neighbours of every atom that has four, ascending.

    Args:
        bonds: (b, 2) bonded atoms.
    """
    near: dict[int, set[int]] = {}
    for i, j in np.asarray(bonds, np.int64).reshape(-1, 2).tolist():
        near.setdefault(i, set()).add(j)
        near.setdefault(j, set()).add(i)
    rows = [sorted(near[i]) for i in sorted(near) if len(near[i]) == NEIGHBOURS]
    return np.array(rows, np.int64).reshape(-1, NEIGHBOURS)


def hands(positions: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """(B, c) signs of chi of positions (B, N, 3); NaN where a position is not finite.

    Args:
        positions: any unit.
        neighbours: (c, 4) of `crowded_atoms`.
    """
    x = np.asarray(positions, np.float64)[:, neighbours]
    a, b, c = (x[:, :, k] - x[:, :, 3] for k in range(3))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.sign((np.cross(a, b) * c).sum(axis=-1)))
