"""The ASE calculator: the artifact's numbers, in ASE's words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.fd import calculate_numerical_forces
from ase.optimize import BFGS

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.deploy import MLFFCalculator
from mlff_cli.deploy.artifact import write_artifact
from mlff_cli.physics.dispersion_parameters import functional_parameters
from tests.tiny import SPECIES, tiny_potential

PBE = functional_parameters("pbe")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calculator") / "model_fid0.jpt"
    write_artifact(tiny_potential(PBE), path, {"species": list(SPECIES)}, parameters=PBE)
    return path


@pytest.fixture
def atoms(artifact: Path) -> Atoms:
    found = molecule("CH3CONH2")
    found.rattle(0.05, seed=1)
    found.calc = MLFFCalculator(artifact)
    return found


def test_results_are_the_potentials(atoms: Atoms) -> None:
    data = {
        "coord": torch.tensor(atoms.positions)[None],
        "numbers": torch.tensor(atoms.numbers)[None],
    }
    out = tiny_potential(PBE)(data)
    assert atoms.get_potential_energy() == pytest.approx(out["energy"].item(), rel=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), out["forces"][0], atol=1e-10)
    np.testing.assert_allclose(atoms.get_charges(), out["charges"][0], atol=1e-10)
    np.testing.assert_allclose(atoms.get_magnetic_moments(), out["spin_charges"][0], atol=1e-10)


def test_forces_are_numerical_forces(atoms: Atoms) -> None:
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 4])
    np.testing.assert_allclose(atoms.get_forces()[[0, 4]], numerical, atol=1e-5)


def test_info_is_charge_and_mult_and_a_change_counts(atoms: Atoms) -> None:
    neutral = atoms.get_potential_energy()
    atoms.info["charge"] = 1
    atoms.info["mult"] = 2
    cation = atoms.get_potential_energy()
    assert cation != neutral
    assert atoms.get_charges().sum() == pytest.approx(1.0, abs=1e-4)
    atoms.info.clear()
    assert atoms.get_potential_energy() == neutral


def test_arguments_win_over_info(artifact: Path, atoms: Atoms) -> None:
    atoms.info["charge"] = -1
    atoms.calc = MLFFCalculator(artifact, charge=1, mult=2)
    assert atoms.get_charges().sum() == pytest.approx(1.0, abs=1e-4)


def test_it_optimises(atoms: Atoms) -> None:
    start = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.5, steps=5)
    assert atoms.get_potential_energy() < start


def test_periodic_systems_are_refused(atoms: Atoms) -> None:
    atoms.set_cell([9, 9, 9])
    atoms.pbc = True
    with pytest.raises(UsageError, match="vacuum"):
        atoms.get_potential_energy()


def test_unknown_elements_are_named(artifact: Path) -> None:
    atoms = Atoms("HF", [[0, 0, 0], [0, 0, 0.9]], calculator=MLFFCalculator(artifact))
    with pytest.raises(UsageError, match="Z = 9"):
        atoms.get_potential_energy()


@pytest.mark.parametrize("position", [0.0, np.nan])
def test_results_that_are_not_finite_are_an_error(artifact: Path, position: float) -> None:
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, position]], calculator=MLFFCalculator(artifact))
    with pytest.raises(NumericalError, match="not finite"):
        atoms.get_potential_energy()
