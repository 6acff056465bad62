"""Bonds of beads, from the bonds of their atoms.

An atom of no bead is near the bead that fewest bonds lead to, several where they tie. Two beads are
bonded where a bond joins an atom of one, or near it, to an atom of the other, or near it. This does
not depend on the order of atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np


def contracted(owner: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Bonds of beads.

    Args:
        owner: (N,) bead of each atom, -1 of none.
        bonds: (m, 2) bonded atoms.

    Returns:
        (b, 2) int64 pairs of beads, ascending, sorted.

    >>> contracted(np.array([0, -1, -1, 1]), np.array([[0, 1], [1, 2], [2, 3]]))
    array([[0, 1]])
    """
    near = _near(owner, bonds)
    found = {
        (min(a, b), max(a, b))
        for i, j in bonds.tolist()
        for a, b in product(near[i], near[j])
        if a != b
    }
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _near(owner: np.ndarray, bonds: np.ndarray) -> Sequence[frozenset[int]]:
    """The nearest beads of every atom; none where no bond leads to a bead."""
    neighbours: list[list[int]] = [[] for _ in owner]
    for i, j in bonds.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    near = [frozenset((k,)) if k >= 0 else frozenset[int]() for k in owner.tolist()]
    front = [i for i, k in enumerate(owner.tolist()) if k >= 0]
    while front:
        reached: dict[int, set[int]] = {}
        for i in front:
            for j in neighbours[i]:
                if not near[j]:
                    reached.setdefault(j, set()).update(near[i])
        for j, beads in reached.items():
            near[j] = frozenset(beads)
        front = list(reached)
    return near
