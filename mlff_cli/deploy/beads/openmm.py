"""Bead potentials in OpenMM: a System whose only force is a `PythonForce`, and replicas of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import openmm
import torch

from mlff_cli.core.units import KJ_PER_KCAL
from mlff_cli.physics.langevin import Potential, forget, warm_up
from mlff_cli.physics.molecular_dynamics import Engine, Replica, choose_engine
from mlff_cli.physics.replicas import Snapshots

NM = 0.1  # per angstrom
PLATFORM = "CPU"  # not Reference: all its contexts share one stream of random numbers


def bead_force(potential: Potential, device: torch.device | str = "cpu") -> openmm.PythonForce:
    """A potential of positions (1, n, 3) in angstrom and kcal/mol as a force of OpenMM.

    Energy and forces are OpenMM's: kJ/mol, kJ/mol/nm. Systems with it cannot be serialized: keep
    the artifact and make it again.
    """
    return openmm.PythonForce(_computation(potential, device))


def bead_system(
    potential: Potential, masses: np.ndarray, device: torch.device | str = "cpu"
) -> openmm.System:
    """An OpenMM System of beads.

    Args:
        potential: energies (B,) and forces (B, n, 3) of positions (B, n, 3): kcal/mol, angstrom.
        masses: (n,) amu.
        device: where the potential computes.
    """
    system = openmm.System()
    for mass in masses.tolist():
        system.addParticle(mass)
    system.addForce(bead_force(potential, device))
    return system


def _computation(
    potential: Potential, device: torch.device | str
) -> Callable[[openmm.State], tuple[float, np.ndarray]]:
    def compute(state: openmm.State) -> tuple[float, np.ndarray]:
        x = np.asarray(state.getPositions(asNumpy=True)._value) / NM
        energy, forces = potential(torch.from_numpy(x[None]).to(device))
        newton = forces[0].detach().to("cpu", torch.float64).numpy() * (KJ_PER_KCAL / NM)
        return float(energy[0].detach()) * KJ_PER_KCAL, newton

    return compute


class OpenMMReplicas:
    """Replicas that OpenMM moves one after the other; fulfils `physics.replicas.Replicas`.

    Args:
        potential: see `bead_system`.
        masses: (n,) amu.
        temperatures: (B,) K.
        friction: 1/ps.
        timestep: fs.
        seed: of velocities and noise.
        device: where the potential computes.
        engine: where OpenMM computes; None: `PLATFORM`.
    """

    def __init__(
        self,
        potential: Potential,
        masses: np.ndarray,
        temperatures: np.ndarray,
        *,
        friction: float,
        timestep: float,
        seed: int,
        device: torch.device | str = "cpu",
        engine: Engine | None = None,
    ) -> None:
        engine = engine or choose_engine(PLATFORM)
        self._potential, self._device = potential, device
        system = bead_system(potential, masses, device)
        self._replicas = [
            Replica(
                engine,
                system,
                float(temperature),
                friction=friction,
                timestep=timestep,
                seed=seed,
                index=index,
            )
            for index, temperature in enumerate(temperatures)
        ]

    def start(self, positions: np.ndarray) -> None:
        """See `Replicas`."""
        warm_up(self._potential, torch.from_numpy(positions[:1]).to(self._device))
        for replica, x in zip(self._replicas, positions, strict=True):
            replica.start(x * NM)

    def step(self, n: int) -> None:
        """See `Replicas`."""
        for replica in self._replicas:
            replica.step(n)

    def positions(self) -> np.ndarray:
        """See `Replicas`."""
        return np.stack([replica.positions() for replica in self._replicas]) / NM

    def snapshots(self) -> Snapshots:
        """See `Replicas`."""
        shots = [replica.snapshot() for replica in self._replicas]
        heat = [r.kinetic_temperature(s) for r, s in zip(self._replicas, shots, strict=True)]
        return Snapshots(
            np.stack([s.positions for s in shots]) / NM,
            np.stack([s.forces for s in shots]) * (NM / KJ_PER_KCAL),
            np.array([s.energy for s in shots]) / KJ_PER_KCAL,
            np.array(heat),
        )

    def assign(self, temperatures: np.ndarray) -> None:
        """See `Replicas`."""
        for replica, temperature in zip(self._replicas, temperatures, strict=True):
            replica.move_to(float(temperature))

    def settle(self) -> None:
        """See `Replicas`."""
        for replica in self._replicas:
            replica.settle()
        forget(self._potential)

    def state(self) -> dict[str, np.ndarray]:
        """See `Replicas`."""
        return {
            "temperatures": np.array([r.temperature for r in self._replicas]),
            **{
                f"checkpoint_{k}": np.frombuffer(r.checkpoint(), dtype="uint8")
                for k, r in enumerate(self._replicas)
            },
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """See `Replicas`."""
        for k, replica in enumerate(self._replicas):
            replica.restore(state[f"checkpoint_{k}"].tobytes(), float(state["temperatures"][k]))
        warm_up(self._potential, torch.from_numpy(self.positions()[:1]).to(self._device))
