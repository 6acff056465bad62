"""Peptides for tests of OpenMM's systems."""

from mlff_cli.core.residues import D_AMINO_ACIDS
from mlff_cli.data.trajectories.peptide import build_peptide
from mlff_cli.physics.openmm_structures import Molecule, chain_molecule


def peptide(sequence: str = "ACE-GLY-NME", seed: int = 0) -> Molecule:
    """Its heavy atoms; D residues under the names of their L forms, as templates want them."""
    made = build_peptide(sequence, seed)
    names = [D_AMINO_ACIDS.get(name, name) for name in made.residues]
    return chain_molecule(names, made.names, made.numbers, made.residue, made.bonds, made.positions)
