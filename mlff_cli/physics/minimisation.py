"""Relaxation of a structure before dynamics, with OpenMM's L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm

from mlff_cli.physics.openmm_system import Simulated


class _Watch(openmm.MinimizationReporter):  # type: ignore[misc]
    """Ends a minimisation when it is asked to stop."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        super().__init__()
        self._stop = stop

    def report(self, iteration: int, x: Any, gradient: Any, args: Any) -> bool:
        """Whether to stop here."""
        return self._stop()


def minimise(
    simulated: Simulated,
    context: openmm.Context,
    stop: Callable[[], bool] = lambda: False,
    tolerance: float = 10.0,
) -> tuple[np.ndarray, float, float]:
    """Relax the structure.

    Args:
        simulated: what to relax.
        context: of its system.
        stop: asked after every iteration whether to stop early.
        tolerance: root mean square force to reach, kJ/mol/nm.

    Returns:
        Positions (N, 3) in nm, and the energies before and after in kJ/mol.
    """
    context.setPositions(simulated.positions)
    context.computeVirtualSites()
    before = _energy(context)
    openmm.LocalEnergyMinimizer.minimize(context, tolerance, 0, _Watch(stop))
    state = context.getState(positions=True)
    return state.getPositions(asNumpy=True)._value.copy(), before, _energy(context)


def _energy(context: Any) -> float:
    return float(context.getState(energy=True).getPotentialEnergy()._value)
