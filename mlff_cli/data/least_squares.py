"""Least squares on compositions by streaming normal equations, with its null space.

    minimise |y - X^T c|^2:   A c = b,   A = X X^T,   b = X y        X (K, n): atoms of z in m
    scaled:  S A S,  S = diag(A)^(-1/2);   eigenvalues below TOLERANCE are zero
    covariance of c = s^2 A^+,   s^2 = |y - X^T c|^2 / (n - rank)

A holds sums of products of whole numbers: it is exact below 2^53, so the rank does not suffer from
rounding. Directions in the null space of A change no energy of any molecule; the solution reported
has no part along them (minimum norm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.core.elements import MAX_Z
from mlff_cli.data.compositions import Block

TOLERANCE = 1e-12  # of the scaled eigenvalues; one molecule in 1e9 that breaks a tie is above it
_SUPPORT = 1e-6  # smallest part of a null direction that counts as taking part


class NormalEquations:
    """Sums over molecules, by atomic number.

    Attributes:
        n: molecules.
        molecules: (119,) molecules that hold the element.
        atoms: (119,) atoms of the element.
        a: (119, 119) A.
        b: (119,) b, in the unit of y.
    """

    def __init__(self) -> None:
        self.n = 0
        self.molecules = np.zeros(MAX_Z + 1, dtype="int64")
        self.atoms = np.zeros(MAX_Z + 1, dtype="int64")
        self.a = np.zeros((MAX_Z + 1, MAX_Z + 1))
        self.b = np.zeros(MAX_Z + 1)

    def add(self, block: Block, y: np.ndarray) -> None:
        """Add the molecules of a block with the values y (n,) to be fitted."""
        z, x = block.elements, block.counts
        self.n += len(y)
        self.molecules[z] += np.count_nonzero(x, axis=1)
        self.atoms[z] += x.sum(axis=1).astype("int64")
        self.a[np.ix_(z, z)] += x @ x.T
        self.b[z] += np.einsum("kn,n->k", x, y)  # not BLAS: the same sum for any thread count

    def merge(self, other: NormalEquations) -> None:
        """Add the sums over other molecules."""
        self.n += other.n
        self.molecules += other.molecules
        self.atoms += other.atoms
        self.a += other.a
        self.b += other.b

    @property
    def elements(self) -> np.ndarray:
        """Atomic numbers seen, ascending."""
        return np.flatnonzero(self.molecules)


@dataclass(frozen=True)
class Ambiguity:
    """Elements that the data cannot tell apart.

    Attributes:
        elements: their atomic numbers.
        dimension: how many independent combinations of their energies are undetermined.
        direction: when that is one: the combination, smallest part 1; adding any multiple of it to
            the energies of the elements changes nothing.
    """

    elements: tuple[int, ...]
    dimension: int
    direction: tuple[float, ...] | None


@dataclass(frozen=True)
class Solution:
    """Least-squares solution.

    Attributes:
        values: (119,) c, zero for elements that do not occur.
        spread: (119,) square roots of diag(A^+); NaN for elements that are not determined.
        rank: rank of A.
        ambiguities: what is not determined.
    """

    values: np.ndarray
    spread: np.ndarray
    rank: int
    ambiguities: tuple[Ambiguity, ...]


def solve(equations: NormalEquations) -> Solution:
    """Solve the normal equations; the minimum-norm solution when they are rank deficient."""
    z = equations.elements
    scale = 1.0 / np.sqrt(np.diag(equations.a)[z])  # (K,)
    eigenvalue, vector = np.linalg.eigh(scale[:, None] * equations.a[np.ix_(z, z)] * scale)
    null = eigenvalue < TOLERANCE * len(z)
    basis = scale[:, None] * vector[:, ~null] / np.sqrt(eigenvalue[~null])  # A^+ = basis basis^T
    direction, _ = np.linalg.qr(scale[:, None] * vector[:, null])  # (K, K - rank) orthonormal
    basis -= direction @ (direction.T @ basis)
    values, spread = np.zeros(MAX_Z + 1), np.full(MAX_Z + 1, np.nan)
    values[z] = basis @ (basis.T @ equations.b[z])
    projector = direction @ direction.T  # (K, K) onto the null space
    determined = np.diag(projector) < _SUPPORT**2
    spread[z[determined]] = np.sqrt((basis[determined] ** 2).sum(axis=1))
    return Solution(values, spread, int(np.sum(~null)), _ambiguities(z, projector))


def _ambiguities(z: np.ndarray, projector: np.ndarray) -> tuple[Ambiguity, ...]:
    """Connected sets of elements under 'moves together in the null space'."""
    linked = np.abs(projector) > _SUPPORT**2
    free = [k for k in range(len(z)) if linked[k, k]]
    found = []
    while free:
        group = {free[0]}
        while (grown := {j for k in group for j in free if linked[k, j]} | group) != group:
            group = grown
        free = [k for k in free if k not in group]
        members = sorted(group)
        part = projector[np.ix_(members, members)]
        dimension = round(float(np.trace(part)))
        direction = None
        if dimension == 1:
            line = part[:, int(np.argmax(np.diag(part)))]
            line = line / np.abs(line).min() * np.sign(line[0])
            direction = tuple(round(float(x), 6) for x in line)
        found.append(Ambiguity(tuple(int(z[k]) for k in members), dimension, direction))
    return tuple(found)
