"""Terms of a bead molecule, from its bonds.

    angles      i-j-k     two bonds that share j
    dihedrals   i-j-k-l   three bonds in a row
    pairs       i-j       of residues without a bond between them; separation: residues from i to j

Separation counts residues along the shortest way: with one bead a residue, bonds. Beads of one
residue, and of two that are neighbours in the chain, are no pairs: bonds, angles and dihedrals hold
most of them, at distances that are no contacts.

A bond between two cysteines that are no neighbours is a disulfide: it counts as a bond and in the
separation, but no angle or dihedral goes through it, as it is not the chain's.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from mlff_cli.coarse.mapping.residues import VARIANTS
from mlff_cli.core.residues import D_AMINO_ACIDS
from mlff_cli.data.beads.cg_beads import BeadMolecule
from mlff_cli.physics.terms import APART, Terms


def terms(molecule: BeadMolecule) -> Terms:
    """Bonds, angles, dihedrals and pairs of one molecule."""
    n = molecule.n_beads
    bonds = molecule.bonds.astype(np.int64)
    chain = bonds[~disulfides(molecule)]
    angles, dihedrals = _bent(n, chain)
    pairs, separation = _pairs(_residues(molecule), bonds, chain)
    return Terms(n, bonds, angles, dihedrals, pairs, separation)


def disulfides(molecule: BeadMolecule) -> np.ndarray:
    """(b,) bool, which of a molecule's bonds are disulfides."""
    place = _residues(molecule)
    cysteine = np.array([_is_cysteine(str(name)) for name in molecule.residue_name])
    i, j = molecule.bonds.astype(np.int64).T
    far = (np.abs(place[i] - place[j]) > 1) | (molecule.chain[i] != molecule.chain[j])
    return np.asarray(far & cysteine[i] & cysteine[j])


def _residues(molecule: BeadMolecule) -> np.ndarray:
    """(n,) number of the residue of every bead, in their order."""
    numbers: dict[tuple[int, int, str], int] = {}
    of = zip(
        molecule.chain.tolist(),
        molecule.residue.tolist(),
        molecule.residue_name.tolist(),
        strict=True,
    )
    return np.array([numbers.setdefault(r, len(numbers)) for r in of])


def _is_cysteine(name: str) -> bool:
    return "CYS" in (
        name,
        VARIANTS.get(name),
        D_AMINO_ACIDS.get(name),
        name[1:],
        VARIANTS.get(name[1:]),
    )


def _bent(n: int, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles (a, 3) and dihedrals (d, 4) of a graph, each once."""
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for i, j in bonds.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    angles = [
        (i, j, k) for j in range(n) for i in sorted(neighbours[j]) for k in neighbours[j] if i < k
    ]
    dihedrals = [
        (i, j, k, last)
        for j, k in bonds.tolist()
        for i in sorted(neighbours[j])
        for last in sorted(neighbours[k])
        if i != k and last != j and i != last
    ]
    ordered = sorted((d if d[0] < d[-1] else d[::-1]) for d in dihedrals)
    return (
        np.array(sorted(angles), np.int64).reshape(-1, 3),
        np.array(ordered, np.int64).reshape(-1, 4),
    )


def _pairs(
    residues: np.ndarray, bonds: np.ndarray, chain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (p, 2) of beads, and their separation (p,); chain: bonds that are no disulfides."""
    n, m = len(residues), int(residues.max()) + 1
    of = residues[bonds]
    graph = coo_array((np.ones(len(of)), (of[:, 0], of[:, 1])), shape=(m, m))
    between = shortest_path(graph.tocsr(), directed=False, unweighted=True)
    held = np.eye(m, dtype=bool)
    a, b = residues[chain].T
    held[a, b] = held[b, a] = True
    bonded = np.zeros((n, n), dtype=bool)
    bonded[bonds.min(1), bonds.max(1)] = True
    i, j = np.triu_indices(n, 1)
    free = ~held[residues[i], residues[j]] & ~bonded[i, j]
    far = np.maximum(between[residues[i], residues[j]][free], 2)  # 1: a disulfide is between
    separation = np.where(np.isfinite(far), far, APART).astype(np.int64)
    return np.stack([i[free], j[free]], axis=1), separation
