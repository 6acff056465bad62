"""What an engine of dynamics can do with its replicas, whichever program moves them.

A replica is one copy of the system with its own thermostat. All are moved alike, so that what
looks at them (`sampling.bead_dynamics`) knows one loop for every engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Snapshots:
    """B replicas of N particles at one moment, in the units of their engine.

    Attributes:
        positions: (B, N, 3) float64.
        forces: (B, N, 3) of the potential energy.
        energy: (B,) potential energy, float64.
        kinetic_temperature: (B,) 2 E_kin / (3 N k_B), K.
    """

    positions: np.ndarray
    forces: np.ndarray
    energy: np.ndarray
    kinetic_temperature: np.ndarray


class Replicas(Protocol):
    """B replicas of one system."""

    def start(self, positions: np.ndarray) -> None:
        """Begin at positions (B, N, 3), with velocities of the thermostats' temperatures."""

    def step(self, n: int) -> None:
        """Go on by n steps.

        Raises:
            NumericalError: the engine itself gives up.
        """

    def positions(self) -> np.ndarray:
        """Positions (B, N, 3) now, finite or not."""

    def snapshots(self) -> Snapshots:
        """Everything that is written of a frame."""

    def assign(self, temperatures: np.ndarray) -> None:
        """Set thermostats to (B,) K; velocities change by sqrt(T_new / T_old)."""

    def settle(self) -> None:
        """Forget what is no part of the state, and put centres of mass back to the origin.

        What follows depends on `state` alone, so that a run that goes on from there does what one
        that was never interrupted did.
        """

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on; only right after `settle`."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `state` gave."""
