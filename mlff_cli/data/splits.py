"""Training and validation molecules, split by molecule over all fidelities at once.

A molecule that is in validation at one fidelity is in training at none, whatever its conformers.
Molecules are the same when their names are (if every molecule of every file has one), or else when
charge, multiplicity and bond graph are. Graphs are compared by Weisfeiler-Lehman refinement:

    l_i <- hash(l_i, sum_j bonded(i, j) hash'(l_j)),    bonded: d_ij < 1.3 (r_i + r_j)

which sees composition and connectivity, and neither order of atoms nor geometry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from mlff_cli.core.errors import ConfigError, DataError
from mlff_cli.data.dataset import FidelityDataset

BOND_FACTOR = 1.3  # times the sum of covalent radii; generous, conformers may be distorted
ROUNDS = 8  # refinements: graphs that differ only farther apart than this count as the same
COORD_GRID = 1e-3  # A: conformers closer than this are the same conformer
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Split:
    """Indices per fidelity.

    Attributes:
        train: molecules to train on.
        validation: molecules to validate on; may be empty at a fidelity.
        by: what was kept together, in words.
    """

    train: list[np.ndarray]
    validation: list[np.ndarray]
    by: str


def _mix(x: np.ndarray) -> np.ndarray:
    """Scramble uint64 values (the finaliser of splitmix64); wraps around on purpose."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


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
    r = covalent_radii[numbers]  # (n, N) A
    delta = coord[:, :, None].astype("float64") - coord[:, None]
    d2 = (delta * delta).sum(-1)  # (n, N, N) A^2
    bonded = d2 < (BOND_FACTOR * (r[:, :, None] + r[:, None])) ** 2
    bonded &= ~np.eye(numbers.shape[1], dtype=bool)
    label = _mix(numbers.astype("uint64") * _GOLDEN)  # (n, N)
    for _ in range(min(ROUNDS, numbers.shape[1])):
        heard = np.where(bonded, _mix(label + _GOLDEN)[:, None, :], np.uint64(0)).sum(-1)
        label = _mix(label * np.uint64(3) + heard)
    total = _mix(label).sum(-1)  # (n,)
    state = np.rint(charge).astype("int64") * 1000 + np.rint(mult).astype("int64")
    return _mix(total ^ _mix(state.astype("uint64") + _GOLDEN))


def conformer_hash(coord: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Hash (n,) of positions on a grid of `COORD_GRID` and of the numbers, in their order."""
    grid = np.rint(coord / COORD_GRID).astype("int64")
    return np.array(
        [_digest(g.tobytes() + z.tobytes()) for g, z in zip(grid, numbers, strict=True)],
        dtype="uint64",
    )


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def molecule_keys(datasets: Sequence[FidelityDataset]) -> tuple[list[np.ndarray], str]:
    """Identity of every molecule, comparable between all data sets.

    Returns:
        One (n,) uint64 array per data set, and in words what was compared. When all molecules are
        one (a trajectory of a single molecule), conformers are compared instead.
    """
    names = [d.names() for d in datasets] if all(d.named for d in datasets) else []
    if names and all((given != "").all() for given in names):
        keys, by = [_name_keys(given) for given in names], "molecule name"
    else:
        keys = [
            _all_keys(d, lambda a: graph_hash(a["coord"], a["numbers"], a["charge"], a["mult"]))
            for d in datasets
        ]
        by = "charge, multiplicity and bond graph"
    if len(np.unique(np.concatenate(keys))) > 1:
        return keys, by
    by = "conformer (there is only one molecule)"
    return [_all_keys(d, lambda a: conformer_hash(a["coord"], a["numbers"])) for d in datasets], by


def _name_keys(names: np.ndarray) -> np.ndarray:
    unique, inverse = np.unique(names.astype(str), return_inverse=True)
    return np.array([_digest(n.encode()) for n in unique], dtype="uint64")[inverse]


def _all_keys(
    dataset: FidelityDataset, function: Callable[[dict[str, np.ndarray]], np.ndarray]
) -> np.ndarray:
    keys = np.empty(len(dataset), dtype="uint64")
    for part in dataset.structures():
        values = function(part.arrays)
        keys[part.start : part.start + len(values)] = values
    return keys


def split_by_fraction(datasets: Sequence[FidelityDataset], fraction: float, seed: int) -> Split:
    """Put a share of all molecules into validation.

    Molecules are ranked by a seeded hash of their identity, so that the choice hardly changes when
    data is added. A fidelity that would have no validation molecule gets its first-ranked one.

    Args:
        datasets: one per fidelity.
        fraction: share of the different molecules, in (0, 1).
        seed: of the ranking.

    Raises:
        ConfigError: the fraction is out of range.
        DataError: a fidelity would have no training molecules left.
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigError(
            f"data.val_fraction must lie between 0 and 1, found {fraction}",
            remedy="set it, or give data.val_fidelity_datasets",
        )
    keys, by = molecule_keys(datasets)
    unique = np.unique(np.concatenate(keys))
    ranked = unique[np.argsort(_mix(unique ^ _mix(np.array([seed + 1], dtype="uint64"))))]
    chosen = ranked[: max(1, round(fraction * len(ranked)))]
    for own in keys:
        if len(np.unique(own)) > 1 and not np.isin(own, chosen).any():
            chosen = np.append(chosen, ranked[np.isin(ranked, own)][0])
    return _divide(datasets, keys, chosen, by)


def split_from_files(
    datasets: Sequence[FidelityDataset], validation: Sequence[FidelityDataset]
) -> Split:
    """Train on what is in no validation file.

    Args:
        datasets: training files, one per fidelity.
        validation: validation files, of any fidelities; all their molecules are validated on.

    Raises:
        DataError: a fidelity would have no training molecules left.
    """
    keys, by = molecule_keys([*datasets, *validation])
    held_out = np.unique(np.concatenate(keys[len(datasets) :]))
    split = _divide(datasets, keys[: len(datasets)], held_out, by)
    files = {d.fidelity: np.arange(len(d)) for d in validation}
    nothing = np.empty(0, dtype="int64")
    return Split(split.train, [files.get(d.fidelity, nothing) for d in datasets], by)


def _divide(
    datasets: Sequence[FidelityDataset], keys: Sequence[np.ndarray], held_out: np.ndarray, by: str
) -> Split:
    out = [np.isin(own, held_out) for own in keys]
    for data, mask in zip(datasets, out, strict=True):
        if mask.all():
            raise DataError(
                f"all molecules of fidelity {data.fidelity} are in validation, none is left to "
                "train on",
                where=str(data.path),
                remedy="add molecules, or choose a smaller data.val_fraction or other "
                "validation files",
            )
    return Split([np.flatnonzero(~m) for m in out], [np.flatnonzero(m) for m in out], by)
