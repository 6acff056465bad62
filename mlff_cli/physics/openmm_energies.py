"""OpenMM as an energy engine: one context in each worker process.

OpenMM evaluates one conformation at a time. A batch is cut into equal parts, one for each worker,
and put together in order. What OpenMM refuses or answers with NaN is +inf for that sample alone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import numpy as np
import openmm
import torch
from torch import Tensor

from mlff_cli.core.errors import DataError
from mlff_cli.core.runtime import StopRequest
from mlff_cli.core.tasks import Crew, Here
from mlff_cli.core.workers import Processes
from mlff_cli.physics.energies import refuse_failed
from mlff_cli.physics.molecular_dynamics import choose_engine

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class OpenMMEnergy:
    """OpenMM as an `energies.EnergyEngine`; use it as a context manager, or close it.

    Args:
        system: OpenMM's.
        n_workers: processes; 0: this one computes.
        platform: OpenMM's name; a worker has one thread of it.

    Raises:
        UsageError: OpenMM knows no such platform.
        MissingDependencyError: it does not work here.
    """

    def __init__(
        self, system: openmm.System, n_workers: int = 1, platform: str = "Reference"
    ) -> None:
        choose_engine(platform)
        self.n_atoms, self._parts = system.getNumParticles(), max(1, n_workers)
        shared = (openmm.XmlSerializer.serialize(system), platform)
        self._processes: Processes | None = None
        if n_workers:
            self._processes = Processes(prepare_energies, shared, n_workers, StopRequest())
            self._crew: Crew = self._processes
        else:
            self._crew = Here(prepare_energies, shared, StopRequest())

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See `EnergyEngine`.

        Raises:
            DataError: positions have another shape.
            NumericalError: a worker process died.
        """
        if positions.ndim != 3 or positions.shape[1:] != (self.n_atoms, 3):
            raise DataError(
                f"positions must have the shape (B, {self.n_atoms}, 3), "
                f"found {tuple(positions.shape)}"
            )
        x = positions.detach().cpu().double().numpy()
        parts = np.array_split(x, min(self._parts, max(1, len(x))))
        found = list(self._crew.map((part,) for part in parts))
        energy, gradient = (torch.from_numpy(np.concatenate(v)) for v in zip(*found, strict=True))
        energy, gradient = refuse_failed(energy.to(positions), gradient.to(positions))
        return energy, gradient

    def close(self) -> None:
        """End the worker processes."""
        if self._processes is not None:
            self._processes.__exit__()

    def __enter__(self) -> OpenMMEnergy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def prepare_energies(system: str, platform: str) -> Evaluate:
    """What a worker computes: U (B,) and dU/dx (B, N, 3) of x (B, N, 3); NaN where it fails."""
    context = choose_engine(platform).context(openmm.XmlSerializer.deserialize(system))

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies, gradients = np.full(len(x), np.nan), np.zeros_like(x)
        for k, positions in enumerate(x):
            if not np.isfinite(positions).all():
                continue
            try:
                context.setPositions(positions)
                state = context.getState(energy=True, forces=True)
                energies[k] = state.getPotentialEnergy()._value
                gradients[k] = -state.getForces(asNumpy=True)._value
            except openmm.OpenMMException:  # of this conformation; the others are computed
                energies[k] = np.nan
        return energies, gradients

    return evaluate
