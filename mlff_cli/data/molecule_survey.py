"""What labelled molecules look like: labels, contacts, forces, repeated geometries.

    contact = min_ij d_ij / (r_i + r_j),   r: covalent radii;   |F|: length of an atom's force

A grouped HDF5 file is read once, piece by piece.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from ase.data import covalent_radii

from mlff_cli.core.fields import LABELS
from mlff_cli.data.grouped_hdf5 import Group, GroupedHDF5
from mlff_cli.data.identity import conformer_hash
from mlff_cli.data.scanning import pieces


@dataclass(frozen=True)
class Extreme:
    """A value and the molecule that has it, as "group 012, molecule 7"."""

    value: float
    where: str


@dataclass
class MoleculeSurvey:
    """Counts and extremes of a file.

    Attributes:
        molecules: how many.
        labels: how many molecules have each label.
        contact: the closest pair of atoms, as a share of the sum of their covalent radii.
        force: the largest |F| in eV/angstrom.
        net_force: the largest sum of forces of a molecule in eV/angstrom.
        repeated: molecules whose geometry occurred before.
        infinite: labels that are infinite, by name.
    """

    molecules: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    contact: Extreme | None = None
    force: Extreme | None = None
    net_force: Extreme | None = None
    repeated: int = 0
    infinite: Counter[str] = field(default_factory=Counter)


def survey_molecules(file: GroupedHDF5) -> MoleculeSurvey:
    """Look at every molecule of a file.

    Raises:
        DataError: an input is not finite, or a number is not an element.
    """
    found = MoleculeSurvey()
    seen: set[int] = set()
    for group in file.groups:
        names = ["coord", "numbers", *(n for n in LABELS if n in group.fields)]
        for rows in pieces(group, names):
            _add(found, seen, group, rows, {n: group.read(n, rows) for n in names})
    return found


def _add(
    found: MoleculeSurvey, seen: set[int], group: Group, rows: slice, a: dict[str, np.ndarray]
) -> None:
    n = len(a["coord"])
    found.molecules += n

    def extreme(values: np.ndarray, old: Extreme | None, least: bool = False) -> Extreme | None:
        values = np.where(np.isnan(values), np.inf if least else -np.inf, values)
        i = int(values.argmin() if least else values.argmax())
        value = float(values[i])
        if not np.isfinite(value) and value != (-np.inf if least else np.inf):
            return old
        if old is not None and (value >= old.value if least else value <= old.value):
            return old
        return Extreme(value, f"group {group.name}, molecule {rows.start + i}")

    for name in LABELS:
        if name in a:
            flat = a[name].reshape(n, -1)
            found.labels[name] += int((~np.isnan(flat).all(axis=1)).sum())
            found.infinite[name] += int(np.isinf(flat).any(axis=1).sum())
    if group.n_atoms > 1:
        found.contact = extreme(closest(a["coord"], a["numbers"]), found.contact, least=True)
    if "forces" in a:
        forces = a["forces"].astype("float64")
        size = np.linalg.norm(forces, axis=-1).max(axis=1)
        found.force = extreme(size, found.force)
        found.net_force = extreme(np.linalg.norm(forces.sum(axis=1), axis=-1), found.net_force)
    hashes = conformer_hash(a["coord"], a["numbers"]).tolist()
    before = len(seen)
    seen.update(hashes)
    found.repeated += n - (len(seen) - before)


def closest(coord: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Closest pair of every molecule, as a share of the sum of covalent radii.

    Args:
        coord: (n, N, 3) angstrom, N at least 2.
        numbers: (n, N) atomic numbers.

    Returns:
        (n,).
    """
    radii = covalent_radii[numbers]  # [n, N]
    least = np.full(len(coord), np.inf)
    for shift in range(1, coord.shape[1]):  # pairs (i, i + shift): memory stays that of coord
        d = np.linalg.norm(coord[:, shift:] - coord[:, :-shift], axis=-1)
        least = np.minimum(least, (d / (radii[:, shift:] + radii[:, :-shift])).min(axis=1))
    return least
