"""A molecule as flows see it: elements and bonds, and from them how stiff each torsion is.

| torsion                                              | periods in 2 pi | stiff |
|------------------------------------------------------|-----------------|-------|
| improper (two atoms on one a)                        | 1               | yes   |
| about a bond between planar atoms (amide, aromatic)  | 1               | yes   |
| about a bond of a ring of up to seven atoms          | 1               | yes   |
| CH3 or NH3 on a tetrahedral atom                     | 3               | yes   |
| any other bond                                       | 1               | no    |

Planar: carbon with three neighbours, its neighbours nitrogen with up to three and oxygen or
sulphur with one. A stiff torsion's fluctuations grow as sqrt(T) about its minima, a soft one's
hardly change: phi, psi and CH3 on planar atoms, which turn freely (barrier below 1 kJ/mol).
ACE-ALA-NME has four soft torsions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.flows.zmatrix import ZMatrix, neighbours_of, zmatrix_of

RING = 7  # atoms of the largest ring that is stiff; a disulfide's ring is not


@dataclass(frozen=True)
class FlowMolecule:
    """What the coordinates of a flow are made from.

    Attributes:
        numbers: (N,) atomic numbers.
        bonds: (b, 2) bonded atoms.
        name: shown to people.
    """

    numbers: np.ndarray
    bonds: np.ndarray
    name: str = ""

    def __post_init__(self) -> None:
        numbers = np.asarray(self.numbers, dtype="int64").reshape(-1)
        bonds = np.asarray(self.bonds, dtype="int64").reshape(-1, 2)
        if bonds.size and (bonds.min() < 0 or bonds.max() >= len(numbers)):
            raise DataError(
                f"bonds name atoms 0 to {len(numbers) - 1}, found {bonds.min()} to {bonds.max()}",
                where=self.name or None,
            )
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "bonds", bonds)

    @property
    def n_atoms(self) -> int:
        """Number of atoms N."""
        return len(self.numbers)

    @property
    def n_coordinates(self) -> int:
        """3N - 6: what is left without translation and rotation."""
        return 3 * self.n_atoms - 6

    @cached_property
    def zmatrix(self) -> ZMatrix:
        """Which atoms every atom is placed by.

        Raises:
            DataError: see `zmatrix_of`.
        """
        return zmatrix_of(self.numbers, self.bonds)

    @cached_property
    def periods(self) -> np.ndarray:
        """(N-3,) of every torsion of the Z-matrix: 1 or 3 where it is stiff, 0 where soft."""
        near = neighbours_of(self.n_atoms, self.bonds)
        planar = self._planar(near)
        rows = zip(self.zmatrix.torsions.tolist(), self.zmatrix.improper.tolist(), strict=True)
        found = []
        for (_, a, b, _), improper in rows:
            if improper or (planar[a] and planar[b]) or _in_small_ring(a, b, near):
                found.append(1)
            elif not planar[b] and self._rotor(a, near) and len(near[b]) == 4:
                found.append(3)
            else:
                found.append(0)
        return np.array(found, dtype="int64")

    @cached_property
    def handed(self) -> np.ndarray:
        """(N-3,) whether a torsion's sign is a hand: an improper on an atom with four neighbours.

        It stays on its half of the circle; from the other half the neighbours' order is a mirror's.
        """
        near = neighbours_of(self.n_atoms, self.bonds)
        crowded = np.array([len(near[a]) > 3 for a in self.zmatrix.torsions[:, 1]], dtype=bool)
        handed: np.ndarray = self.zmatrix.improper & crowded
        return handed

    @property
    def soft(self) -> np.ndarray:
        """(N-3,) whether a torsion of the Z-matrix turns freely, or nearly."""
        soft: np.ndarray = self.periods == 0
        return soft

    def plain(self) -> dict[str, Any]:
        """Lists and strings, for a model file."""
        return {
            "numbers": self.numbers.tolist(),
            "bonds": self.bonds.tolist(),
            "name": self.name,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> FlowMolecule:
        """What `plain` gave."""
        bonds = np.array(plain["bonds"], dtype="int64").reshape(-1, 2)
        return cls(np.array(plain["numbers"]), bonds, str(plain["name"]))

    def _planar(self, near: list[list[int]]) -> np.ndarray:
        """(N,) whether an atom and its bonds lie in a plane."""
        z = self.numbers
        trigonal = [bool(z[i] == 6 and len(near[i]) == 3) for i in range(self.n_atoms)]
        most = {7: 3, 8: 1, 16: 1}  # neighbours that leave a lone pair for the plane
        beside = [
            int(z[i]) in most and len(near[i]) <= most[int(z[i])] and any(trigonal[j] for j in n)
            for i, n in enumerate(near)
        ]
        planar: np.ndarray = np.array(trigonal) | np.array(beside)
        return planar

    def _rotor(self, a: int, near: list[list[int]]) -> bool:
        """Whether a is the middle of CH3 or NH3: a third of a turn changes nothing."""
        return len(near[a]) == 4 and sum(self.numbers[j] == 1 for j in near[a]) == 3


def _in_small_ring(a: int, b: int, near: list[list[int]]) -> bool:
    """Whether a way of up to RING - 1 bonds leads from a to b beside their own bond."""
    steps, queue = {a: 0}, deque([a])
    while queue:
        i = queue.popleft()
        if steps[i] == RING - 1:
            return False
        for j in near[i]:
            if {i, j} == {a, b} or j in steps:
                continue
            if j == b:
                return True
            steps[j] = steps[i] + 1
            queue.append(j)
    return False
