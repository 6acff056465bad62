"""OpenMM with bead potentials: its energies are theirs, its steps canonical and continued."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from scipy import stats

from mlff_cli.deploy.beads.openmm import OpenMMReplicas, bead_system
from tests.bead_chains import MASSES, N, PriorAlone, assert_goes_on_exactly, stretched


def replicas(temperatures: tuple[float, ...] = (300.0, 330.0), seed: int = 3) -> OpenMMReplicas:
    return OpenMMReplicas(
        PriorAlone(), MASSES, np.array(temperatures), friction=5.0, timestep=4.0, seed=seed
    )


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_energy_and_forces_are_those_of_the_potential(platform: str) -> None:
    """In kJ/mol and nm, as OpenMM has them."""
    potential, x = PriorAlone(), stretched(1)
    system = bead_system(potential, MASSES)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform)
    )
    context.setPositions(x[0] / 10)
    state = context.getState(energy=True, forces=True)
    energy, forces = potential(torch.from_numpy(x))
    assert state.getPotentialEnergy()._value == pytest.approx(4.184 * float(energy[0]), rel=1e-6)
    np.testing.assert_allclose(
        state.getForces(asNumpy=True)._value, 41.84 * forces[0].numpy(), rtol=1e-5, atol=1e-3
    )
    assert system.getNumParticles() == N


def test_snapshots_are_in_angstrom_and_kilocalories() -> None:
    run, x = replicas(), stretched(2)
    run.start(x)
    found = run.snapshots()
    energy, forces = PriorAlone()(torch.from_numpy(run.positions()))
    np.testing.assert_allclose(found.energy, energy.numpy(), rtol=1e-10)
    np.testing.assert_allclose(found.forces, forces.numpy(), rtol=1e-9, atol=1e-9)
    centre = (run.positions() * MASSES[:, None]).sum(1) / MASSES.sum()
    np.testing.assert_allclose(centre, 0.0, atol=1e-12)
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(run.positions(), axis=1), axis=-1),
        np.linalg.norm(np.diff(x, axis=1), axis=-1),
    )


def test_velocities_are_those_of_the_thermostat() -> None:
    run = replicas(tuple(np.full(30, 350.0)))
    run.start(stretched(30))
    run.step(3)
    heat = run.snapshots().kinetic_temperature
    assert stats.kstest(heat / 350.0 * 3 * N, "chi2", (3 * N,)).pvalue > 1e-3


def test_a_run_goes_on_exactly() -> None:
    assert_goes_on_exactly(replicas)


def test_another_thermostat_rescales_velocities() -> None:
    run = replicas()
    run.start(stretched(2))
    before = run.snapshots().kinetic_temperature
    run.assign(np.array([1200.0, 330.0]))
    np.testing.assert_allclose(run.snapshots().kinetic_temperature / before, [4.0, 1.0])
