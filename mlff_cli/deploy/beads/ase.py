"""Replicas of bead chains that ASE moves, with its own Langevin integrator.

For comparison and for ASE's users: one chain at a time, a few beads cost as much as a few atoms.
ASE's integrator (Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310, 2006, eq. 23) is of
second order in the time step also for positions in a harmonic well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin

from mlff_cli.core.units import KCAL_MOL
from mlff_cli.physics.langevin import Potential, forget, warm_up
from mlff_cli.physics.replicas import Snapshots

PS = 1000.0 * units.fs  # of ASE's time unit
BEAD = "X"  # chemical symbol: beads are no elements


class PotentialCalculator(Calculator):  # type: ignore[misc]
    """Any bead potential as a calculator of ASE, eV and angstrom; atoms are its beads in order.

    Args:
        potential: energies (B,) and forces (B, n, 3) of positions (B, n, 3), kcal/mol, angstrom.
        device: where it computes.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, potential: Potential, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self._potential, self._device, self._warm = potential, device, False

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute energy and forces."""
        super().calculate(atoms, list(properties), list(system_changes))
        x = torch.from_numpy(self.atoms.get_positions()[None]).to(self._device)
        if not self._warm:
            warm_up(self._potential, x)
            self._warm = True
        energy, forces = self._potential(x)
        self.results = {
            "energy": float(energy[0].detach()) * KCAL_MOL,
            "forces": forces[0].detach().cpu().double().numpy() * KCAL_MOL,
        }

    def reset(self) -> None:
        """Forget results, and what the potential keeps between calls."""
        super().reset()
        forget(self._potential)


class ASEReplicas:
    """Replicas that ASE moves one after the other; fulfils `physics.replicas.Replicas`.

    Args:
        calculator: of ASE, energy in eV and forces in eV/angstrom; all replicas share it.
        masses: (n,) amu.
        temperatures: (B,) K.
        friction: 1/ps.
        timestep: fs.
        seed: of velocities and noise; every replica has its own stream.
    """

    def __init__(
        self,
        calculator: Calculator,
        masses: np.ndarray,
        temperatures: np.ndarray,
        *,
        friction: float,
        timestep: float,
        seed: int,
    ) -> None:
        self._temperatures = np.array(temperatures, dtype=np.float64)
        streams = np.random.SeedSequence([seed, 0]).spawn(len(temperatures))
        self._random = [np.random.Generator(np.random.PCG64(stream)) for stream in streams]
        self._atoms = [
            Atoms([BEAD] * len(masses), np.zeros((len(masses), 3)), masses=masses)
            for _ in temperatures
        ]
        for atoms in self._atoms:
            atoms.calc = calculator
        self._moves = [
            Langevin(
                atoms,
                timestep * units.fs,
                temperature_K=temperature,
                friction=friction / PS,
                fixcm=False,
                rng=random,
            )
            for atoms, temperature, random in zip(
                self._atoms, self._temperatures, self._random, strict=True
            )
        ]

    def start(self, positions: np.ndarray) -> None:
        """See `Replicas`."""
        kT = units.kB * self._temperatures  # noqa: N806
        for atoms, x, energy, random in zip(self._atoms, positions, kT, self._random, strict=True):
            atoms.positions = x
            speed = np.sqrt(energy / atoms.get_masses())[:, None]
            atoms.set_velocities(speed * random.standard_normal(x.shape))

    def step(self, n: int) -> None:
        """See `Replicas`."""
        for move in self._moves:
            forces = None
            for _ in range(n):
                forces = move.step(forces)

    def positions(self) -> np.ndarray:
        """See `Replicas`."""
        return np.stack([atoms.get_positions() for atoms in self._atoms])

    def snapshots(self) -> Snapshots:
        """See `Replicas`."""
        forces, energy, heat = [], [], []
        for atoms in self._atoms:  # the calculator keeps what it computed last
            forces.append(atoms.get_forces() / KCAL_MOL)
            energy.append(atoms.get_potential_energy() / KCAL_MOL)
            heat.append(2 * atoms.get_kinetic_energy() / (3 * len(atoms) * units.kB))
        return Snapshots(self.positions(), np.stack(forces), np.array(energy), np.array(heat))

    def assign(self, temperatures: np.ndarray) -> None:
        """See `Replicas`."""
        for atoms, move, old, new in zip(
            self._atoms, self._moves, self._temperatures, temperatures, strict=True
        ):
            if new != old:
                atoms.set_velocities(atoms.get_velocities() * np.sqrt(new / old))
                move.set_temperature(temperature_K=new)
        self._temperatures = np.array(temperatures, dtype=np.float64)

    def settle(self) -> None:
        """See `Replicas`."""
        for atoms in self._atoms:
            atoms.positions -= atoms.get_center_of_mass()
            atoms.calc.reset()

    def state(self) -> dict[str, np.ndarray]:
        """See `Replicas`."""
        told = json.dumps([random.bit_generator.state for random in self._random])
        return {
            "x": self.positions(),
            "momenta": np.stack([atoms.get_momenta() for atoms in self._atoms]),
            "temperatures": self._temperatures.copy(),
            "random": np.array(told),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """See `Replicas`."""
        streams = json.loads(str(state["random"]))
        self._temperatures = np.array(state["temperatures"])
        for k, (atoms, move) in enumerate(zip(self._atoms, self._moves, strict=True)):
            atoms.positions = state["x"][k]
            atoms.set_momenta(state["momenta"][k])
            move.set_temperature(temperature_K=self._temperatures[k])
            self._random[k].bit_generator.state = streams[k]
            atoms.calc.reset()
