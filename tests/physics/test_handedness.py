"""Terms that a mirror changes are found by energies, and D residues with such terms refused."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import unit

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.physics.handedness import (
    mirrored_residues,
    one_handed_residues,
    require_one_hand,
    require_same_hands,
)
from mlff_cli.physics.openmm_structures import Molecule
from mlff_cli.physics.openmm_system import Simulated, build_system
from tests.physics.chains import peptide


def energy(made: Simulated, positions: np.ndarray) -> float:
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(made.system, openmm.VerletIntegrator(0.001), reference)
    context.setPositions(positions)
    return float(context.getState(energy=True).getPotentialEnergy()._value)


def asymmetry(made: Simulated) -> float:
    """U(x) - U(-x) in kJ/mol, away from every minimum."""
    x = made.positions + 0.01 * np.random.default_rng(0).normal(size=made.positions.shape)
    return energy(made, x) - energy(made, -x)


def one_handed(made: Simulated) -> set[int]:
    return one_handed_residues(made.system, [a.residue.index for a in made.topology.atoms()])


@pytest.mark.parametrize(
    ("sequence", "field", "symmetric"),
    [
        ("ACE-ALA-ALA-NME", "amber14-all.xml", True),
        ("ACE-ALA-ALA-NME", "amber99sbildn.xml", True),
        ("ACE-ALA-ALA-NME", "amber19-all.xml", False),
        pytest.param("AAA", "charmm36.xml", False, marks=pytest.mark.slow),  # a large file
        ("ACE-ALA-ALA-NME", "amberfb15.xml", False),  # no CMAP: phases of its torsions
        ("ALA-GLY", "amber19-all.xml", True),  # ends have no map
    ],
)
def test_one_handed_terms_are_found_where_the_mirror_image_has_another_energy(
    sequence: str, field: str, symmetric: bool
) -> None:
    made = build_system(peptide(sequence), (field,))
    assert (abs(asymmetry(made)) < 1e-6) == symmetric
    assert (one_handed(made) == set()) == symmetric
    if not symmetric:
        assert abs(asymmetry(made)) > 0.01


def test_the_mirror_image_of_l_is_d_and_has_its_energy_in_amber14() -> None:
    left = build_system(peptide("ACE-ALA-THR-NME"), ("amber14-all.xml",))
    right = build_system(Molecule(left.topology, -left.positions), ("amber14-all.xml",))
    assert [r.name for r in mirrored_residues(right)] == ["ALA", "THR"]
    assert mirrored_residues(left) == []
    assert energy(right, right.positions) == pytest.approx(energy(left, left.positions), abs=1e-6)


@pytest.mark.parametrize("field", ["amber19-all.xml", "amberfb15.xml"])
def test_d_residues_with_terms_of_l_residues_are_refused(field: str) -> None:
    made = build_system(peptide("ACE-ALA-DAL-GLY-DVA-NME"), (field,))
    told = rf"{field}.*found the D residues ALA 3 \(chain A\), VAL 5 \(chain A\)"
    with pytest.raises(UsageError, match=told) as error:
        require_one_hand(made, (field,), "x.pdb")
    assert error.value.exit_code == 2
    assert error.value.where == "x.pdb"
    assert "amber14" in str(error.value.remedy)


@pytest.mark.parametrize(
    ("sequence", "field"),
    [
        ("ACE-ALA-GLY-NME", "amber19-all.xml"),
        ("ACE-DAL-GLY-NME", "amber14-all.xml"),
        ("DAL-GLY-DAL", "amber19-all.xml"),  # ends without a map
    ],
)
def test_what_a_mirror_does_not_change_is_accepted(sequence: str, field: str) -> None:
    made = build_system(peptide(sequence), (field,))
    require_one_hand(made, (field,), "")


def test_a_residue_cut_by_the_box_keeps_its_hand() -> None:
    molecule = peptide("ACE-ALA-DAL-NME")
    molecule.topology.setPeriodicBoxVectors(np.array([[3, 0, 0], [1, 3, 0], [-1, 1, 3]]) * 1.0)
    box = np.array(molecule.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    for shift in np.linspace(0, 3, 7):
        moved = molecule.positions + shift
        wrapped = moved - np.floor(moved @ np.linalg.inv(box)) @ box
        found = mirrored_residues(Molecule(molecule.topology, wrapped))
        assert [r.index for r in found] == [2]


def test_a_residue_that_became_its_mirror_image_is_refused() -> None:
    made = build_system(peptide("ACE-ALA-THR-NME"), ("amber14-all.xml",))
    require_same_hands(made, made.positions + 0.001, "somewhere")
    with pytest.raises(NumericalError, match=r"mirror images: ALA 2 .*, THR 3 .*") as caught:
        require_same_hands(made, -made.positions, "somewhere")
    assert caught.value.where == "somewhere"
