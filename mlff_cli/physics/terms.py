"""Which beads interact, and how: the terms of a bead model's energy as arrays of indices.

bonds       i-j         separation 1
angles      i-j-k       two bonds that share j
dihedrals   i-j-k-l     three bonds in a row
pairs       i-j         beads of residues without a bond; separation counts residues along the chain

No torch here: coarse-graining builds these, priors use them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mlff_cli.core.errors import DataError

APART = np.iinfo(np.int32).max  # separation of two beads that no chain of bonds joins
_WIDTH = {"bonds": 2, "angles": 3, "dihedrals": 4, "pairs": 2}


def _none(width: int) -> np.ndarray:
    return np.zeros((0, width), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Terms:
    """Terms of one molecule.

    Every row is kept in one direction, first index below the last: a term read backwards is the
    same term. Order of rows is the caller's.

    Attributes:
        n_beads: beads that indices count.
        bonds: (b, 2) int64.
        angles: (a, 3) int64, the vertex in the middle.
        dihedrals: (d, 4) int64.
        pairs: (p, 2) int64, without bonds.
        separation: (p,) int64 residues from one bead to the other, 2 or more; with one bead a
            residue as many bonds. `APART` where no chain of bonds joins them.

    Raises:
        DataError: an index is outside, a term meets a bead twice, a row occurs twice, or a
            separation is below 2 or missing.
    """

    n_beads: int
    bonds: np.ndarray = field(default_factory=lambda: _none(2))
    angles: np.ndarray = field(default_factory=lambda: _none(3))
    dihedrals: np.ndarray = field(default_factory=lambda: _none(4))
    pairs: np.ndarray = field(default_factory=lambda: _none(2))
    separation: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        for name, width in _WIDTH.items():
            rows = np.asarray(getattr(self, name), dtype=np.int64)
            object.__setattr__(self, name, _forward(_checked(name, rows, width, self.n_beads)))
        separation = np.asarray(self.separation, dtype=np.int64)
        if separation.shape != (len(self.pairs),):
            raise DataError(
                f"every pair needs a separation: {len(self.pairs)} pairs, "
                f"separation of shape {separation.shape}"
            )
        if separation.size and separation.min() < 2:
            raise DataError(
                f"pairs are separated by 2 residues or more, found {separation.min()}",
                remedy="leave beads of bonded residues out of the pairs",
            )
        object.__setattr__(self, "separation", separation)

    def pairs_between(self, low: int, high: int = APART) -> np.ndarray:
        """Pairs (p, 2) whose separation is `low` to `high`, both included."""
        return self.pairs[(self.separation >= low) & (self.separation <= high)]


def _checked(name: str, rows: np.ndarray, width: int, n_beads: int) -> np.ndarray:
    if rows.size == 0:
        return _none(width)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise DataError(f"{name} are rows of {width} beads, found an array of shape {rows.shape}")
    outside = rows[((rows < 0) | (rows >= n_beads)).any(1)]
    if len(outside):
        raise DataError(
            f"{name} count beads 0 to {n_beads - 1}, found {outside[0].tolist()}",
            remedy="the terms and the beads must come from one mapping",
        )
    ordered = np.sort(rows, axis=1)
    twice = rows[(ordered[:, 1:] == ordered[:, :-1]).any(1)]
    if len(twice):
        raise DataError(f"a bead occurs once in each of the {name}, found {twice[0].tolist()}")
    return rows


def _forward(rows: np.ndarray) -> np.ndarray:
    """Rows with their first bead below their last; the same term twice is refused."""
    rows = np.where((rows[:, 0] > rows[:, -1])[:, None], rows[:, ::-1], rows)
    ordered = rows[np.lexsort(rows.T)]
    twice = ordered[1:][(ordered[1:] == ordered[:-1]).all(1)]
    if len(twice):
        raise DataError(f"every term occurs once, found {twice[0].tolist()} twice")
    return rows
