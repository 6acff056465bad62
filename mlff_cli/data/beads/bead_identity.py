"""Molecules of several coarse-grained sets: which are the same, and what their types are called."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import BeadMolecule, plain_chain
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.species_names import species_names


@dataclass(frozen=True, eq=False)
class TrainingMolecule:
    """A molecule that frames are of.

    Attributes:
        name: unlike that of every other one.
        types: (n,) int64 rows of `BeadFrames.type_names`.
        file: first file that holds it.
        number: its number in that file.
    """

    name: str
    types: np.ndarray
    file: int
    number: int


@dataclass
class FoundMolecules:
    """What the files hold, put together while they are looked through."""

    tables: list[list[str]] = field(default_factory=list)
    molecules: list[TrainingMolecule] = field(default_factory=list)
    keys: dict[tuple[object, ...], int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    columns: list[list[np.ndarray]] = field(default_factory=list)  # by file, by number there
    number: list[np.ndarray] = field(default_factory=list)  # by file: its molecules' numbers here


def add_molecules(found: FoundMolecules, cg: CGSet, file: int) -> None:
    """Number the molecules of a file, those that are known as before.

    Args:
        found: what earlier files hold; it grows.
        cg: the next file.
        file: its number.

    Raises:
        DataError: species outside the table.
    """
    table = species_names(cg)
    found.tables.append(table)
    names = list(dict.fromkeys(name for t in found.tables for name in t))
    place = np.array([names.index(name) for name in table], dtype=np.int64)
    numbers = []
    for k, layout in enumerate(cg.layouts):
        if layout.species.min() < 0 or layout.species.max() >= len(table):
            raise DataError(
                f"species of molecule {k} must be 0 to {len(table) - 1}, found "
                f"{layout.species.min()} to {layout.species.max()}",
                where=str(cg.path),
                remedy="make the set again with `mlff cg-map`",
            )
        own = bool(len(cg.molecules))
        molecule = cg.molecules.bare(k) if own else plain_chain(f"chain{k}", layout.species)
        types = place[layout.species]
        key = _key(molecule, types, named=own)
        if key not in found.keys:
            found.keys[key] = len(found.molecules)
            name = _unlike(molecule.name, found.names)
            found.molecules.append(TrainingMolecule(name, types, file, k))
        numbers.append(found.keys[key])
    found.columns.append([layout.columns for layout in cg.layouts])
    found.number.append(np.array(numbers, dtype=np.int64))


def _key(molecule: BeadMolecule, types: np.ndarray, *, named: bool) -> tuple[object, ...]:
    """What two molecules have in common that are one; `named`: their names count."""
    arrays = (types, molecule.residue, molecule.chain, molecule.bonds)
    texts = (tuple(molecule.residue_name.tolist()), tuple(molecule.bead_name.tolist()))
    return (named and molecule.name, *(a.tobytes() for a in arrays), *texts)


def _unlike(name: str, known: dict[str, int]) -> str:
    """The name, with a number where another molecule has it."""
    known[name] = known.get(name, 0) + 1
    return name if known[name] == 1 else _unlike(f"{name}_{known[name]}", known)
