"""Energy engines: the same energies, and +inf for what fails, alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import openmm
import pytest
import torch
from torch import Tensor

from mlff_cli.core.errors import DataError, NumericalError, UsageError
from mlff_cli.physics.energies import EnergyEngine, TorchEnergy, energy_of
from mlff_cli.physics.forcefield import ForceField
from mlff_cli.physics.openmm_energies import OpenMMEnergy
from tests.physics.forcefield.molecules import molecule, openmm_energies, shaken


@pytest.fixture(scope="module")
def dipeptide() -> tuple[openmm.System, Tensor]:
    made = molecule()
    return made.system, torch.from_numpy(shaken(made.positions, (0.0, 0.002, 0.005, 0.01, 0.02)))


@pytest.fixture(scope="module", params=["torch", "here", "workers"])
def engine(
    request: pytest.FixtureRequest, dipeptide: tuple[openmm.System, Tensor]
) -> Iterator[EnergyEngine]:
    system = dipeptide[0]
    if request.param == "torch":
        yield TorchEnergy(ForceField.from_system(system))
        return
    with OpenMMEnergy(system, n_workers=2 * (request.param == "workers")) as made:
        yield made


def test_energies_and_gradients_are_those_of_openmm(
    engine: EnergyEngine, dipeptide: tuple[openmm.System, Tensor]
) -> None:
    system, x = dipeptide
    energy, gradient = engine(x)
    expected, forces = openmm_energies(system, x.numpy())
    np.testing.assert_allclose(energy, expected, rtol=1e-9)
    np.testing.assert_allclose(gradient, -forces, rtol=1e-6, atol=1e-6)
    assert not energy.requires_grad
    assert len(engine(x[:0])[0]) == 0
    single = engine(x.float())
    assert single[0].dtype == single[1].dtype == torch.float32


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e200])
def test_a_failed_evaluation_is_infinite_and_alone(
    engine: EnergyEngine, dipeptide: tuple[openmm.System, Tensor], bad: float
) -> None:
    x = dipeptide[1].clone()
    whole = engine(x)
    for k in range(len(x)):
        broken = x.clone()
        broken[k, 3, 1] = bad
        energy, gradient = engine(broken)
        others = torch.arange(len(x)) != k
        assert energy[k] == torch.inf
        assert not gradient[k].any()
        torch.testing.assert_close(energy[others], whole[0][others], rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient[others], whole[1][others], rtol=1e-9, atol=1e-6)
    energy, gradient = engine(torch.full_like(x, torch.nan))
    assert (energy == torch.inf).all()
    assert not gradient.any()


def test_gradients_flow_and_failures_have_none(
    engine: EnergyEngine, dipeptide: tuple[openmm.System, Tensor]
) -> None:
    x = dipeptide[1].clone()
    x[1, 0] = torch.nan
    x.requires_grad_()
    energy = energy_of(engine, x)
    weights = torch.tensor([1.0, torch.inf, 2.0, torch.nan, 0.0], dtype=x.dtype)
    (energy * weights.nan_to_num(3.0, 3.0)).sum().backward()
    assert x.grad is not None
    expected = engine(x)[1] * torch.tensor([1.0, 0.0, 2.0, 3.0, 0.0])[:, None, None]
    torch.testing.assert_close(x.grad, expected, rtol=1e-9, atol=1e-6)


def test_an_infinite_factor_of_a_failed_sample_is_no_nan() -> None:
    def failing(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(x),), torch.nan), torch.full_like(x, torch.nan)

    x = torch.zeros(2, 3, 3, requires_grad=True)
    energy = energy_of(failing, x)
    assert (energy == torch.inf).all()
    energy.square().sum().backward()  # its factor is 2 inf
    assert x.grad is not None
    assert not x.grad.any()


def test_a_killed_worker_is_an_error(dipeptide: tuple[openmm.System, Tensor]) -> None:
    system, x = dipeptide
    with OpenMMEnergy(system, n_workers=1) as engine:
        engine(x)
        assert engine._processes is not None
        for worker in list(engine._processes._pool._processes):
            os.kill(worker, signal.SIGKILL)
        with pytest.raises(NumericalError, match="worker process died"):
            engine(x)


def test_what_cannot_be_computed_is_refused(dipeptide: tuple[openmm.System, Tensor]) -> None:
    with pytest.raises(UsageError, match="--platform"):
        OpenMMEnergy(dipeptide[0], platform="Abacus")
    with OpenMMEnergy(dipeptide[0], 0) as engine, pytest.raises(DataError, match="found"):
        engine(dipeptide[1][:, :5])


@pytest.mark.slow
def test_compiled_energies_are_those_of_eager_ones(
    dipeptide: tuple[openmm.System, Tensor],
) -> None:
    field = ForceField.from_system(dipeptide[0])
    eager, compiled = TorchEnergy(field), TorchEnergy(field, compile=True)
    for a, b in zip(eager(dipeptide[1]), compiled(dipeptide[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-6)
