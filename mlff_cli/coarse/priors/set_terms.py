"""Terms and type names of the molecules of a coarse-grained set, a seed's set included.

A seed's set names no bonds and no types: its beads are taken for chains in the order of their
columns, and its types are `type0`, `type1`, ... by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_cli.coarse.mapping.topology import disulfides, terms
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import BeadMolecule, plain_chain
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.physics.terms import Terms


@dataclass(frozen=True)
class MoleculeTerms:
    """What a prior needs to know of a molecule.

    Attributes:
        name: of the molecule.
        terms: bonds, angles, dihedrals, pairs.
        types: (n_beads,) names of the beads' types.
        disulfides: (b,) bool, which bonds are disulfides.
    """

    name: str
    terms: Terms
    types: list[str]
    disulfides: np.ndarray


def type_names(cg: CGSet) -> list[str]:
    """Names by species number.

    Raises:
        DataError: a seed's set with a species below 0.
    """
    if cg.species_table:
        return list(cg.species_table)
    lowest = min(int(layout.species.min()) for layout in cg.layouts)
    if lowest < 0:
        raise DataError(
            f"species of real beads count from 0, found {lowest}",
            where=str(cg.path),
            remedy="set the mask of padding to 0",
        )
    return [f"type{i}" for i in range(max(int(x.species.max()) for x in cg.layouts) + 1)]


def molecule_terms(cg: CGSet) -> list[MoleculeTerms]:
    """Terms and types of every molecule of a set.

    Raises:
        DataError: species outside the table.
    """
    names = type_names(cg)
    found = []
    for molecule in molecules(cg):
        if molecule.species.min() < 0 or molecule.species.max() >= len(names):
            raise DataError(
                f"species of molecule {molecule.name!r} must be 0 to {len(names) - 1}, found "
                f"{molecule.species.min()} to {molecule.species.max()}",
                where=str(cg.path),
                remedy="make the set again with `mlff cg-map`",
            )
        types = [names[s] for s in molecule.species]
        found.append(MoleculeTerms(molecule.name, terms(molecule), types, disulfides(molecule)))
    return found


def molecules(cg: CGSet) -> Sequence[BeadMolecule]:
    """The molecules of a set; those of a seed's set as chains of consecutive beads."""
    if len(cg.molecules):
        return cg.molecules
    return [plain_chain(f"chain{k}", layout.species) for k, layout in enumerate(cg.layouts)]
