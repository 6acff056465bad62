"""Minimisation before the first stage: it falls, finds what is there, and continues exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlff_cli.core.errors import NumericalError
from mlff_cli.training.distributed import World
from mlff_cli.training.pretraining import Minimiser, Stopped
from mlff_cli.training.task import Pretraining

K, R0 = 300.0, 3.8  # of the bonds below, kcal/mol/A^2 and A: scales as different as a prior's


class Bonds(nn.Module):
    """Forces of harmonic bonds of two kinds; `rest` belongs to another part of the model."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor([50.0, 120.0], dtype=dtype))
        self.r0 = nn.Parameter(torch.tensor([3.0, 5.0], dtype=dtype))
        self.rest = nn.Parameter(torch.ones(3, dtype=dtype))

    def forward(self, r: Tensor, kind: Tensor) -> Tensor:
        return -self.k[kind] * (r - self.r0[kind])


def data(n: int = 400, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    kind = torch.arange(n) % 2
    r = R0 + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64) + 0.5 * kind
    force = -(K + 100.0 * kind) * (r - R0 - 0.5 * kind)
    return r, kind, force + noise * torch.randn(n, generator=generator, dtype=torch.float64)


def problem(
    model: Bonds, noise: float = 0.0, rank: int = 0, size: int = 1, **limits: Any
) -> Pretraining:
    r, kind, force = (t[rank::size] for t in data(noise=noise))
    n = len(data()[0])

    def objective() -> Tensor:
        share = (model(r.to(model.k.dtype), kind) - force).square().sum() / n
        share.backward()
        return share.detach()

    return Pretraining("bonds", [model.k, model.r0], objective, **limits)


def run(minimiser: Minimiser) -> Minimiser:
    minimiser.start()
    while not minimiser.finished:
        minimiser.step()
    return minimiser


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_loss_falls_in_every_iteration_and_known_parameters_come_back(
    dtype: torch.dtype,
) -> None:
    model = Bonds(dtype)
    done = run(Minimiser(problem(model), model, World()))
    assert all(b <= a for a, b in zip(done.losses, done.losses[1:], strict=False))
    assert all(b < a for a, b in zip(done.losses, done.losses[1:-1], strict=False))
    exact = 1e-6 if dtype is torch.float64 else 1e-3
    k, r0 = torch.tensor([K, K + 100.0]).double(), torch.tensor([R0, R0 + 0.5]).double()
    torch.testing.assert_close(model.k.double(), k, rtol=exact, atol=0.0)
    torch.testing.assert_close(model.r0.double(), r0, rtol=exact, atol=0.0)
    assert done.losses[-1] < 1e-8 * done.losses[0]
    assert done.iteration < 60


