"""Hydrogens that were added: no mirror images, and names by places, whatever the seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
from openmm import app, unit

from mlff_cli.data.trajectories.peptide import build_peptide
from mlff_cli.physics.added_hydrogens import corrected
from mlff_cli.physics.handedness import mirrored_residues
from mlff_cli.physics.openmm_structures import Molecule, chain_molecule
from mlff_cli.physics.openmm_system import Simulated, build_system
from mlff_cli.physics.stereocentres import crowded_atoms, hands

FORCEFIELD = ("amber14-all.xml", "implicit/obc2.xml")


def built(sequence: str, seed: int) -> Simulated:
    p = build_peptide(sequence, seed)
    chain = chain_molecule(p.residues, p.names, p.numbers, p.residue, p.bonds, p.positions)
    return build_system(chain, FORCEFIELD, seed=seed)


def label(made: Simulated, residue: int, heavier: str, centre: str) -> str:
    """R or S of an atom, one of whose hydrogens is deuterium."""
    from rdkit import Chem

    molecule = Chem.RWMol()
    conformer = Chem.Conformer(len(made.positions))
    atoms = list(made.topology.atoms())
    for atom, place in zip(atoms, made.positions.tolist(), strict=True):
        one = Chem.Atom(atom.element.atomic_number)
        one.SetNoImplicit(True)
        one.SetIsotope(2 if (atom.residue.index, atom.name) == (residue, heavier) else 0)
        molecule.AddAtom(one)
        conformer.SetAtomPosition(atom.index, [10 * v for v in place])
    for i, j in made.bonds.tolist():
        molecule.AddBond(i, j, Chem.BondType.SINGLE)
    molecule.AddConformer(conformer)
    Chem.SanitizeMol(molecule, Chem.SANITIZE_FINDRADICALS)
    Chem.AssignStereochemistryFrom3D(molecule)
    (at,) = (a.index for a in atoms if (a.residue.index, a.name) == (residue, centre))
    return str(molecule.GetAtomWithIdx(at).GetProp("_CIPCode"))


@pytest.mark.parametrize(
    ("sequence", "centre", "hydrogen", "wanted"),
    [
        ("ACE-GLY-NME", "CA", "HA2", "R"),
        ("ACE-SER-NME", "CB", "HB2", "S"),
        ("ACE-LEU-NME", "CB", "HB2", "R"),
    ],
)
def test_hydrogens_have_the_names_of_their_places(
    sequence: str, centre: str, hydrogen: str, wanted: str
) -> None:
    """Pro-R and pro-S as Markley et al. list them, Pure Appl. Chem. 70, 117 (1998)."""
    for seed in range(3):
        assert label(built(sequence, seed), 1, hydrogen, centre) == wanted


@pytest.mark.parametrize("sequence", ["ACE-ALA-NME", "GSLVPKRNQWF", "ACE-GLU-MET-ILE-NH2"])
def test_every_seed_makes_the_same_molecule(sequence: str) -> None:
    """Hands of all atoms with four neighbours, and sides of planar NH2."""
    found = []
    for seed in range(4):
        made = built(sequence, seed)
        found.append(hands(made.positions[None], crowded_atoms(made.bonds))[0])
        x = {(a.residue.name, a.name): made.positions[a.index] for a in made.topology.atoms()}
        for residue, other, pair in (("ASN", "CB", "HD2"), ("GLN", "CG", "HE2")):
            if (residue, other) in x:
                near, far = (
                    np.linalg.norm(x[residue, f"{pair}{k}"] - x[residue, other]) for k in (1, 2)
                )
                assert near < far
    np.testing.assert_array_equal(found, np.tile(found[0], (4, 1)))


@pytest.mark.parametrize("seed", [1, 6])
def test_minimising_leaves_every_residue_its_hand(seed: int) -> None:
    """With these seeds OpenMM puts HA among the other neighbours of CA; it became D then."""
    made = built("ACE-GLU-MET-ILE-NH2", seed)
    context = openmm.Context(
        made.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(made.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 1.0)
    x = context.getState(positions=True).getPositions(asNumpy=True)._value
    assert mirrored_residues(made) == []
    assert mirrored_residues(dataclasses.replace(made, positions=x)) == []
    centres = crowded_atoms(made.bonds)
    np.testing.assert_array_equal(
        hands(x[None], centres), hands(built("ACE-GLU-MET-ILE-NH2", 0).positions[None], centres)
    )


def test_hydrogens_of_a_file_stay_as_they_are() -> None:
    made = built("ACE-ALA-NME", 0)
    x = made.positions.copy()
    names = [(a.residue.name, a.name) for a in made.topology.atoms()]
    two = [names.index(("ALA", "HB2")), names.index(("ALA", "HB3"))]
    x[two] = x[two[::-1]]
    again = build_system(Molecule(made.topology, x), FORCEFIELD, seed=1)
    np.testing.assert_array_equal(again.positions, x)

    modeller = app.Modeller(made.topology, x * unit.nanometer)
    modeller.delete([a for a in made.topology.atoms() if a.name in ("H", "HA")])
    rest = np.asarray(modeller.positions.value_in_unit(unit.nanometer))
    again = build_system(Molecule(modeller.topology, rest), FORCEFIELD, seed=1)
    placed = {(a.residue.name, a.name): again.positions[a.index] for a in again.topology.atoms()}
    assert again.hydrogens_added > 0
    np.testing.assert_allclose([placed[names[k]] for k in two], x[two], atol=1e-6)


def test_atoms_whose_bonds_a_box_has_cut_are_left_alone() -> None:
    made = built("ACE-ALA-NME", 0)
    x = made.positions.copy()
    names = [(a.residue.name, a.name) for a in made.topology.atoms()]
    x[names.index(("ALA", "CA"))] += [3.0, 0.0, 0.0]
    np.testing.assert_array_equal(corrected(made.topology, x, range(len(x))), x)
