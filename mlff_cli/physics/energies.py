"""Energies of conformations for transport: which engine computes them, and what failure means.

An evaluation that fails is U = +inf with gradient 0 for that sample: never 0, never NaN, never a
neighbour's value, so that a gate or an acceptance sees it as what it is.

    energy_of(engine, x) = U(x),    d energy_of / dx = dU/dx, and 0 where U is not finite

| engine                          | what                                                      |
|---------------------------------|-----------------------------------------------------------|
| `TorchEnergy`                   | the batched force field: fastest, also on a GPU           |
| `openmm_energies.OpenMMEnergy`  | OpenMM in worker processes: every force that it has       |

This module knows neither OpenMM nor files, so that an objective can be written with it. nm, kJ/mol.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from mlff_cli.core.compilers import check_compiler


class Field(Protocol):
    """What `TorchEnergy` needs of `forcefield.ForceField`."""

    masses: Tensor

    def energy_and_gradient(self, positions: Tensor, /) -> tuple[Tensor, Tensor]:
        """U (B,) and dU/dx (B, N, 3)."""

    def evaluate(self, positions: Tensor, /) -> tuple[Tensor, Tensor]:
        """The same as pure operations on tensors of the field's dtype."""


class EnergyEngine(Protocol):
    """Energies and gradients of conformations."""

    def __call__(self, positions: Tensor, /) -> tuple[Tensor, Tensor]:
        """U (B,) kJ/mol and dU/dx (B, N, 3) of positions (B, N, 3) nm, both detached.

        A failed evaluation: +inf and 0 for that sample.
        """


class TorchEnergy:
    """The batched force field as an engine.

    Args:
        field: the force field; where it lives and its dtype decide where and how is computed.
        compile: whether torch's compiler fuses it: several times as fast, after a minute;
            every new number of conformations is compiled anew.

    Raises:
        MissingDependencyError: compilation is asked for, and there is no C++ compiler.
    """

    def __init__(self, field: Field, compile: bool = False) -> None:
        self.field = field
        self._evaluate = field.energy_and_gradient
        if compile:
            check_compiler(field.masses.device.type, "energies")
            self._evaluate = torch.compile(field.evaluate, dynamic=False)

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See `EnergyEngine`."""
        with torch.no_grad():
            x = positions.detach().to(self.field.masses)
            energy, gradient = self._evaluate(x)
        energy, gradient = refuse_failed(energy, gradient)
        return energy.to(positions), gradient.to(positions)


def refuse_failed(energy: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (B,) and gradients (B, N, 3), with +inf and 0 where either is not finite."""
    good = energy.isfinite() & gradient.isfinite().all(-1).all(-1)
    return (
        torch.where(good, energy, torch.inf),
        torch.where(good[:, None, None], gradient, 0.0),
    )


def energy_of(engine: EnergyEngine, positions: Tensor) -> Tensor:
    """U (B,) of positions (B, N, 3), differentiable once; non-finite samples have no gradient."""
    energy: Tensor = _EnergyOf.apply(positions, engine)  # type: ignore[no-untyped-call]
    return energy


class _EnergyOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, engine: EnergyEngine) -> Tensor:
        energy, gradient = refuse_failed(*engine(positions))
        ctx.save_for_backward(gradient)
        return energy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        # a sample without energy may be given any factor, and inf times 0 is NaN
        moved = gradient.abs().amax((-1, -2)) > 0
        return torch.where(moved, grad, 0.0)[:, None, None] * gradient, None
