"""The energy gate: published values, its slope, and samples that are not numbers."""

from __future__ import annotations

import math

import pytest
import torch

from mlff_cli.flows.gating import Gate, quantile_threshold, regularised, weights

CUT = 500.0


def energies(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("U", "E_max", "expected"),
    [
        (-600.0, 1e4, -600.0),
        (500.0, 1e4, 500.0),
        (600.0, 1e4, 504.615121),
        (1000.0, 1e4, 506.216606),
        (5000.0, 1e4, 508.412055),
        (1e4, 1e4, 509.159152),
        (261_778.0, 1e4, 509.159152),
        (math.inf, 1e4, 509.159152),
        (math.nan, 1e4, 509.159152),
        (1e9, 1e5, 511.507923),
        (1e9, 1e8, 518.420676),
    ],
)
def test_published_values(U: float, E_max: float, expected: float) -> None:
    assert float(regularised(energies(U), CUT, E_max)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.25, 562_341_325), (0.5, 31_622_777), (0.75, 1_778_279), (1.0, 100_000)],
)
def test_the_course_of_the_upper_threshold(p: float, expected: float) -> None:
    gate = Gate(min_learning_epochs=100, warmup_epochs=500)
    assert gate.E_max_at(100 + round(400 * p)) == pytest.approx(expected, rel=1e-6)


def test_epochs_of_the_default_course() -> None:
    gate = Gate()
    values = [gate.E_max_at(n) for n in range(1, 400)]
    assert values[0] == values[49] == 1e10
    assert values[149] == pytest.approx(1e8)
    assert values[199] == pytest.approx(1e7)
    assert values[299] == values[-1] == 1e5
    assert all(a >= b for a, b in zip(values, values[1:], strict=False))
    p = (100 - 50) / 250  # below the straight line, not above it
    assert values[99] < 1e10 + p * (1e5 - 1e10)
    assert Gate(warmup_epochs=0).E_max_at(1) == 1e5


def test_weights_are_the_slope_of_the_regularised_energy() -> None:
    U = torch.linspace(-700.0, 2e4, 999, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(regularised(U, CUT, 1e4).sum(), U)
    torch.testing.assert_close(weights(U, CUT, 1e4), slope)


def test_energies_below_the_first_threshold_are_untouched() -> None:
    for mode in ("safe", "seed"):
        gate = Gate(mode)
        U = energies(-600.0, 0.0, 499.9).requires_grad_()
        log_det = energies(1.0, 2.0, 3.0).requires_grad_()
        energy, volume = gate.terms(U, log_det, 0.4, 1e5)
        torch.testing.assert_close(energy, 0.4 * U)
        torch.testing.assert_close(volume, log_det)
        found = torch.autograd.grad((energy - volume).sum(), [U, log_det])
        torch.testing.assert_close(found[0], torch.full_like(U, 0.4))
        torch.testing.assert_close(found[1], -torch.ones_like(U))


def test_modes_have_one_slope_on_the_energy_and_safe_also_on_the_volume() -> None:
    U = energies(400.0, 700.0, 2e4, 3e5)
    expected = weights(U, CUT, 1e5)
    for mode in ("safe", "seed"):
        u, v = U.clone().requires_grad_(), torch.zeros(4).double().requires_grad_()
        energy, volume = Gate(mode).terms(u, v, 1.0, 1e5)
        on_energy, on_volume = torch.autograd.grad((energy - volume).sum(), [u, v])
        torch.testing.assert_close(on_energy, expected)
        weight = expected if mode == "safe" else torch.ones(4).double()
        torch.testing.assert_close(on_volume, -weight)


@pytest.mark.parametrize("mode", ["safe", "seed"])
def test_what_is_not_finite_gives_finite_losses_and_gradients(mode: str) -> None:
    bad = [math.nan, math.inf, -math.inf]
    U = energies(100.0, *bad, 100.0).requires_grad_()
    log_det = energies(1.0, 1.0, 1.0, 1.0, math.nan).requires_grad_()
    energy, volume = Gate(mode).terms(U, log_det, 0.4, 1e5)  # type: ignore[arg-type]
    assert torch.isfinite(energy).all()
    if mode == "safe":
        assert volume.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    found = torch.autograd.grad((energy - volume).sum(), [U, log_det])
    assert all(torch.isfinite(g).all() for g in found)
    assert not found[0][1:4].any()
    assert found[1][4] == 0.0


def test_a_batch_without_any_good_sample_has_no_gradient() -> None:
    U = energies(math.nan, math.inf, 1e12).requires_grad_()
    log_det = energies(5.0, 6.0, 7.0).requires_grad_()
    energy, volume = Gate().terms(U, log_det, 0.4, 1e5)
    found = torch.autograd.grad((energy - volume).sum(), [U, log_det])
    assert not torch.stack(found).any()


def test_when_a_batch_is_skipped() -> None:
    gate = Gate()
    assert not gate.skips(9, 10)
    assert gate.skips(10, 10)
    assert not gate.skips(90, 100)
    assert gate.skips(91, 100)


def test_seed_mode_falls_for_ever_where_safe_mode_reaches_the_minimum() -> None:
    """A harmonic system of 60 dimensions, y = e^s x, begun at mean U = 2000 kJ/mol."""
    n, beta, E_max = 60, 0.4, 1e4
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, n, generator=generator, dtype=torch.float64)
    k = n / (beta * n)  # U = k/2 |y|^2 with <U> = n / (2 beta) at the minimum s = 0
    start = 0.5 * math.log(2000.0 / (n / (2 * beta)))
    left = {}
    for mode in ("safe", "seed"):
        s = torch.full((n,), start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([s], lr=0.05)
        for _ in range(400):
            U = 0.5 * k * (x * s.exp()).square().sum(1)
            energy, volume = Gate(mode).terms(U, s.sum().expand(256), beta, E_max)
            optimizer.zero_grad()
            (energy - volume).mean().backward()
            optimizer.step()
        left[mode] = float(s.detach().mean())
    assert left["safe"] == pytest.approx(0.0, abs=0.05)
    assert left["seed"] > start + 5.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"E_cut": 1e6}, "E_cut must be below E_max"),
        ({"warmup_epochs": 50}, "min_learning_epochs"),
        ({"initial_E_max": 1e4}, "initial_E_max"),
        ({"skip_share": 0.0}, "skip_share"),
    ],
)
def test_gates_that_make_no_sense_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Gate(**wrong)  # type: ignore[arg-type]


def test_a_threshold_from_data_is_above_all_of_it_and_moves_with_it() -> None:
    generator = torch.Generator().manual_seed(0)
    cold = torch.randn(4000, generator=generator) * 20 - 60
    hot = torch.randn(4000, generator=generator) * 30
    found = quantile_threshold(cold, hot)
    assert found > float(hot.max())
    assert quantile_threshold(cold - 1e3, hot - 1e3) == pytest.approx(found - 1e3, rel=1e-3)
