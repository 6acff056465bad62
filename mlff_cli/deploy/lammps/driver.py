"""Whole bead models in LAMMPS: `fix external` asks the potential for energy and forces.

    v <- sqrt(c) v + sqrt(1 - c) sqrt(kT/m) xi,   c = exp(-gamma h),  xi ~ N(0, 1)      O
    v <- v + h/2 F(x)/m;   x <- x + h v;   v <- v + h/2 F(x)/m                  LAMMPS' fix nve
    v <- sqrt(c) v + sqrt(1 - c) sqrt(kT/m) xi                                          O

Bussi and Parrinello, Phys. Rev. E 75, 056707 (2007). LAMMPS keeps and moves the beads; the
thermostat acts between its steps, since `fix langevin` has random numbers that no restart brings
back, and here a run goes on exactly.

Beads have the IDs 1 ... n in the order of the potential, and LAMMPS may sort them as it likes:
everything is taken and put by ID. Units `real`: kcal/mol, angstrom, fs, amu.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mlff_cli.core.errors import NumericalError
from mlff_cli.deploy.lammps.library import lammps_errors, open_lammps
from mlff_cli.physics.langevin import ANGSTROM_KCAL, K_B, Potential, forget, warm_up
from mlff_cli.physics.md_schedule import FS
from mlff_cli.physics.replicas import Snapshots

_FIX = "potential"
_SYSTEM = """
units real
atom_style atomic
atom_modify map array
boundary s s s
newton on
region box block -1 1 -1 1 -1 1
create_box {n_types} box
comm_modify cutoff 1.0
thermo 0
"""
_MOTION = f"""
fix {_FIX} all external pf/callback 1 1
fix_modify {_FIX} energy yes
fix motion all nve
"""


class LammpsSystem:
    """Beads in one LAMMPS whose only force is a potential's.

    Args:
        potential: energies (1,) and forces (1, n, 3) of positions (1, n, 3): kcal/mol, angstrom.
        masses: (n,) amu.
        positions: (n, 3) angstrom.
        timestep: fs.
        device: where the potential computes.
        order: in which beads are created; any order gives the same.
    """

    def __init__(
        self,
        potential: Potential,
        masses: np.ndarray,
        positions: np.ndarray,
        *,
        timestep: float = 1.0,
        device: torch.device | str = "cpu",
        order: Sequence[int] | None = None,
    ) -> None:
        self._potential, self._device = potential, device
        self._failure: BaseException | None = None
        n = len(masses)
        kinds, kind = np.unique(np.asarray(masses, dtype=np.float64), return_inverse=True)
        made = np.arange(n) if order is None else np.asarray(order)
        self._lammps = open_lammps()
        with lammps_errors():
            self._lammps.commands_string(_SYSTEM.format(n_types=len(kinds)))
            for number, mass in enumerate(kinds.tolist(), 1):
                self._lammps.command(f"mass {number} {mass!r}")
            self._lammps.command(f"timestep {timestep!r}")
            ids, types = (made + 1).tolist(), (kind[made] + 1).tolist()
            x = positions[made].ravel().tolist()
            self._lammps.create_atoms(n, ids, types, x, shrinkexceed=True)
            self._lammps.commands_string(_MOTION)
            self._lammps.set_fix_external_callback(_FIX, _callback, self)
        self._n, self._moved = n, True

    def positions(self) -> np.ndarray:
        """Positions (n, 3) in angstrom."""
        return self._by_id("x")

    def velocities(self) -> np.ndarray:
        """Velocities (n, 3) in angstrom/ps."""
        return self._by_id("v") * FS

    def forces(self) -> np.ndarray:
        """Forces (n, 3) in kcal/mol/angstrom, as LAMMPS has them."""
        self._settle()
        return self._by_id("f")

    def energy(self) -> float:
        """Potential energy in kcal/mol, as LAMMPS has it."""
        self._settle()
        return float(self._lammps.get_thermo("pe"))

    def place(self, positions: np.ndarray) -> None:
        """Put beads to (n, 3) angstrom."""
        self._put("x", positions)
        self._moved = True

    def push(self, velocities: np.ndarray) -> None:
        """Give beads velocities (n, 3) in angstrom/ps."""
        self._put("v", velocities / FS)

    def step(self) -> None:
        """One step of velocity Verlet.

        Raises:
            NumericalError: LAMMPS stopped, or has lost beads.
        """
        self._run("run 1 post no" if self._moved else "run 1 pre no post no")
        self._moved = False

    def _settle(self) -> None:
        """Let LAMMPS compute where beads were put by hand."""
        if self._moved:
            self._run("run 0 post no")
            self._moved = False

    def _run(self, command: str) -> None:
        with lammps_errors():
            self._lammps.command(command)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _by_id(self, name: str) -> np.ndarray:
        values = np.empty((self._n, 3))
        values[self._rows()] = self._atoms(name)
        return values

    def _put(self, name: str, values: np.ndarray) -> None:
        self._atoms(name)[:] = values[self._rows()]

    def _rows(self) -> np.ndarray:
        rows: np.ndarray = self._atoms("id").astype(np.int64).ravel() - 1
        return rows

    def _atoms(self, name: str) -> np.ndarray:
        values: np.ndarray = self._lammps.numpy.extract_atom(name)[: self._n]
        return values

    def _compute(self, ids: np.ndarray, x: np.ndarray, f: np.ndarray) -> None:
        rows = ids.astype(np.int64).ravel() - 1
        if len(rows) != self._n:
            raise NumericalError(f"LAMMPS has lost beads: {len(rows)} of {self._n} are left")
        placed = np.empty((1, self._n, 3))
        placed[0, rows] = x
        energy, forces = self._potential(torch.from_numpy(placed).to(self._device))
        f[:] = forces[0].detach().to("cpu", torch.float64).numpy()[rows]
        self._lammps.fix_external_set_energy_global(_FIX, float(energy[0].detach()))


def _callback(
    system: LammpsSystem, step: int, n: int, ids: np.ndarray, x: np.ndarray, f: np.ndarray
) -> None:
    """What LAMMPS calls; an error would be lost on the way through C, and is kept for later."""
    try:
        system._compute(ids, x, f)
    except BaseException as error:
        f[:] = 0.0
        system._failure = error


class LammpsReplicas:
    """Replicas that LAMMPS moves one after the other; fulfils `physics.replicas.Replicas`.

    Args:
        potential: see `LammpsSystem`.
        masses: (n,) amu.
        temperatures: (B,) K.
        friction: gamma, 1/ps; 0: no thermostat.
        timestep: h, fs.
        seed: of velocities and noise.
        device: where the potential computes.

    Raises:
        MissingDependencyError: LAMMPS or MPICH is not installed.
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
    ) -> None:
        self._potential, self._device = potential, device
        self._masses = np.asarray(masses, dtype=np.float64)
        self._temperatures = np.array(temperatures, dtype=np.float64)
        self._keep = math.exp(-0.5 * friction * timestep / FS)  # sqrt(c)
        seeds = np.random.SeedSequence(seed).spawn(len(self._temperatures))
        self._noise = [torch.Generator().manual_seed(int(s.generate_state(1)[0])) for s in seeds]
        flat = np.zeros((len(self._masses), 3))
        flat[:, 0] = np.arange(len(flat))
        self._systems = [
            LammpsSystem(potential, self._masses, flat, timestep=timestep, device=device)
            for _ in self._temperatures
        ]

    def start(self, positions: np.ndarray) -> None:
        """See `Replicas`."""
        warm_up(self._potential, torch.from_numpy(positions[:1]).to(self._device))
        for k, system in enumerate(self._systems):
            system.place(positions[k])
            system.push(self._speed(k) * self._normal(k))

    def step(self, n: int) -> None:
        """See `Replicas`."""
        for k, system in enumerate(self._systems):
            for _ in range(n):
                self._heat(k)
                system.step()
                self._heat(k)

    def positions(self) -> np.ndarray:
        """See `Replicas`."""
        return np.stack([system.positions() for system in self._systems])

    def snapshots(self) -> Snapshots:
        """See `Replicas`."""
        forces = np.stack([system.forces() for system in self._systems])
        twice = (self._masses[:, None] * self._velocities() ** 2).sum((1, 2)) / ANGSTROM_KCAL
        return Snapshots(
            self.positions(),
            forces,
            np.array([system.energy() for system in self._systems]),
            twice / (3 * len(self._masses) * K_B),
        )

    def assign(self, temperatures: np.ndarray) -> None:
        """See `Replicas`."""
        for k, system in enumerate(self._systems):
            ratio = math.sqrt(temperatures[k] / self._temperatures[k])
            if ratio != 1.0:
                system.push(system.velocities() * ratio)
        self._temperatures = np.array(temperatures, dtype=np.float64)

    def settle(self) -> None:
        """See `Replicas`."""
        for system in self._systems:
            x = system.positions()
            system.place(x - self._masses @ x / self._masses.sum())
        forget(self._potential)

    def state(self) -> dict[str, np.ndarray]:
        """See `Replicas`."""
        return {
            "x": self.positions(),
            "v": self._velocities(),
            "temperatures": self._temperatures.copy(),
            "noise": np.stack([g.get_state().numpy().copy() for g in self._noise]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """See `Replicas`."""
        self._temperatures = np.array(state["temperatures"])
        for k, system in enumerate(self._systems):
            system.place(state["x"][k])
            system.push(state["v"][k])
            self._noise[k].set_state(torch.from_numpy(state["noise"][k].copy()))
        warm_up(self._potential, torch.from_numpy(self.positions()[:1]).to(self._device))

    def _velocities(self) -> np.ndarray:
        return np.stack([system.velocities() for system in self._systems])

    def _heat(self, k: int) -> None:
        """O of replica k."""
        if self._keep < 1.0:
            heat = math.sqrt(1.0 - self._keep**2) * self._speed(k)
            system = self._systems[k]
            system.push(self._keep * system.velocities() + heat * self._normal(k))

    def _speed(self, k: int) -> np.ndarray:
        """sqrt(kT/m) (n, 1) in angstrom/ps."""
        speed: np.ndarray = np.sqrt(K_B * self._temperatures[k] * ANGSTROM_KCAL / self._masses)
        return speed[:, None]

    def _normal(self, k: int) -> np.ndarray:
        shape = (len(self._masses), 3)
        drawn: Any = torch.randn(shape, generator=self._noise[k], dtype=torch.float64)
        values: np.ndarray = drawn.numpy()
        return values
