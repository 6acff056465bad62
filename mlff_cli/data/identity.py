"""Which molecules are the same: by name, by bond graph, or by geometry.

Graphs are compared by Weisfeiler-Lehman refinement, all molecules of one size at once:

    l_i <- hash(l_i, sum_j bonded(i, j) hash'(l_j)),    bonded: d_ij < 1.3 (r_i + r_j)

which sees composition and connectivity, and neither order of atoms nor geometry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from ase.data import covalent_radii

from mlff_cli.core.fields import INPUTS
from mlff_cli.data.dataset import FidelityDataset
from mlff_cli.data.mixing import GOLDEN, key, mix

BOND_FACTOR = 1.3  # times the sum of covalent radii; generous, conformers may be distorted
ROUNDS = 8  # refinements: graphs that differ only farther apart than this count as the same
COORD_GRID = 1e-3  # A: conformers closer than this are the same conformer
_BLOCK_ATOMS = 50_000  # of the molecules whose bonds are found together


def molecule_keys(datasets: Sequence[FidelityDataset]) -> tuple[list[np.ndarray], str]:
    """Identity of every molecule, comparable between all data sets.

    Returns:
        One (n,) uint64 array per data set, and in words what was compared. When all molecules are
        one (a trajectory of a single molecule), conformers are compared instead.
    """
    keys: list[np.ndarray] = []
    if all(d.named for d in datasets):
        keys = [d.hashes(("molecule",), lambda a: name_hash(a["molecule"])) for d in datasets]
        by = "molecule name"
    if not keys or any((own == _NAMELESS).any() for own in keys):
        keys = [
            d.hashes(INPUTS, lambda a: graph_hash(a["coord"], a["numbers"], a["charge"], a["mult"]))
            for d in datasets
        ]
        by = "charge, multiplicity and bond graph"
    if any((own != keys[0][0]).any() for own in keys):
        return keys, by
    by = "conformer (there is only one molecule)"
    geometry = ("coord", "numbers")
    return [d.hashes(geometry, lambda a: conformer_hash(**a)) for d in datasets], by


def graph_hash(
    coord: np.ndarray, numbers: np.ndarray, charge: np.ndarray, mult: np.ndarray
) -> np.ndarray:
    """Hash of charge, multiplicity and bond graph.

    Args:
        coord: (n, N, 3) A.
        numbers: (n, N) atomic numbers.
        charge: (n,) e, rounded to integers.
        mult: (n,).

    Returns:
        (n,) uint64; equal for conformers and for any order of the atoms.
    """
    n, n_atoms = numbers.shape
    total = np.empty(n, dtype="uint64")
    step = max(1, _BLOCK_ATOMS // n_atoms)
    for start in range(0, n, step):
        part = slice(start, start + step)
        total[part] = _refined(coord[part], numbers[part])
    state = np.rint(charge).astype("int64") * 1000 + np.rint(mult).astype("int64")
    return mix(total ^ mix(state.astype("uint64") + GOLDEN))


def _refined(coord: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Sum over atoms (n,) of the refined labels."""
    n, n_atoms = numbers.shape
    low, high = _bonds(coord, numbers)
    ends, starts = np.concatenate([low, high]), np.concatenate([high, low])
    label = mix(numbers.T.ravel().astype("uint64") * GOLDEN)  # (N n): atoms first, then molecules
    for _ in range(min(ROUNDS, n_atoms)):
        heard = np.zeros_like(label)
        np.add.at(heard, ends, mix(label + GOLDEN)[starts])
        label = mix(label * np.uint64(3) + heard)
    total: np.ndarray = mix(label).reshape(n_atoms, n).sum(axis=0)
    return total


def _bonds(coord: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bonded pairs, as positions in (N, n) arrays; atoms i and i + s of all molecules at once."""
    n, n_atoms = numbers.shape
    r = np.ascontiguousarray(coord.transpose(2, 1, 0), dtype="float32")  # (3, N, n) A
    radius = np.ascontiguousarray(covalent_radii[numbers].T * BOND_FACTOR, dtype="float32")
    low, high = [np.empty(0, "int64")], [np.empty(0, "int64")]
    for s in range(1, n_atoms):
        delta = r[:, s:] - r[:, :-s]
        delta *= delta
        d2 = delta[0] + delta[1] + delta[2]  # (N - s, n) A^2
        reach = radius[s:] + radius[:-s]
        reach *= reach
        found = np.flatnonzero(d2 < reach)
        low.append(found)
        high.append(found + s * n)
    return np.concatenate(low), np.concatenate(high)


def conformer_hash(coord: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Hash (n,) of positions on a grid of `COORD_GRID` and of the numbers, in their order."""
    grid = np.rint(coord.astype("float64") / COORD_GRID).astype("int64")  # (n, N, 3)
    total = np.zeros(len(grid), dtype="uint64")
    for values in (numbers, *np.moveaxis(grid, 2, 0)):  # (n, N)
        place = key(values.shape[1], np.arange(values.shape[1]))  # (N,)
        total = mix(total * np.uint64(3) + mix(values.astype("uint64") ^ place).sum(axis=1))
    return total


def name_hash(names: np.ndarray) -> np.ndarray:
    """Hash (n,) of texts."""
    known = {name: _digest(str(name).encode()) for name in set(names.tolist())}
    return np.fromiter((known[n] for n in names.tolist()), dtype="uint64", count=len(names))


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


_NAMELESS = np.uint64(_digest(b""))
