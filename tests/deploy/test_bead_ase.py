"""ASE with bead potentials: canonical in a well, its own units, continued exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from scipy import stats

from mlff_cli.core.units import KCAL_MOL
from mlff_cli.deploy.bead_ase import ASEReplicas
from tests.bead_chains import MASSES, N, PriorAlone, assert_goes_on_exactly, stretched


class Calculated(Calculator):
    """A bead potential in eV."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.potential = PriorAlone()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, list(properties), list(system_changes))
        energy, forces = self.potential(torch.from_numpy(self.atoms.positions[None].copy()))
        self.results = {
            "energy": float(energy[0]) * KCAL_MOL,
            "forces": forces[0].numpy() * KCAL_MOL,
        }


def replicas(
    temperatures: Sequence[float] = (300.0, 330.0), calculator: Any = None, friction: float = 5.0
) -> ASEReplicas:
    return ASEReplicas(
        calculator or Calculated(), MASSES, np.array(temperatures),
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

    class Free(Calculated):
        def calculate(self, atoms: Any = None, *_: Any) -> None:
            self.atoms = atoms.copy()
            self.results = {"energy": 0.0, "forces": np.zeros((N, 3))}

    run = replicas((300.0,), Free(), friction=1e-9)
    run.start(stretched(1))
    before, kinetic = run.positions(), run.snapshots().kinetic_temperature[0]
    run.step(50)  # 0.2 ps
    v = (run.positions() - before) / 0.2
    moved = (MASSES[:, None] * v**2).sum() / 418.4 / (3 * N * 0.0019872042586)
    np.testing.assert_allclose(moved, kinetic, rtol=1e-5)


def test_a_run_goes_on_exactly() -> None:
    assert_goes_on_exactly(replicas)
