"""Langevin dynamics of many replicas at once, as torch.

    v <- v + h F(x)/m                                   B
    x <- x + h/2 v                                      A
    v <- exp(-gamma h) v + sqrt((1 - exp(-2 gamma h)) kT/m) xi,  xi ~ N(0, 1)      O
    x <- x + h/2 v                                      A

BAOAB in its leap-frog form: the middle scheme of Zhang et al., J. Phys. Chem. A 123, 6056 (2019),
which OpenMM's LangevinMiddleIntegrator is. In a harmonic well positions have exactly the canonical
distribution, and so have the velocities, which are those of half a step before the positions. With
gamma = 0 it is the leap-frog scheme.

Nothing here knows what the particles are: any function of positions that returns energies and
forces will do, replicas have their own kT, and units are the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mlff_cli.core.units import KJ_PER_KCAL
from mlff_cli.physics.drawn_velocities import AHEAD, half_a_step_behind
from mlff_cli.physics.md_schedule import FS
from mlff_cli.physics.replica_exchange import K_B as K_B_KJ
from mlff_cli.physics.replicas import Snapshots

K_B = K_B_KJ / KJ_PER_KCAL  # kcal/mol/K
ANGSTROM_KCAL = 100.0 * KJ_PER_KCAL  # (kcal/mol/angstrom)/amu in angstrom/ps^2
NM_KJ = 1.0  # (kJ/mol/nm)/amu in nm/ps^2
_KEPT = ("x", "v", "forces", "energy")  # of a state
WARM_UP = 3  # calls until TorchScript computes a potential as it always will


class Potential(Protocol):
    """Energies and forces of configurations."""

    def __call__(self, positions: Tensor, /) -> tuple[Tensor, Tensor]:
        """Energies (B,) and forces (B, N, 3) of positions (B, N, 3)."""


def warm_up(potential: Potential, positions: Tensor) -> None:
    """Compute until the potential does so as it always will, and forget what it kept."""
    for _ in range(WARM_UP):
        potential(positions.detach())
    forget(potential)


def forget(potential: Potential) -> None:
    """Let a potential forget what it keeps between calls, as a list of neighbours."""
    if (settle := getattr(potential, "settle", None)) is not None:
        settle()


class Langevin:
    """B replicas of N particles, each with its own thermostat; fulfils `physics.replicas.Replicas`.

    Random numbers are drawn in the order of the steps: going on from `state` gives the same bits
    as never having stopped. A potential that keeps something between calls, such as a list of
    neighbours, has a method `settle` that forgets it.

    Args:
        potential: energies and forces.
        masses: (N,) amu, above zero.
        temperatures: (B,) K.
        friction: gamma, 1/ps; 0: no thermostat.
        timestep: h, fs.
        seed: of velocities and noise.
        k_B: in the energy unit over K.
        scale: what one unit of energy/length/amu is in length/ps^2.
        device: where replicas live.
        dtype: of positions and velocities.
        recentre: whether `settle` puts centres of mass back to the origin, so that replicas do not
            diffuse to where a potential in single precision is coarse.

    Attributes:
        x: positions (B, N, 3).
        v: velocities (B, N, 3) in length/ps.
        forces: (B, N, 3) at x.
        energy: (B,) at x.
    """

    x: Tensor
    v: Tensor
    forces: Tensor
    energy: Tensor

    def __init__(
        self,
        potential: Potential,
        masses: np.ndarray,
        temperatures: np.ndarray,
        *,
        friction: float,
        timestep: float,
        seed: int,
        k_B: float = K_B,  # noqa: N803 -- the symbol
        scale: float = ANGSTROM_KCAL,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        recentre: bool = False,
    ) -> None:
        self.potential, self._recentre = potential, recentre
        self._device, self._dtype, self._k_B, self._scale = torch.device(device), dtype, k_B, scale
        self._h = timestep / FS  # ps
        self._decay = math.exp(-friction * self._h)
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._mass = self._tensor(masses)[:, None]  # [N, 1]
        self._kick = self._h * scale / self._mass
        self.temperatures = np.array(temperatures, dtype=np.float64)
        self._sigma = self._thermal_speed()

    def _tensor(self, values: np.ndarray | Tensor) -> Tensor:
        return torch.as_tensor(values, dtype=self._dtype, device=self._device)

    def _thermal_speed(self) -> Tensor:
        """sqrt(kT/m) [B, N, 1]."""
        kT = self._tensor(self._k_B * self.temperatures)[:, None, None]  # noqa: N806
        return (kT * self._scale / self._mass).sqrt()

    def start(self, positions: np.ndarray | Tensor) -> None:
        """Begin at positions (B, N, 3), with velocities of the temperatures."""
        self.x = self._tensor(positions).clone()
        self.v = self._thermal_speed() * self._noise()
        warm_up(self.potential, self.x)
        self._compute()

    def _noise(self) -> Tensor:
        """Normal xi [B, N, 3] in single precision, which is three times as fast."""
        drawn = torch.empty(self.x.shape, dtype=torch.float32, device=self._device)
        return drawn.normal_(generator=self._generator).to(self._dtype)

    def _compute(self) -> None:
        energy, forces = self.potential(self.x.detach())  # it may mark its input
        self.energy, self.forces = energy.detach(), forces.detach().to(self._dtype)

    def step(self, n: int = 1) -> None:
        """Go on by n steps."""
        heat = math.sqrt(1.0 - self._decay**2) * self._sigma
        for _ in range(n):
            self.v.addcmul_(self.forces, self._kick)
            self.x.add_(self.v, alpha=0.5 * self._h)
            if self._decay < 1.0:
                self.v.mul_(self._decay).addcmul_(self._noise(), heat)
            self.x.add_(self.v, alpha=0.5 * self._h)
            self._compute()

    def positions(self) -> np.ndarray:
        """Positions (B, N, 3) now."""
        return self.x.cpu().double().numpy().copy()

    def kinetic_temperature(self) -> Tensor:
        """2 E_kin / (3 N k_B) of every replica, (B,) K."""
        twice = (self._mass * self.v.square()).sum((1, 2)) / self._scale
        return twice / (3 * len(self._mass) * self._k_B)

    def snapshots(self) -> Snapshots:
        """See `Replicas`."""
        arrays = (self.x, self.forces, self.energy, self.kinetic_temperature())
        return Snapshots(*(values.cpu().double().numpy().copy() for values in arrays))

    def assign(self, temperatures: np.ndarray) -> None:
        """See `Replicas`."""
        ratio = self._tensor(np.sqrt(temperatures / self.temperatures))
        self.v.mul_(ratio[:, None, None])
        self.temperatures = np.array(temperatures, dtype=np.float64)
        self._sigma = self._thermal_speed()

    def place(self, rows: np.ndarray, positions: np.ndarray) -> None:
        """Put replicas (b,) to positions (b, N, 3), with new velocities of their temperatures."""
        which = torch.as_tensor(rows, device=self._device)
        self.x[which] = x = self._tensor(positions)
        drawn = (self._sigma * self._noise())[which]
        self.x[which] += AHEAD * self._h * drawn
        self._compute()
        ahead = self.forces[which]
        self.x[which] = x
        self._compute()
        self.v[which] = half_a_step_behind(drawn, ahead, self.forces[which], self._kick)

    def settle(self) -> None:
        """See `Replicas`."""
        if self._recentre:
            self.x.sub_((self._mass * self.x).sum(1, keepdim=True) / self._mass.sum())
        forget(self.potential)

    def state(self) -> dict[str, np.ndarray]:
        """See `Replicas`."""
        return {
            **{name: getattr(self, name).cpu().numpy().copy() for name in _KEPT},
            "temperatures": self.temperatures.copy(),
            "generator": self._generator.get_state().numpy().copy(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """See `Replicas`."""
        for name in _KEPT:
            setattr(self, name, torch.tensor(state[name], device=self._device))
        self.temperatures = np.array(state["temperatures"])
        self._sigma = self._thermal_speed()
        self._generator.set_state(torch.from_numpy(state["generator"].copy()))
        warm_up(self.potential, self.x)
