"""Terms and type names of the molecules of a coarse-grained set, a seed's set included.

A seed's set names no bonds: its beads are taken for chains in the order of their columns. Terms are
made when they are asked for, as those of many large molecules would not fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mlff_cli.coarse.mapping.topology import disulfides, terms
from mlff_cli.coarse.priors.chirality import n_untold
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import BeadMolecule, plain_chain
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.species_names import species_names
from mlff_cli.data.lazy_sequence import LazySequence
from mlff_cli.physics.terms import Terms

KEPT = 8  # molecules whose terms are held; of 500 beads 3 MB each


@dataclass(frozen=True)
class MoleculeTerms:
    """What a prior needs to know of a molecule.

    Attributes:
        name: of the molecule.
        terms: bonds, angles, dihedrals, pairs.
        types: (n_beads,) names of the beads' types.
        disulfides: (b,) bool, which bonds are disulfides.
        n_untold: dihedrals of D-amino acids whose types do not tell their hand.
    """

    name: str
    terms: Terms
    types: list[str]
    disulfides: np.ndarray
    n_untold: int = 0


class _SetTerms(LazySequence[MoleculeTerms]):
    """Of every molecule; the last ones asked for are kept."""

    def __init__(self, cg: CGSet) -> None:
        self._cg = cg
        self._names = species_names(cg)
        self._known = lru_cache(KEPT)(self._build)

    def __len__(self) -> int:
        return len(self._cg.layouts)

    def _make(self, k: int) -> MoleculeTerms:
        return self._known(k)

    def _build(self, k: int) -> MoleculeTerms:
        molecule = bare_molecule(self._cg, k)
        types = [self._names[s] for s in molecule.species]
        found = terms(molecule)
        untold = n_untold(molecule, found.dihedrals, types)
        return MoleculeTerms(molecule.name, found, types, disulfides(molecule), untold)


def molecule_terms(cg: CGSet) -> Sequence[MoleculeTerms]:
    """Terms and types of every molecule of a set, each made when it is asked for.

    Raises:
        DataError: species outside the table.
    """
    n_types = len(species_names(cg))
    for k, layout in enumerate(cg.layouts):
        if layout.species.min() < 0 or layout.species.max() >= n_types:
            raise DataError(
                f"species of molecule {bare_molecule(cg, k).name!r} must be 0 to {n_types - 1}, "
                f"found {layout.species.min()} to {layout.species.max()}",
                where=str(cg.path),
                remedy="make the set again with `mlff cg-map`",
            )
    return _SetTerms(cg)


def molecules(cg: CGSet) -> Sequence[BeadMolecule]:
    """The molecules of a set; those of a seed's set as chains of consecutive beads."""
    if len(cg.molecules):
        return cg.molecules
    return [bare_molecule(cg, k) for k in range(len(cg.layouts))]


def bare_molecules(cg: CGSet) -> Iterator[BeadMolecule]:
    """The same without their maps, one at a time."""
    return (bare_molecule(cg, k) for k in range(len(cg.layouts)))


def bare_molecule(cg: CGSet, k: int) -> BeadMolecule:
    """Molecule k without its maps."""
    if len(cg.molecules):
        return cg.molecules.bare(k)
    return plain_chain(f"chain{k}", cg.layouts[k].species)
