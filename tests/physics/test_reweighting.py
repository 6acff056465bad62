"""Weights, acceptance and free energies of maps between ensembles, on systems solved exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erfc

from mlff_cli.core.errors import NumericalError
from mlff_cli.physics.bennett import bennett, one_sided
from mlff_cli.physics.replica_exchange import K_B
from mlff_cli.physics.reweighting import (
    acceptance,
    effective_share,
    excess_nats,
    forward_work,
    log_normal_acceptance,
    normalised_weights,
)

COLD, HOT = 1 / (K_B * 300.0), 1 / (K_B * 450.0)
STIFF = np.array([4.0, 30.0, 500.0, 9.0, 80.0, 2.0])  # kJ/mol/nm^2


def harmonic(beta: float, n: int, seed: int) -> np.ndarray:
    """Samples (n, d) of U = sum k x^2 / 2 at an inverse temperature."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, len(STIFF))) / np.sqrt(beta * STIFF)


def energy(x: np.ndarray) -> np.ndarray:
    return 0.5 * (STIFF * x**2).sum(axis=1)


def works(scale: float, n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Works of the map x -> scale x between 300 and 450 K, both directions."""
    x, y = harmonic(COLD, n, seed), harmonic(HOT, n, seed + 1)
    det = np.full(n, len(STIFF) * np.log(scale))
    return (
        forward_work(energy(x), energy(scale * x), det, COLD, HOT),
        forward_work(energy(y), energy(y / scale), -det, HOT, COLD),
    )


EXACT = -0.5 * len(STIFF) * np.log(450.0 / 300.0)  # -ln(Z_t / Z_s)


def test_the_exact_map_has_no_excess_and_is_always_accepted() -> None:
    """Stretching by sqrt(T2/T1) carries a harmonic ensemble into the other: every work is dF."""
    forward, reverse = works(np.sqrt(450.0 / 300.0))
    np.testing.assert_allclose(forward, EXACT, atol=1e-10)
    np.testing.assert_allclose(reverse, -EXACT, atol=1e-10)
    assert acceptance(forward, reverse).value == pytest.approx(1.0, abs=1e-10)
    assert effective_share(forward) == pytest.approx(1.0, abs=1e-10)
    assert excess_nats(forward, reverse).value == pytest.approx(0.0, abs=1e-10)
    assert bennett(forward, reverse).value == pytest.approx(EXACT, abs=1e-8)


def test_the_naive_swap_of_harmonic_systems() -> None:
    """With f the identity acceptance is that of plain replica exchange, sampled here directly."""
    forward, reverse = works(1.0, 3000)
    x, y = energy(harmonic(COLD, 60_000, 7)), energy(harmonic(HOT, 60_000, 8))
    plain = np.minimum(1.0, np.exp((HOT - COLD) * (y - x)))
    found = acceptance(forward, reverse)
    assert found.value == pytest.approx(plain.mean(), abs=5 * found.error)
    assert 0.3 < found.value < 0.9  # not at an end, where anything agrees
    # <w_F> + <w_R> = (beta_t - beta_s)(<U>_s - <U>_t)
    expected = 0.5 * len(STIFF) * (HOT - COLD) * (1 / COLD - 1 / HOT)
    excess = excess_nats(forward, reverse)
    assert excess.value == pytest.approx(expected, abs=5 * excess.error)


@pytest.mark.parametrize("n", [600, 1800])
def test_free_energies_are_exact_within_their_errors(n: int) -> None:
    """Bennett's estimate and both one-sided ones, of an imperfect map, with unequal numbers."""
    z = []
    for seed in range(30):
        forward, reverse = works(1.1, n, 10 * seed)
        found = bennett(forward[: n // 3], reverse)
        z.append((found.value - EXACT) / found.error)
        for sign, work in ((1, forward), (-1, reverse)):
            single = one_sided(work)
            assert abs(sign * single.value - EXACT) < 6 * single.error
    assert abs(np.mean(z)) < 4 / np.sqrt(len(z))
    assert 0.7 < np.std(z) < 1.35


def test_the_error_of_the_acceptance_is_its_spread() -> None:
    found = [acceptance(*works(1.0, 300, 10 * seed)) for seed in range(60)]
    spread = np.std([f.value for f in found])
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.35)


def test_log_normal_weights_have_the_published_acceptance() -> None:
    """erfc(sqrt(-ln ESS)/2): normal works with the variance and means that Crooks demands."""
    rng, s, df = np.random.default_rng(3), 0.8, -2.0
    forward = rng.normal(df + s**2 / 2, s, 5000)
    reverse = rng.normal(-df + s**2 / 2, s, 5000)
    found = acceptance(forward, reverse)
    assert found.value == pytest.approx(erfc(s / 2), abs=4 * found.error)
    assert effective_share(forward) == pytest.approx(np.exp(-(s**2)), rel=0.05)
    assert log_normal_acceptance(np.exp(-(s**2))) == pytest.approx(erfc(s / 2), abs=1e-12)
    assert excess_nats(forward, reverse).value == pytest.approx(s**2, abs=0.05)
    assert log_normal_acceptance(0.0) == 0.0
    assert log_normal_acceptance(1.0) == 1.0


@settings(max_examples=30, deadline=None)
@given(
    work=st.lists(st.floats(-300, 300), min_size=1, max_size=30),
    shift=st.floats(-500, 500),
)
def test_weights_do_not_know_the_zero_of_energy(work: list[float], shift: float) -> None:
    w = np.array(work)
    np.testing.assert_allclose(normalised_weights(w), normalised_weights(w + shift), atol=1e-9)
    assert normalised_weights(w).sum() == pytest.approx(1.0)
    share = effective_share(w)
    assert 1 / len(w) - 1e-9 <= share <= 1 + 1e-9
    assert effective_share(w + shift) == pytest.approx(share, rel=1e-6)


def test_acceptance_is_symmetric_and_blind_to_the_free_energy() -> None:
    """A constant added to one direction and taken from the other changes nothing."""
    forward, reverse = works(1.05, 700)
    found = acceptance(forward, reverse).value
    assert acceptance(reverse, forward).value == pytest.approx(found, rel=1e-12)
    assert acceptance(forward + 30, reverse - 30).value == pytest.approx(found, rel=1e-9)


def test_acceptance_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(2, 3, 40), rng.normal(-1, 4, 50)
    a[3], b[[0, 7]] = np.inf, np.inf
    pairs = np.exp(-np.maximum(0.0, a[:, None] + b))
    assert acceptance(a, b).value == pytest.approx(pairs.mean(), rel=1e-12)


def test_samples_without_weight() -> None:
    """Energies that could not be evaluated lower acceptance and ESS, and make the excess infinite.

    They count as samples: 0 of 4 is not 0 of 3.
    """
    moved = np.array([1.0, np.nan, 1.0, np.inf])
    work = forward_work(np.ones(4), moved, np.zeros(4), 1.0, 1.0)
    assert work.tolist() == [0.0, np.inf, 0.0, np.inf]
    assert effective_share(work) == pytest.approx(0.5)
    assert acceptance(work, np.zeros(3)).value == pytest.approx(0.5)
    assert excess_nats(work, np.zeros(3)).value == np.inf
    assert normalised_weights(work).tolist() == [0.5, 0.0, 0.5, 0.0]
    hopeless = np.full(3, np.inf)
    assert effective_share(hopeless) == 0.0
    assert acceptance(hopeless, np.zeros(2)).value == 0.0
    for wrong in (lambda: normalised_weights(hopeless), lambda: one_sided(hopeless)):
        with pytest.raises(NumericalError, match="work"):
            wrong()
    with pytest.raises(NumericalError, match="0 finite forward ones of 3"):
        bennett(hopeless, np.zeros(2))


def test_one_infinite_work_leaves_bennetts_estimate() -> None:
    """It is a sample whose Fermi function is 0."""
    forward, reverse = works(1.2, 3000)
    without = bennett(forward, reverse).value
    forward[0] = np.inf
    assert bennett(forward, reverse).value == pytest.approx(without, abs=0.01)


def test_works_that_are_none() -> None:
    with pytest.raises(NumericalError, match="found nan of sample 1"):
        forward_work(np.array([0.0, np.nan]), np.zeros(2), np.zeros(2), 1.0, 1.0)
    for wrong in (np.array([]), np.array([0.0, np.nan]), np.array([-np.inf]), np.zeros((2, 2))):
        with pytest.raises(NumericalError, match="a row of numbers"):
            effective_share(wrong)
