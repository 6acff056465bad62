"""Seeded synthetic data sets for tests and benchmarks; never a source of results.

    E = sum_i SAE(Z_i) + sum_{i<j} V_ij(d_ij)
    V_ij(d) = strength D_ij (exp(-2 a (d - r_ij)) - 2 exp(-a (d - r_ij)))       (Morse, eV)
    q_i = Q/N + sum_j kappa (chi_j - chi_i) exp(-d_ij),   s_i = (mult - 1)/N     (e)

Forces are the exact gradient, charges sum to Q exactly: what is trained or tested on these files
obeys the laws that real labels obey. `write_large` writes a file for benchmarks of streaming,
where only compositions and energies mean something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from mlff_cli.data.grouped_hdf5 import FORMAT, UNIT_ATTRIBUTES
from mlff_cli.data.grouped_writer import GroupedHDF5Writer

STEEPNESS = 1.7  # 1/A
CHARGE_SCALE = 0.1  # e per unit of electronegativity
LABELS = ("energy", "forces", "charges")


def self_energy(z: np.ndarray | int) -> np.ndarray:
    """Self-atomic energy used by the generator, eV: close to -13.6 Z^2.4."""
    energy: np.ndarray = -13.6 * np.asarray(z, dtype="float64") ** 2.4
    return energy


def _radius(z: np.ndarray) -> np.ndarray:
    """A covalent radius in A that grows with the row of the periodic table."""
    radius: np.ndarray = 0.35 + 0.32 * np.log(np.asarray(z, dtype="float64") + 0.2)
    return radius


def _electronegativity(z: np.ndarray) -> np.ndarray:
    chi: np.ndarray = 2.0 + np.sin(0.7 * np.asarray(z, dtype="float64"))
    return chi


def pair_potential(
    coord: np.ndarray, numbers: np.ndarray, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Morse energy and forces of molecules of one size.

    Args:
        coord: (n, N, 3) in A.
        numbers: (n, N) atomic numbers.
        strength: multiplies the well depths; another value plays another level of theory.

    Returns:
        energy (n,) in eV without self-atomic energies, forces (n, N, 3) in eV/A, float64.
    """
    r = np.asarray(coord, dtype="float64")
    delta = r[:, :, None] - r[:, None]  # (n, N, N, 3) A, from j to i
    d = np.sqrt((delta**2).sum(-1)) + np.eye(r.shape[1])  # (n, N, N) A; 1 on the diagonal
    off = 1.0 - np.eye(r.shape[1])
    depth = strength * (1.0 + 0.2 * np.sqrt(numbers[:, :, None] * numbers[:, None]))  # eV
    x = np.exp(-STEEPNESS * (d - _radius(numbers)[:, :, None] - _radius(numbers)[:, None]))
    energy = 0.5 * (depth * (x * x - 2 * x) * off).sum((1, 2))  # (n,) eV
    slope = depth * STEEPNESS * (2 * x - 2 * x * x) * off  # dV/dd (n, N, N) eV/A
    forces = -(slope[..., None] * delta / d[..., None]).sum(2)  # (n, N, 3) eV/A
    return energy, forces


def partial_charges(coord: np.ndarray, numbers: np.ndarray, charge: np.ndarray) -> np.ndarray:
    """Charges (n, N) in e that sum to `charge` (n,): every pair moves charge between its atoms."""
    r = np.asarray(coord, dtype="float64")
    d = np.sqrt(((r[:, :, None] - r[:, None]) ** 2).sum(-1))  # (n, N, N) A
    chi = _electronegativity(numbers)
    moved = CHARGE_SCALE * (chi[:, None] - chi[:, :, None]) * np.exp(-d)
    charges: np.ndarray = charge[:, None] / r.shape[1] + moved.sum(2)
    return charges


