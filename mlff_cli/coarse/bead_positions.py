"""Positions of beads from positions of atoms, as streams.

    R_I = sum_i M_Ii r_i   over the few atoms i of bead I, in float64

The sum runs over the atoms of a bead in their order, whatever else is mapped with it: a frame's
beads have the same bits in any chunk.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.data.assembly import assembled
from mlff_cli.data.cg_beads import BeadMolecule
from mlff_cli.data.whole import BondTree


class BeadMap:
    """Maps frames of atoms to beads.

    Args:
        molecule: with a mapping.
    """

    def __init__(self, molecule: BeadMolecule) -> None:
        assert molecule.mapping is not None
        self._index = molecule.atom_index.astype(np.int64)
        bead, atom = np.nonzero(molecule.mapping)  # bead by bead
        self._atoms = atom
        self._weights = molecule.mapping[bead, atom]
        self._first = np.searchsorted(bead, np.arange(molecule.n_beads))
        self._tree = BondTree(molecule.n_atoms, molecule.atom_bonds)

    def __call__(self, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """Positions of beads.

        Args:
            positions: (T, N, 3) of all atoms of the trajectory, angstrom.
            box: (T, 3, 3) edge vectors in rows, angstrom, or None.

        Returns:
            (T, n, 3) float64; molecules whole and next to one another.
        """
        x = positions[:, self._index]
        x = assembled(self._tree.make_whole(x, box), box, self._tree.molecule)
        terms = x[:, self._atoms].astype(np.float64) * self._weights[:, None]  # [t, atoms, x]
        return np.asarray(np.add.reduceat(terms, self._first, axis=1))
