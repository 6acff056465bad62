"""Molecules made whole: atoms that a periodic box cut off return to those they are bonded to.

    s = (x_j - x_i) H^-1,   n_ij = -round(s),   x_j <- x_j + (sum of n along the bonds to j) H

H (3, 3) holds the edge vectors in rows, angstrom; it may be triclinic. Rounding finds the nearest
image exactly where a bond is shorter than half the smallest height of the box, as bonds are. Every
molecule's first atom stays where it is, and all others hang on it by a tree of bonds; sums along
that tree are made by pointer jumping, log2(depth) steps for all frames and atoms at once.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components


class BondTree:
    """A spanning tree of every molecule of a bond graph.

    Args:
        n_atoms: N.
        bonds: (m, 2) bonded atoms.

    Attributes:
        parent: (N,) atom that each hangs on; a molecule's first atom hangs on itself.
        molecule: (N,) index of the molecule.
    """

    def __init__(self, n_atoms: int, bonds: np.ndarray) -> None:
        pairs = np.asarray(bonds, dtype="int64").reshape(-1, 2)
        self.molecule = connected_components(_graph(pairs, n_atoms), directed=False)[1]
        roots = np.unique(self.molecule, return_index=True)[1]
        above = np.stack([np.full_like(roots, n_atoms), roots], axis=1)  # one node above all roots
        forest = _graph(np.concatenate([pairs, above]), n_atoms + 1)
        self.parent = breadth_first_order(forest, n_atoms, directed=False)[1][:n_atoms].copy()
        self.parent[roots] = roots

    def make_whole(self, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """Positions with every molecule in one piece.

        Args:
            positions: (T, N, 3) in angstrom.
            box: (T, 3, 3) edge vectors in rows, angstrom; None or all 0: not periodic.

        Returns:
            (T, N, 3) of the same type; the array itself where nothing moves.
        """
        if box is None:
            return positions
        periodic = np.flatnonzero(np.abs(np.linalg.det(np.asarray(box, "float64"))) > 0)
        if not len(periodic):
            return positions
        some = slice(None) if len(periodic) == len(positions) else periodic
        x, h = positions[some], np.asarray(box, "float64")[some]
        steps = x - x[:, self.parent]  # [t, i, x] along the bond that an atom hangs on
        images = -np.rint(steps @ np.linalg.inv(h)).astype("int32")  # [t, i, k]
        broken = np.flatnonzero(images.any(axis=(1, 2)))  # most frames have nothing to mend
        if not len(broken):
            return positions
        images, parent = images[broken], self.parent
        while (parent != parent[parent]).any():
            images = images + images[:, parent]  # those of a molecule's first atom are 0
            parent = parent[parent]
        shift = images @ h[broken]  # [t, i, x]
        whole = positions.copy()
        rows = np.arange(len(positions))[some][broken]
        whole[rows] = (positions[rows] + shift).astype(positions.dtype)
        return whole


def _graph(pairs: np.ndarray, n: int) -> coo_array:
    return coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (n, n)).tocsr()
