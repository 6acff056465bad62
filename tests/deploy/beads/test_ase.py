"""ASE with bead potentials: canonical in a well, its own units, continued exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from mlff_cli.deploy.beads.ase import ASEReplicas, PotentialCalculator
from tests.bead_chains import MASSES, N, PriorAlone, assert_goes_on_exactly, stretched


def replicas(
    temperatures: Sequence[float] = (300.0, 330.0), calculator: Any = None, friction: float = 5.0
) -> ASEReplicas:
    return ASEReplicas(
        calculator or PotentialCalculator(PriorAlone()), MASSES, np.array(temperatures),
        friction=friction, timestep=4.0, seed=3,
    )  # fmt: skip


def test_snapshots_are_in_kilocalories_and_temperatures_right() -> None:
    run = replicas(np.full(30, 350.0))
    run.start(stretched(30))
    found = run.snapshots()
    energy, forces = PriorAlone()(torch.from_numpy(run.positions()))
    np.testing.assert_allclose(found.energy, energy.numpy(), rtol=1e-10)
    np.testing.assert_allclose(found.forces, forces.numpy(), rtol=1e-9, atol=1e-9)
    heat = found.kinetic_temperature
    assert stats.kstest(heat / 350.0 * 3 * N, "chi2", (3 * N,)).pvalue > 1e-3
    run.assign(np.full(30, 87.5))
    np.testing.assert_allclose(run.snapshots().kinetic_temperature, heat / 4)


def test_a_free_particle_flies_at_its_speed() -> None:
    """In angstrom/ps: v = sqrt(2 E_kin/m), with 418.4 angstrom^2/ps^2 for 1 kcal/mol/amu."""

    def free(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.new_zeros(len(x)), torch.zeros_like(x)

    run = replicas((300.0,), PotentialCalculator(free), friction=1e-9)
    run.start(stretched(1))
    before, kinetic = run.positions(), run.snapshots().kinetic_temperature[0]
    run.step(50)  # 0.2 ps
    v = (run.positions() - before) / 0.2
    moved = (MASSES[:, None] * v**2).sum() / 418.4 / (3 * N * 0.0019872042586)
    np.testing.assert_allclose(moved, kinetic, rtol=1e-5)


def test_a_run_goes_on_exactly() -> None:
    assert_goes_on_exactly(replicas)
