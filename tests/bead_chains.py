"""A chain of beads under its prior, and runs of it, for tests of engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from mlff_cli.physics.md_schedule import Schedule
from mlff_cli.physics.replicas import Replicas
from mlff_cli.potentials.prior import Prior
from mlff_cli.sampling.bead_dynamics import BeadDynamics
from mlff_cli.sampling.bead_guard import Guard
from tests.potentials.prior_cases import PARAMETRIC, chain_terms, chain_types

N = 6
MASSES = np.array([110.0, 90.0, 130.0, 57.0, 110.0, 70.0])
TERMS = chain_terms(N)


class PriorAlone:
    """The prior of a chain of N beads as a potential; counts what it is asked."""

    def __init__(self, n: int = N) -> None:
        self._prior = Prior(PARAMETRIC)
        self._bound = self._prior.bind(chain_terms(n), chain_types(n))
        self.calls = self.settled = 0

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        return self._prior.energy_and_forces(positions, self._bound)

    def settle(self) -> None:
        self.settled += 1


def stretched(copies: int, n: int = N, seed: int = 0) -> np.ndarray:
    """Zigzag chains (copies, n, 3) in angstrom, a little apart from each other."""
    x = np.zeros((copies, n, 3))
    x[:, :, 0], x[:, :, 1] = 3.2 * np.arange(n), 2.0 * (np.arange(n) % 2)
    return x + np.random.default_rng(seed).normal(0.0, 0.05, x.shape)


def run_of(
    replicas: Replicas, temperatures: tuple[float, ...], schedule: Schedule, timestep: float
) -> BeadDynamics:
    """One ladder of the chain, not started."""
    start = stretched(len(temperatures))
    guard = Guard(TERMS.bonds, start, [f"bead {k}" for k in range(N)])
    return BeadDynamics(
        replicas, guard, np.array(temperatures), 1, schedule, timestep=timestep, seed=4
    )


def frames_of(run: BeadDynamics, until: int | None = None) -> dict[str, np.ndarray]:
    """Go on to the end, or to a step; what was written, (frames, B, ...)."""
    kept: dict[str, list[np.ndarray]] = {}

    def write(arrays: Mapping[str, np.ndarray], row: int) -> None:
        for name, values in arrays.items():
            kept.setdefault(name, []).append(np.array(values))

    while run.step < (run.schedule.end if until is None else until):
        run.advance(write)
    return {name: np.stack(values) for name, values in kept.items()}


def assert_goes_on_exactly(make: Callable[[], Replicas], timestep: float = 4.0) -> None:
    """Stopped at a look and continued, an engine writes the frames of a run without a stop."""
    temperatures = (300.0, 330.0)
    schedule = Schedule(equilibration=0, production=50, interval=10, exchange=15)
    whole, first, second = (run_of(make(), temperatures, schedule, timestep) for _ in range(3))
    for run in (whole, first):
        run.start(stretched(2))
    expected, before = frames_of(whole), frames_of(first, until=20)
    second.restore({k: v.copy() for k, v in first.state().items()})
    after = frames_of(second)
    assert whole.exchanged().attempted.sum() == 2  # one pair: every other attempt
    for name, values in expected.items():
        np.testing.assert_array_equal(np.concatenate([before[name], after[name]]), values, name)
    np.testing.assert_array_equal(second.mean_heat, whole.mean_heat)
