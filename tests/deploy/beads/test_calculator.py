"""The ASE calculator of beads: units, molecules, and what it refuses."""

import numpy as np
import pytest
import torch
from ase.md.verlet import VelocityVerlet
from ase.units import fs

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.core.units import KCAL_MOL
from mlff_cli.deploy import BeadCalculator, MLFFCalculator
from mlff_cli.deploy.beads.artifact import load_bead_potential, write_bead_artifact
from mlff_cli.potentials.bead_model import BeadModel
from mlff_cli.potentials.prior import Prior
from tests.deploy.beads.cases import topology
from tests.potentials.prior_cases import PRIORS

N = 6


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("calculator") / "prior.jpt"
    write_bead_artifact([BeadModel(None, Prior(PRIORS["parametric"]))], topology(N), path, {})
    return path


def test_it_is_the_potential_in_ev(artifact):
    atoms = BeadCalculator(artifact).molecule()
    x = torch.from_numpy(atoms.positions)[None]
    energy, forces = load_bead_potential(artifact)(x)
    assert atoms.get_potential_energy() == pytest.approx(float(energy[0]) * KCAL_MOL)
    np.testing.assert_allclose(atoms.get_forces(), forces[0].numpy() * KCAL_MOL, rtol=1e-12)
    np.testing.assert_array_equal(atoms.get_masses(), topology(N).masses)


def test_energy_is_conserved(artifact):
    atoms = BeadCalculator(artifact).molecule()
    before = atoms.get_total_energy()
    VelocityVerlet(atoms, 1.0 * fs).run(20)
    moved = abs(atoms.get_kinetic_energy())
    assert moved > 0.0
    assert atoms.get_total_energy() == pytest.approx(before, abs=0.02 * moved)


def test_what_it_cannot_compute_is_refused(artifact):
    atoms = BeadCalculator(artifact).molecule()
    atoms.pbc = True
    with pytest.raises(UsageError, match="without a box"):
        atoms.get_potential_energy()
    atoms.pbc = False
    with pytest.raises(UsageError, match=r"'chain' with 6 beads, found 5 atoms"):
        BeadCalculator(artifact).get_potential_energy(atoms[:5])
    atoms.positions[0] = np.nan
    with pytest.raises(NumericalError, match="not finite"):
        atoms.get_potential_energy()


def test_atoms_and_beads_are_told_apart(artifact):
    with pytest.raises(UsageError, match="BeadCalculator"):
        MLFFCalculator(artifact)
    with pytest.raises(UsageError, match="needs a learnt part"):
        BeadCalculator(artifact, mode="ml")
