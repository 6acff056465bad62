"""Z-matrix of a molecule: which atoms every atom is placed by.

Atom i hangs on its bonded atom a; b and c are placed before. r = |i a|, theta = angle(i, a, b),
phi = dihedral(i, a, b, c). Of several atoms on one a, the first one's phi is the torsion about the
bond a-b, and the others' c is that first one: their phi is an improper, 120 or 180 degrees from it.
So every bond has one torsion, and a soft torsion turns all atoms behind its bond together.

The tree is rooted at the middle of the molecule, where errors of a reconstruction add up least.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import DataError


@dataclass(frozen=True)
class ZMatrix:
    """Rows in the order in which atoms are placed.

    Attributes:
        atom: (N,) atoms in their order.
        bond: (N-1,) atom a of the rows from the second on.
        angle: (N-2,) atom b of the rows from the third on.
        torsion: (N-3,) atom c of the rows from the fourth on.
        improper: (N-3,) whether c hangs on a as well.
    """

    atom: np.ndarray
    bond: np.ndarray
    angle: np.ndarray
    torsion: np.ndarray
    improper: np.ndarray

    @property
    def n_atoms(self) -> int:
        """Number of atoms N."""
        return len(self.atom)

    @property
    def torsions(self) -> np.ndarray:
        """(N-3, 4) atoms i, a, b, c of every torsion."""
        columns = (self.atom[3:], self.bond[2:], self.angle[1:], self.torsion)
        return np.stack(columns, axis=1)

    @property
    def levels(self) -> list[np.ndarray]:
        """Torsions (rows of `torsions`) that can be placed together, level after level."""
        depth = {int(i): 0 for i in self.atom[:3]}
        for i, *by in self.torsions.tolist():
            depth[i] = 1 + max(depth[j] for j in by)
        of_row = np.array([depth[int(i)] for i in self.atom[3:]], dtype="int64")
        return [np.flatnonzero(of_row == d) for d in range(1, int(of_row.max(initial=0)) + 1)]


def neighbours_of(n_atoms: int, bonds: np.ndarray) -> list[list[int]]:
    """Bonded atoms of every atom, ascending.

    Args:
        n_atoms: N.
        bonds: (b, 2) bonded atoms.
    """
    near: list[set[int]] = [set() for _ in range(n_atoms)]
    for i, j in np.asarray(bonds).reshape(-1, 2).tolist():
        near[i].add(j)
        near[j].add(i)
    return [sorted(atoms) for atoms in near]


def zmatrix_of(numbers: np.ndarray, bonds: np.ndarray) -> ZMatrix:
    """The Z-matrix of a molecule, from its bonds alone.

    Args:
        numbers: (N,) atomic numbers.
        bonds: (b, 2) bonded atoms.

    Raises:
        DataError: fewer than four atoms, or bonds that do not connect all atoms.
    """
    n = len(numbers)
    if n < 4:
        raise DataError(f"a Z-matrix with torsions needs four atoms, found {n}")
    near = neighbours_of(n, bonds)
    distance = _distances(near)
    if not np.isfinite(distance).all():
        alone = np.flatnonzero(~np.isfinite(distance[0]))
        raise DataError(
            f"internal coordinates need one connected molecule: no bonds lead from atom 0 to "
            f"{len(alone)} others, the first is atom {alone[0]}",
            remedy="sample one molecule, without solvent or ions; check the bonds of its topology",
        )
    heavy = [sum(int(numbers[k] != 1) for k in atoms) for atoms in near]
    # chains before side chains before hydrogens: phi and psi are those of the backbone
    order = [
        sorted(atoms, key=lambda j: (numbers[j] == 1, -heavy[j], -len(near[j]), j))
        for atoms in near
    ]
    inner = [i for i in range(n) if len(near[i]) > 1]
    root = min(inner, key=lambda i: (-min(heavy[i], 2), distance[i].max(), i))
    return _rows(root, order)


def _rows(root: int, order: Sequence[Sequence[int]]) -> ZMatrix:
    """Place atoms from the root on, breadth first."""
    first, second = order[root][:2]
    atom, bond, angle, torsion, improper = [root, first, second], [root, root], [first], [], []
    placed, queue = {root, first, second}, deque([root, first, second])
    leader: dict[tuple[int, int], int] = {(root, first): second}  # of the bond a-b
    parent = {first: root, second: root, root: first}
    while queue:
        a = queue.popleft()
        b = parent[a]
        for i in order[a]:
            if i in placed:
                continue
            sibling = leader.get((a, b))
            if sibling is None:  # the bond's torsion, by the first neighbour on its other side
                c = next(j for j in _placed_around(b, atom, order) if j != a)
                leader[a, b] = i
            else:
                c = sibling
            atom.append(i)
            bond.append(a)
            angle.append(b)
            torsion.append(c)
            improper.append(sibling is not None)
            parent[i] = a
            placed.add(i)
            queue.append(i)
    columns = {"atom": atom, "bond": bond, "angle": angle, "torsion": torsion}
    placing = {name: np.array(column, dtype="int64") for name, column in columns.items()}
    return ZMatrix(**placing, improper=np.array(improper, dtype=bool))


def _placed_around(b: int, atom: Sequence[int], order: Sequence[Sequence[int]]) -> list[int]:
    """Placed neighbours of b, first placed first."""
    around = set(order[b])
    return [j for j in atom if j in around]


def _distances(near: Sequence[Sequence[int]]) -> np.ndarray:
    """(N, N) bonds between atoms; inf where none lead."""
    distance = np.full((len(near), len(near)), np.inf)
    for i in range(len(near)):
        distance[i, i], queue = 0.0, deque([i])
        while queue:
            j = queue.popleft()
            for k in near[j]:
                if np.isinf(distance[i, k]):
                    distance[i, k] = distance[i, j] + 1
                    queue.append(k)
    return distance
