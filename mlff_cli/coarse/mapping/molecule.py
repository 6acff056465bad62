"""From a topology and a mapping to a bead molecule: beads, species, maps and bonds.

M (n, N): M_Ii the weight of atom i in bead I, 0 for atoms of other beads
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mdtraj
import numpy as np

from mlff_cli.coarse.mapping.bead_bonds import contracted
from mlff_cli.coarse.mapping.chains import Chains, canonical, find_chains, told
from mlff_cli.coarse.mapping.mapping import (
    BACKBONE,
    CENTRE,
    Bead,
    atom_beads,
    atom_names,
    centre_beads,
    own_species,
)
from mlff_cli.coarse.mapping.mapping_file import file_beads, read_mapping
from mlff_cli.coarse.mapping.residues import ResidueKind
from mlff_cli.coarse.mapping.species import species_table
from mlff_cli.data.beads.cg_beads import BeadMolecule

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Recipe:
    """How to make beads of a topology.

    Attributes:
        mapping: a scheme, names of atoms, or a YAML file.
        by: species by "residue" or "class".
        termini: ends of chains are species of their own.
        disulfides: they are bonds of beads.
        table: of non-standard residues.
    """

    mapping: str = "ca"
    by: str = "residue"
    termini: bool = False
    disulfides: bool = True
    table: Mapping[str, ResidueKind] = field(default_factory=dict)

    @property
    def file(self) -> Path | None:
        """The mapping file, if it is one."""
        return Path(self.mapping) if Path(self.mapping).suffix in SUFFIXES else None


@dataclass(frozen=True)
class Made:
    """A bead molecule and what belongs to it.

    Attributes:
        molecule: the beads.
        species_table: names by species number.
        notes: what a user must be told.
        remarks: what is as it should be, and worth a line.
    """

    molecule: BeadMolecule
    species_table: list[str]
    notes: list[str]
    remarks: list[str]


def make_molecule(
    name: str, topology: mdtraj.Topology, positions: np.ndarray, recipe: Recipe
) -> Made:
    """Beads of a topology.

    Args:
        name: of the molecule.
        topology: with bonds.
        positions: (N, 3) of the first frame in angstrom, molecules whole.
        recipe: how.

    Raises:
        UsageError: no such mapping.
        ConfigError: a faulty mapping file.
        DataError: residues that nobody knows, atoms that are missing, no beads, an atom in two.
    """
    path = recipe.file
    given = None
    if path is not None:
        content = read_mapping(path)
        chains = find_chains(topology, positions, recipe.table, any_residue=True)
        beads, given = file_beads(chains, content, path)
        table = species_table("", [], [b.species for b in beads])
    else:
        own = [] if recipe.mapping == CENTRE else own_species(atom_names(recipe.mapping))
        chains = find_chains(topology, positions, recipe.table)
        how = {"termini": recipe.termini}
        beads = (
            centre_beads(chains, recipe.by, **how)
            if recipe.mapping == CENTRE
            else atom_beads(chains, recipe.mapping, recipe.by, **how)
        )
        table = species_table(recipe.by, own, [b.species for b in beads])
    bonds = given if given is not None else _bonds(chains, beads, recipe)
    remarks = [*chains.remarks, *_disulfides_told(chains, recipe)]
    return Made(_molecule(name, chains, beads, bonds, table), table, chains.notes, remarks)


def _molecule(
    name: str, chains: Chains, beads: Sequence[Bead], bonds: np.ndarray, table: list[str]
) -> BeadMolecule:
    topology, atoms = chains.topology, chains.atoms
    mapping = np.zeros((len(beads), len(atoms)))
    for k, bead in enumerate(beads):
        mapping[k, np.searchsorted(atoms, bead.atoms)] = bead.weights
    of = [topology.residue(b.residue) for b in beads]
    numbers = [r.resSeq if b.number is None else b.number for b, r in zip(beads, of, strict=True)]
    elements = [topology.atom(i).element for i in atoms.tolist()]
    return BeadMolecule(
        name=name,
        species=np.array([table.index(b.species) for b in beads], np.int32),
        residue=np.array(numbers, np.int32),
        residue_name=np.array([r.name for r in of]),
        bead_name=np.array([b.name for b in beads]),
        chain=np.unique([r.chain.index for r in of], return_inverse=True)[1].astype(np.int32),
        bonds=bonds.astype(np.int32),
        mapping=mapping,
        elements=np.array([e.atomic_number if e else 0 for e in elements], np.int32),
        atom_bonds=np.searchsorted(atoms, chains.bonds).astype(np.int32),
        atom_index=atoms.astype(np.int32),
    )


def _bonds(chains: Chains, beads: Sequence[Bead], recipe: Recipe) -> np.ndarray:
    """Bonds of beads: along the backbone, and disulfides; of a file's beads along any bond."""
    owner = np.full(len(chains.atoms), -1)
    for k, bead in enumerate(beads):
        owner[np.searchsorted(chains.atoms, bead.atoms)] = k
    bonds = np.searchsorted(chains.atoms, chains.bonds)
    atoms = [chains.topology.atom(i) for i in chains.atoms.tolist()]
    if recipe.file is None:  # a side chain may lead back to the backbone, as proline's does
        backbone = np.array([canonical(a) in BACKBONE for a in atoms])
        found = contracted(owner, bonds[backbone[bonds].all(axis=1)])
    else:
        sulfur = np.array([a.element is not None and a.element.symbol == "S" for a in atoms])
        residue = np.array([a.residue.index for a in atoms])
        i, j = bonds.T
        bridge = sulfur[i] & sulfur[j] & (residue[i] != residue[j])
        return contracted(owner, bonds[~bridge] if not recipe.disulfides else bonds)
    bridges = []
    if recipe.disulfides:
        last = {}  # the bead that carries the residue's type: CB, else CA, else its only one
        for k, bead in enumerate(beads):
            if bead.residue not in last or bead.name in ("CB", "CA"):
                last[bead.residue] = k
        bridges = [[last[a], last[b]] for a, b in chains.disulfides.tolist() if {a, b} <= set(last)]
    joined = np.concatenate([found, np.array(bridges, np.int64).reshape(-1, 2)])
    return np.unique(np.sort(joined, axis=1), axis=0)


def _disulfides_told(chains: Chains, recipe: Recipe) -> list[str]:
    if not len(chains.disulfides):
        return []
    listed = ", ".join(
        " - ".join(told(chains.topology.residue(r)) for r in pair)
        for pair in chains.disulfides.tolist()
    )
    what = "bonds of beads" if recipe.disulfides else "no bonds of beads, as asked for"
    return [f"disulfides, {what}: {listed}"]
