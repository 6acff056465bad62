"""Structures become systems: hydrogens, solvent, boxes; random places repeat with their seed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.physics.openmm_structures import read_structure
from mlff_cli.physics.openmm_system import (
    Simulated,
    build_system,
    force_field_names,
    load_force_field,
)
from tests.physics.chains import peptide

IMPLICIT = ("amber14-all.xml", "implicit/obc2.xml")
EXPLICIT = ("amber14-all.xml", "amber14/tip3pfb.xml")


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


def test_the_density_is_mass_over_volume(lysine: Simulated) -> None:
    """18.0154 g of water in 18.0154 / 0.602214 nm3 / mol are 1 g/cm3 (N_A = 6.02214e23)."""
    waters = sum(r.name == "HOH" for r in lysine.topology.residues())
    box = lysine.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer)
    volume = box[0][0] * box[1][1] * box[2][2]
    others = 201.27 + 1.008 + 35.45  # C9H19N3O2 with its proton, and chloride
    mass = 18.0154 * waters + others
    assert lysine.density == pytest.approx(mass / volume / 602.214, rel=1e-3)
    assert build_system(peptide(), IMPLICIT).density is None


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


def test_force_fields_are_found_or_named(tmp_path: Path) -> None:
    assert {"amber14-all.xml", "implicit/obc2.xml", "charmm36.xml"} <= set(force_field_names())
    with pytest.raises(UsageError, match=r"no file 'implicit/obc.xml'.*\n.*implicit/obc2.xml"):
        load_force_field(("amber14-all.xml", "implicit/obc.xml"))
    (tmp_path / "own.xml").write_text("<ForceField><AtomTypes></ForceField>")
    with pytest.raises(DataError, match="force field cannot be read"):
        load_force_field((str(tmp_path / "own.xml"),))


FRESH = """
from openmm import app
from mlff_cli.core.residues import D_AMINO_ACIDS, STANDARD
from mlff_cli.physics.openmm_system import build_system
from tests.physics.chains import peptide

assert not app.Topology._standardBonds  # nothing has read a file yet
for sequence in (
    "ACE-HIS-NME",
    "GHG",
    "ACE-DHI-NME",
    "-".join(["ACE", *STANDARD, "NME"]),
    "-".join(["ACE", *D_AMINO_ACIDS, "NH2"]),
    "-".join([*STANDARD]),
    "GLY-NH2",
):
    made = build_system(peptide(sequence), ("amber14-all.xml",))
    assert made.hydrogens_added > made.topology.getNumResidues()
    print(sequence, made.system.getNumParticles())
assert not app.Topology._standardBonds
"""


def test_every_residue_and_cap_is_built_in_a_fresh_process() -> None:
    """OpenMM fills tables when it reads its first file: what is known must not depend on it."""
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == ["ACE-HIS-NME 29", "GHG 34", "ACE-DHI-NME 29"]


def test_a_residue_that_nobody_knows_is_named() -> None:
    molecule = peptide("ACE-ALA-NME")
    list(molecule.topology.residues())[1].name = "XYZ"
    with pytest.raises(DataError, match=r"no template for the residues XYZ 2 \(chain A\)"):
        build_system(molecule, IMPLICIT)


@pytest.mark.parametrize("variant", ["HID", "HIE", "HIP"])
def test_histidine_keeps_the_protons_of_its_file(tmp_path: Path, variant: str) -> None:
    """Whatever the residue is called; where the file has none, the pH decides."""
    bare = peptide("ACE-HIS-NME")
    modeller = app.Modeller(bare.topology, bare.positions * unit.nanometer)
    protein = ("amber14/protein.ff14SB.xml",)
    field = load_force_field(protein)
    modeller.addHydrogens(field, variants=[None, variant, None])
    polar = {"HD1", "HE2"}
    protons = {"HID": {"HD1"}, "HIE": {"HE2"}, "HIP": {"HD1", "HE2"}}

    def built(keep: Callable[[app.Atom], bool], name: str, ph: float = 7.0) -> set[str]:
        part = app.Modeller(modeller.topology, modeller.positions)
        part.delete([a for a in part.topology.atoms() if not keep(a)])
        list(part.topology.residues())[1].name = name
        with (tmp_path / "a.pdb").open("w") as stream:
            app.PDBFile.writeFile(part.topology, part.positions, stream)
        made = build_system(read_structure(tmp_path / "a.pdb"), protein, ph=ph)
        return {a.name for a in list(made.topology.residues())[1].atoms()} & polar

    for name in ("HIS", variant, variant.replace("HI", "HS")):
        assert built(lambda a: True, name) == protons[variant]
    assert built(lambda a: a.element.symbol != "H" or a.name in polar, "HIS") == protons[variant]
    assert built(lambda a: a.element.symbol != "H", variant, ph=4.0) == polar
    assert len(built(lambda a: a.element.symbol != "H", variant, ph=8.0)) == 1