def test_only_its_parameters_move_and_nothing_is_left_behind() -> None:
    model = Bonds()
    model.k.requires_grad_(False)
    rng = torch.get_rng_state()
    run(Minimiser(problem(model, noise=5.0), model, World()))
    assert torch.equal(model.rest, torch.ones(3))
    assert [p.requires_grad for p in (model.k, model.r0, model.rest)] == [False, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_irreducible_noise_ends_at_the_least_squares_solution() -> None:
    model = Bonds()
    done = run(Minimiser(problem(model, noise=5.0), model, World()))
    r, kind, force = data(noise=5.0)
    for i in range(2):  # F = -k r + k r0 is linear in k and k r0
        own = kind == i
        design = torch.stack([-r[own], torch.ones_like(r[own])], dim=1)
        k, b = torch.linalg.lstsq(design, force[own, None]).solution[:, 0]
        assert model.k[i].item() == pytest.approx(float(k), rel=1e-4)
        assert model.r0[i].item() == pytest.approx(float(b / k), rel=1e-5)
    assert "falls by less" in done.ended
    assert done.losses[-1] == pytest.approx(25.0, rel=0.3)


@pytest.mark.parametrize("cut", [0, 1, 2, 7])
def test_a_minimisation_that_is_taken_up_again_is_the_same_to_the_last_bit(cut: int) -> None:
    whole_model = Bonds()
    whole = Minimiser(problem(whole_model, noise=5.0), whole_model, World())
    rows = []
    whole.start()
    while not whole.finished:
        rows.append(whole.row())
        whole.step()
    model = Bonds()
    part = Minimiser(problem(model, noise=5.0), model, World())
    part.start()
    for _ in range(cut):
        part.step()
    again_model = Bonds()
    again = Minimiser(problem(again_model, noise=5.0), again_model, World())
    again.load(part.state())
    assert torch.equal(again_model.k, model.k)
    seen = []
    while not again.finished:
        seen.append(again.row())
        again.step()
    assert seen == rows[cut:]
    assert again.losses == whole.losses
    assert again.row() == whole.row()
    assert again.ended == whole.ended
    for name, value in whole_model.state_dict().items():
        assert torch.equal(value, again_model.state_dict()[name])
    finished = Minimiser(problem(Bonds()), Bonds(), World())
    finished.load(again.state())
    assert finished.finished
    assert finished.losses == whole.losses


def stopping_after(n: int) -> Callable[[], bool]:
    left = [n]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return stop


@pytest.mark.parametrize("evaluations", [0, 1, 2, 3, 4, 9])
def test_a_stop_within_an_iteration_leaves_no_trace(evaluations: int) -> None:
    whole_model, model = Bonds(), Bonds()
    whole = run(Minimiser(problem(whole_model), whole_model, World()))
    stopped = Minimiser(problem(model), model, World(), stopping_after(evaluations))
    with pytest.raises(Stopped):
        run(stopped)
    rest_model = Bonds()
    rest = Minimiser(problem(rest_model), rest_model, World())
    rest.load(stopped.state())
    if not rest.losses:
        rest.start()
    while not rest.finished:
        rest.step()
    assert rest.losses == whole.losses
    assert rest.evaluations == whole.evaluations
    assert torch.equal(rest_model.k, whole_model.k)


def test_shares_sum_to_the_whole() -> None:
    model = Bonds()
    alone = run(Minimiser(problem(model, noise=5.0), model, World()))
    both = Bonds()
    shares = [problem(both, 5.0, rank, 2) for rank in range(2)]

    def together() -> Tensor:
        return shares[0].objective() + shares[1].objective()

    pair = Pretraining("bonds", shares[0].parameters, together)
    done = run(Minimiser(pair, both, World()))
    assert done.losses[-1] == pytest.approx(alone.losses[-1], rel=1e-9)
    torch.testing.assert_close(both.k, model.k, rtol=1e-5, atol=0.0)


def test_a_loss_that_is_not_finite_turns_the_search_back_but_not_the_start() -> None:
    class Log(nn.Module):
        def __init__(self, start: float) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def minimiser(start: float) -> tuple[Log, Minimiser]:
        model = Log(start)

        def objective() -> Tensor:  # NaN below zero, minimum at 0.01
            value = (100.0 * model.x - model.x.log()).sum()
            value.backward()
            return value.detach()

        return model, Minimiser(Pretraining("log", [model.x], objective), model, World())

    model, good = minimiser(2.0)
    run(good)
    assert model.x.item() == pytest.approx(0.01, rel=1e-4)
    with pytest.raises(NumericalError, match="'log' is nan at its start"):
        minimiser(-1.0)[1].start()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"steps": 2}, "2 iterations are done"),
        ({"tolerance": 0.9}, "falls by less than 0.9"),
    ],
)
def test_it_says_why_it_ended(limits: dict[str, Any], reason: str) -> None:
    model = Bonds()
    assert reason in run(Minimiser(problem(model, **limits), model, World())).ended


def test_nothing_to_gain_is_no_error() -> None:
    model = Bonds()
    with torch.no_grad():
        model.k.copy_(torch.tensor([K, K + 100.0]))
        model.r0.copy_(torch.tensor([R0, R0 + 0.5], dtype=torch.float64))
    done = run(Minimiser(problem(model), model, World()))
    assert done.losses[-1] <= done.losses[0] < 1e-20
    torch.testing.assert_close(model.k.tolist(), [K, K + 100.0], rtol=1e-9, atol=0.0)
