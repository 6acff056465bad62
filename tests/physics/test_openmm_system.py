"""Structures become systems: hydrogens, solvent, boxes; random places repeat with their seed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from mlff_cli.core.errors import DataError, StorageError, UsageError
from mlff_cli.data.trajectories.peptide import build_peptide
from mlff_cli.physics.molecular_dynamics import choose_engine
from mlff_cli.physics.openmm_system import (
    Molecule,
    Simulated,
    build_system,
    chain_molecule,
    force_field_names,
    load_force_field,
    minimise,
    read_structure,
    rename_residues,
    topology_pdb,
)

IMPLICIT = ("amber14-all.xml", "implicit/obc2.xml")
EXPLICIT = ("amber14-all.xml", "amber14/tip3pfb.xml")


def peptide(sequence: str = "ACE-GLY-NME") -> Molecule:
    made = build_peptide(sequence)
    return chain_molecule(
        made.residues, made.names, made.numbers, made.residue, made.bonds, made.positions
    )


def forces(system: openmm.System) -> set[str]:
    return {type(force).__name__ for force in system.getForces()}


@pytest.fixture(scope="module")
def lysine() -> Simulated:
    return build_system(peptide("ACE-LYS-NME"), EXPLICIT, seed=3)


def test_the_solvent_follows_from_the_force_field(lysine: Simulated) -> None:
    implicit = build_system(peptide(), IMPLICIT)
    vacuum = build_system(peptide(), IMPLICIT[:1])
    explicit = lysine
    assert [m.solvent for m in (implicit, vacuum, explicit)] == ["implicit", "vacuum", "explicit"]
    assert [m.periodic for m in (implicit, vacuum, explicit)] == [False, False, True]
    assert explicit.waters_added > 100
    assert implicit.waters_added == vacuum.waters_added == 0
    assert "CustomGBForce" in forces(implicit.system)
    assert "CustomGBForce" not in forces(vacuum.system)
    for made in (implicit, vacuum, explicit):
        assert "CMMotionRemover" not in forces(made.system)
        assert made.system.getNumParticles() == len(made.numbers) == len(made.positions)


def test_constraints(lysine: Simulated) -> None:
    """Free: none at all. Rigid: every bond to hydrogen, and the angle of every water."""
    rigid = build_system(lysine, EXPLICIT, constraints="hbonds")
    assert lysine.system.getNumConstraints() == 0
    waters = sum(r.name == "HOH" for r in rigid.topology.residues())
    assert rigid.system.getNumConstraints() == 20 + 3 * waters


def test_a_charged_solute_is_neutralised_and_its_own_box_is_kept(lysine: Simulated) -> None:
    made = lysine
    assert [r.name for r in made.topology.residues() if r.name == "CL"] == ["CL"]
    again = build_system(made, EXPLICIT)
    assert again.waters_added == again.hydrogens_added == 0
    assert again.system.getNumParticles() == made.system.getNumParticles()


def test_the_cell_of_a_crystal_is_not_a_box_of_water() -> None:
    """A CRYST1 record alone must not become vacuum around the protein."""
    molecule = peptide()
    molecule.topology.setPeriodicBoxVectors(np.eye(3) * 4.0 * unit.nanometer)
    assert build_system(molecule, EXPLICIT).waters_added > 100
    assert not build_system(molecule, IMPLICIT).periodic


def test_the_same_seed_places_hydrogens_and_ions_alike(lysine: Simulated) -> None:
    random.seed(1)
    state = random.getstate()
    first, again = lysine, build_system(peptide("ACE-LYS-NME"), EXPLICIT, seed=3)
    other = build_system(peptide("ACE-LYS-NME"), EXPLICIT, seed=4)
    assert random.getstate() == state
    np.testing.assert_array_equal(first.positions, again.positions)
    assert (
        first.positions.shape != other.positions.shape or (first.positions != other.positions).any()
    )


def test_minimisation_lowers_the_energy_and_can_be_stopped() -> None:
    made = build_system(peptide("GYD"), IMPLICIT)
    engine = choose_engine("CPU")
    _, before, after = minimise(made, engine.context(made.system))
    _, start, stopped = minimise(made, engine.context(made.system), lambda: True)
    assert before == start
    assert after < stopped <= before
    assert after < -100


def test_pdb_text_has_no_date_and_keeps_names() -> None:
    made = build_system(peptide("ACE-ALA-NME"), IMPLICIT)
    rename_residues(made.topology, ["ACE", "DAL", "NME"])
    text = topology_pdb(made)
    assert "REMARK" not in text
    assert {line[17:20] for line in text.splitlines() if line[:6] in ("ATOM  ", "HETATM")} == {
        "ACE",
        "DAL",
        "NME",
    }


def test_files_are_read_or_refused(tmp_path: Path) -> None:
    made = build_system(peptide(), IMPLICIT)
    (tmp_path / "a.pdb").write_text(topology_pdb(made))
    found = read_structure(tmp_path / "a.pdb")
    np.testing.assert_allclose(found.positions, made.positions, atol=6e-5)
    with (tmp_path / "a.cif").open("w") as stream:
        app.PDBxFile.writeFile(made.topology, made.positions * unit.nanometer, stream)
    np.testing.assert_allclose(
        read_structure(tmp_path / "a.cif").positions, made.positions, atol=6e-5
    )
    with pytest.raises(StorageError, match="does not exist"):
        read_structure(tmp_path / "none.pdb")
    first = f"{10 * made.positions[0, 0]:8.3f}"
    (tmp_path / "b.pdb").write_text(topology_pdb(made).replace(first, "   x.xxx"))
    with pytest.raises(DataError, match="cannot read it"):
        read_structure(tmp_path / "b.pdb")


def test_force_fields_are_found_or_named(tmp_path: Path) -> None:
    assert {"amber14-all.xml", "implicit/obc2.xml", "charmm36.xml"} <= set(force_field_names())
    with pytest.raises(UsageError, match=r"no file 'implicit/obc.xml'.*\n.*implicit/obc2.xml"):
        load_force_field(("amber14-all.xml", "implicit/obc.xml"))
    (tmp_path / "own.xml").write_text("<ForceField><AtomTypes></ForceField>")
    with pytest.raises(DataError, match="force field cannot be read"):
        load_force_field((str(tmp_path / "own.xml"),))