def grow_molecule(numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions (N, 3) in A: every atom sits near an earlier one and clear of all others."""
    radius = _radius(numbers)
    coord = np.zeros((1, 3))
    while len(coord) < len(numbers):
        i = len(coord)
        j = rng.integers(i)
        direction = rng.normal(size=3)
        trial = coord[j] + (radius[i] + radius[j]) * direction / np.linalg.norm(direction)
        clear = 0.8 * (radius[i] + radius[:i])
        if (np.linalg.norm(coord - trial, axis=1) > clear).all():
            coord = np.vstack([coord, trial])
    return coord


def write_dataset(
    path: Path | str,
    n_molecules: int,
    seed: int = 0,
    *,
    labels: Sequence[str] = LABELS,
    elements: Sequence[int] = (1, 6, 7, 8),
    sizes: Sequence[int] = tuple(range(3, 13)),
    level_of_theory: str = "synthetic",
    n_parents: int | None = None,
    parent_seed: int | None = None,
    strength: float = 1.0,
    sae: Callable[[np.ndarray], np.ndarray] = self_energy,
    charged: bool = False,
    missing: float = 0.0,
    spread: float = 0.1,
) -> Path:
    """Write a grouped HDF5 file of distorted conformers of random molecules.

    Args:
        path: output; an existing file is replaced.
        n_molecules: conformers in all.
        seed: of the distortions and of the missing labels.
        labels: label fields to write: energy, forces, charges, spin_charges.
        elements: atomic numbers to draw from; each occurs when there are atoms enough.
        sizes: atoms per molecule to draw from.
        level_of_theory: root attribute.
        n_parents: different molecules (default: one per 10 conformers).
        parent_seed: of the molecules (default: `seed`); two files that share it hold conformers of
            the same molecules, under the same `molecule` names.
        strength: of the pair potential; another value plays another level of theory.
        sae: self-atomic energies in eV of atomic numbers.
        charged: every third molecule has charge +1 and multiplicity 2.
        missing: share of labels that are NaN, each label drawn by itself.
        spread: standard deviation of the distortions, A.

    Returns:
        `path`.
    """
    parents_rng = np.random.default_rng([0, seed if parent_seed is None else parent_seed])
    rng = np.random.default_rng([1, seed])
    n_parents = n_parents or max(1, n_molecules // 10)
    cycle = np.resize(np.asarray(elements), n_parents)  # makes every element occur
    parents = []
    for k in range(n_parents):
        z = parents_rng.choice(elements, size=int(parents_rng.choice(sizes)))
        z[0] = cycle[k]
        parents.append((z, grow_molecule(z, parents_rng)))
    attrs = {"level_of_theory": level_of_theory}
    with GroupedHDF5Writer(path, attrs, force=True) as writer:
        for k, (z, rest) in enumerate(parents):
            n = len(range(k, n_molecules, n_parents))
            if not n:
                continue
            coord = (rest + spread * rng.normal(size=(n, *rest.shape))).astype("float32")
            numbers = np.tile(z, (n, 1))
            ion = charged and k % 3 == 2
            charge, mult = np.full(n, float(ion)), np.full(n, 1.0 + ion)
            energy, forces = pair_potential(coord, numbers, strength)
            values = {
                "energy": energy + sae(z).sum(),
                "forces": forces,
                "charges": partial_charges(coord, numbers, charge),
                "spin_charges": np.tile((mult - 1)[:, None] / len(z), (1, len(z))),
            }
            for name in labels:
                values[name][rng.random(n) < missing] = np.nan
            arrays = {"coord": coord, "numbers": numbers, "charge": charge, "mult": mult}
            arrays["molecule"] = np.array([f"synthetic-{k:06d}"] * n, dtype=object)
            writer.append(len(z), arrays | {name: values[name] for name in labels})
    return Path(path)


def write_large(
    path: Path | str,
    n_molecules: int,
    seed: int = 0,
    *,
    elements: Sequence[int] = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53),
    sizes: Sequence[int] = tuple(range(8, 33)),
    noise: float = 0.05,
    compression: str | None = None,
) -> Path:
    """Write a large file fast: about 700 bytes per molecule, a million in seconds.

    Energies are sum SAE + noise * sqrt(N) * normal, one in a hundred is off by 100 noises.
    Positions, forces and charges are random numbers of the right shape.

    Args:
        path: output; an existing file is replaced.
        n_molecules: molecules, spread evenly over `sizes`.
        seed: of everything.
        elements: atomic numbers, hydrogen and carbon most often.
        sizes: atoms per molecule.
        noise: eV per square root of an atom.
        compression: HDF5 filter ("gzip") or None for contiguous arrays.

    Returns:
        `path`.
    """
    rng = np.random.default_rng([2, seed])
    table = np.asarray(elements, dtype="int32")
    weight = 1.0 / np.arange(1, len(table) + 1) ** 1.5
    edges = (np.cumsum(weight / weight.sum()) * 65536).astype("uint32")  # of a 16 bit draw
    lookup = table[np.minimum(np.searchsorted(edges, np.arange(65536), "right"), len(table) - 1)]
    energies = np.zeros(119)
    energies[table] = self_energy(table)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": FORMAT, **UNIT_ATTRIBUTES, "level_of_theory": "synthetic"})
        for k, size in enumerate(sizes):
            n = len(range(k, n_molecules, len(sizes)))
            if not n:
                continue
            numbers = lookup[rng.integers(0, 65536, size=(n, size), dtype="uint16")]  # (n, N)
            scale = np.where(rng.random(n) < 0.01, 100 * noise, noise) * np.sqrt(size)
            block = rng.random((n, size, 3), dtype="float32")
            arrays = {
                "coord": block * 8,
                "numbers": numbers,
                "charge": np.zeros(n, "float32"),
                "mult": np.ones(n, "float32"),
                "energy": energies[numbers].sum(1) + scale * rng.normal(size=n),
                "forces": block - 0.5,
                "charges": block[..., 0] - 0.5,
            }
            group = file.create_group(f"{size:03d}")
            for name, values in arrays.items():
                group.create_dataset(
                    name, data=values, compression=compression, shuffle=bool(compression)
                )
    return Path(path)
