"""Compositions and energies of a grouped HDF5 file, block by block.

    X_zm = number of atoms of element z in molecule m,   E_m = its energy in eV

Only `numbers` and `energy` are read, some thousand molecules at a time, so that memory does not
grow with the file. Where the file is cut depends on the file alone. Blocks can be read again, in
any process: a sample is drawn again from its seed, not remembered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.core.elements import MAX_Z
from mlff_cli.core.errors import DataError
from mlff_cli.data.grouped_hdf5 import GroupedHDF5

BLOCK_ATOMS = 1 << 20  # read at a time; larger blocks gain 5 % of the time and cost 15 MB
BLOCK_MOLECULES = 1 << 15


@dataclass(frozen=True)
class Piece:
    """Molecules that are read at a time: rows `start` to `stop` of the `group`-th group."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class Block:
    """Some molecules with energies.

    Attributes:
        elements: (K,) atomic numbers, ascending; some may have no atoms here.
        counts: (K, n) atoms of each element per molecule, float64.
        energy: (n,) in eV, finite.
    """

    elements: np.ndarray
    counts: np.ndarray
    energy: np.ndarray

    def holds(self, elements: frozenset[int]) -> np.ndarray:
        """Mask (n,) of the molecules with at least one atom of `elements`."""
        rows = np.isin(self.elements, sorted(elements))
        return np.asarray((self.counts[rows] > 0).any(axis=0))

    def take(self, mask: np.ndarray) -> Block:
        """The molecules chosen by a mask (n,)."""
        if mask.all():
            return self
        return Block(self.elements, self.counts[:, mask], self.energy[mask])


@dataclass(frozen=True)
class Sample:
    """Which molecules to use: `size` of `total`, uniformly, and every one that holds `always`."""

    size: int
    total: int
    seed: int
    always: frozenset[int] = frozenset()


def pieces(data: GroupedHDF5) -> list[Piece]:
    """Every molecule of a file, in its order."""
    found = []
    for k, group in enumerate(data.groups):
        step = max(1, min(BLOCK_MOLECULES, BLOCK_ATOMS // group.n_atoms))
        for start in range(0, group.n_molecules, step):
            found.append(Piece(k, start, min(start + step, group.n_molecules)))
    return found


def read_block(data: GroupedHDF5, piece: Piece, known: np.ndarray | None = None) -> Block:
    """The molecules with energies of a piece.

    Args:
        data: the open file.
        piece: one of `pieces`.
        known: elements (K,) that an earlier pass has found, which saves looking for them and
            checking the numbers again.

    Raises:
        DataError: an atomic number is not an element, or an energy is infinite.
    """
    group, rows = data.groups[piece.group], slice(piece.start, piece.stop)
    energy = group.read("energy", rows)  # (n,) eV
    labelled = ~np.isnan(energy)
    if not labelled.any():
        return Block(np.empty(0, "int64"), np.empty((0, 0)), np.empty(0))
    if np.isinf(energy).any():
        raise DataError(
            f"'energy' must be finite, or NaN where it is missing, found "
            f"{energy[np.isinf(energy)][0]}",
            where=f"{data.path}, group {group.name}, "
            f"molecule {rows.start + int(np.flatnonzero(np.isinf(energy))[0])}",
            remedy="remove the molecule or mend its source",
        )
    numbers = group.read("numbers", rows, check=known is None)  # (n, N)
    elements, counts = count_elements(numbers, known)
    return Block(elements, counts, energy).take(labelled)


def count_elements(
    numbers: np.ndarray, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Composition of molecules of one size.

    Args:
        numbers: (n, N) atomic numbers 1..118.
        known: elements (K,) to count, ascending, no other may occur; None looks for them.

    Returns:
        elements (K,) ascending, counts (K, n) float64.
    """
    by_atom = np.ascontiguousarray(numbers.astype("uint8").T)  # (N, n): sums run along molecules
    if known is None:
        known = np.flatnonzero(np.bincount(by_atom.ravel(), minlength=MAX_Z + 1))
    narrow = "uint8" if len(by_atom) < 256 else "int64"
    counts = np.empty((len(known), by_atom.shape[1]))
    for k, z in enumerate(known.tolist()):  # Python ints: int64 scalars would widen by_atom
        counts[k] = (by_atom == z).sum(axis=0, dtype=narrow)
    return known, counts


class Draw:
    """Sequential sampling: exactly `size` of `total`, every subset equally likely.

    How many of a block are chosen is hypergeometric, which of them is uniform. Blocks are asked for
    in the order of the file; molecules that hold `always` come on top.
    """

    def __init__(self, sample: Sample) -> None:
        self._rng = np.random.default_rng(sample.seed)
        self._left = min(sample.size, sample.total)
        self._rest = sample.total

    def __call__(self, n: int) -> np.ndarray:
        """Mask (n,) of the next n molecules with energies."""
        mask = np.zeros(n, dtype=bool)
        if n:
            m = int(self._rng.hypergeometric(n, self._rest - n, self._left)) if self._left else 0
            mask[self._rng.choice(n, size=m, replace=False)] = True
            self._left -= m
            self._rest -= n
        return mask
