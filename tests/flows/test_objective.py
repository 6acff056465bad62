"""The objective: its minimum, its calibrated sum, and maps that fail."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mlff_cli.flows.gating import Gate
from mlff_cli.flows.objective import loss_terms, transport

BETAS = (0.4, 0.25)
N = 4  # atoms of a system whose energy is harmonic: U = k/2 |x|^2
K = 30.0


def energy(x: Tensor) -> Tensor:
    return 0.5 * K * x.square().flatten(1).sum(1)


def ensemble(beta: float, n: int = 20_000, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, N, 3, generator=generator, dtype=torch.float64) / math.sqrt(beta * K)


def excess(factor: float) -> float:
    """Of the map x -> factor x, from samples of both ensembles."""
    log = 3 * N * math.log(factor)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return factor * x, x.new_full((len(x),), log)

    def inverse(y: Tensor) -> tuple[Tensor, Tensor]:
        return y / factor, y.new_full((len(y),), -log)

    total = 0.0
    x, y = ensemble(BETAS[0]), ensemble(BETAS[1], seed=1)
    for mapping, here, there, frames in (
        (forward, BETAS[0], BETAS[1], x),
        (inverse, BETAS[1], BETAS[0], y),
    ):
        found = transport(mapping, frames, energy)
        e, v = loss_terms(found, there, None, math.inf)
        total += float((e - v).mean() - here * energy(frames).mean())
    return total


def test_the_excess_is_zero_for_the_perfect_map_and_above_for_others() -> None:
    best = math.sqrt(BETAS[0] / BETAS[1])
    assert excess(best) == pytest.approx(0.0, abs=1e-9)  # not only on average: sample by sample
    d = 3 * N
    for factor in (1.0, 1.5, 0.9 * best):
        a, b = BETAS[1] * factor**2 / BETAS[0], BETAS[0] / (BETAS[1] * factor**2)
        expected = 0.5 * d * (a + b - 2)  # of two Gaussians, closed
        assert excess(factor) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("gate", [Gate(), Gate("seed")])
def test_samples_that_a_map_loses_leave_the_others_gradients_alone(gate: Gate) -> None:
    weight = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def mapping(x: Tensor) -> tuple[Tensor, Tensor]:
        y = weight * x
        # the square root's derivative at zero is infinite, and its values beyond are NaN
        return y, torch.sqrt(x[:, 0, 0]) * weight

    x = ensemble(BETAS[0], 6).abs()
    x[1, 0, 0] = -1.0
    x[4, 2, 2] = math.nan
    found = transport(mapping, x, energy)
    assert torch.isinf(found.U).tolist() == [False, True, False, False, True, False]
    e, v = loss_terms(found, BETAS[1], gate, 1e5)
    (gradient,) = torch.autograd.grad((e - v).sum(), weight)
    good = torch.tensor([0, 2, 3, 5])
    clean = transport(mapping, x[good], energy)
    e, v = loss_terms(clean, BETAS[1], gate, 1e5)
    (expected,) = torch.autograd.grad((e - v).sum(), weight)
    torch.testing.assert_close(gradient, expected)


def test_a_map_that_loses_everything_gives_no_gradient_and_no_error() -> None:
    def mapping(x: Tensor) -> tuple[Tensor, Tensor]:
        return x * math.nan, x.flatten(1).sum(1)

    found = transport(mapping, ensemble(BETAS[0], 3), energy)
    assert torch.isinf(found.U).all()
    e, v = loss_terms(found, BETAS[1], Gate(), 1e5)
    assert e.tolist() == v.tolist() == [0.0, 0.0, 0.0]


def test_without_a_gate_a_lost_sample_shows_in_the_loss() -> None:
    U = torch.tensor([1.0, math.inf])
    found = transport(lambda x: (x, x.sum((1, 2)) * 0), torch.ones(2, 1, 3), lambda x: U)
    e, _ = loss_terms(found, 0.4, None, math.inf)
    assert float(e.sum()) == math.inf
