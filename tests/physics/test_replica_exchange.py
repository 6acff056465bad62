"""Exchange leaves the product of canonical distributions alone, and counts what it does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import betainc

from mlff_cli.physics.replica_exchange import K_B, Ladder, swap

TEMPERATURES = np.array([300.0, 350.0, 420.0, 500.0])


class Fixed:
    """A generator that gives the same uniform number again and again."""

    def __init__(self, u: float) -> None:
        self.u = u

    def random(self, n: int) -> np.ndarray:
        return np.full(n, self.u)


def acceptance(energies: np.ndarray, temperatures: np.ndarray) -> float:
    """Probability of the swap of two replicas, by bisection over the uniform number."""
    low, high = 0.0, 1.0
    for _ in range(60):
        mid = (low + high) / 2
        done = swap(energies, temperatures, 0, Fixed(mid))[2][0]  # type: ignore[arg-type]
        # log1p(-u) < log p: larger u are accepted
        low, high = (low, mid) if done else (mid, high)
    return 1 - high


def test_detailed_balance_of_every_swap() -> None:
    """P(x) A(x -> y) = P(y) A(y -> x), with P the product of Boltzmann factors."""
    temperatures = np.array([300.0, 400.0])
    beta = 1 / (K_B * temperatures)
    for a, b in itertools.product([-12.0, -3.0, 0.0, 4.0, 9.0], repeat=2):
        forward = np.exp(-beta @ [a, b]) * acceptance(np.array([a, b]), temperatures)
        backward = np.exp(-beta @ [b, a]) * acceptance(np.array([b, a]), temperatures)
        assert forward == pytest.approx(backward, rel=1e-9)


def test_swaps_keep_the_ensembles_of_a_harmonic_system() -> None:
    """Energies of n harmonic coordinates are Gamma(n/2, k_B T): they stay so when swapped.

    Metropolis moves would hide a wrong rule: here nothing but swaps acts on exact samples, and the
    mean energies at every temperature must not move.
    """
    rng, n, samples = np.random.default_rng(0), 6, 15_000
    u = rng.gamma(n / 2, K_B * TEMPERATURES, size=(samples, 4))
    after = u.copy()
    for attempt in range(4):
        orders = [swap(row, TEMPERATURES, attempt, rng)[0] for row in after]
        after = np.take_along_axis(after, np.array(orders), axis=1)
    expected = n / 2 * K_B * TEMPERATURES
    error = np.sqrt(n / 2 / samples) * K_B * TEMPERATURES
    assert (np.abs(after.mean(axis=0) - expected) < 4 * error).all()
    np.testing.assert_allclose(after.var(axis=0), n / 2 * (K_B * TEMPERATURES) ** 2, rtol=0.05)
    assert (after != u).mean() > 0.5


def test_the_wrong_sign_would_be_seen() -> None:
    """The same samples with swapped temperatures as the rule's argument do move."""
    rng, n, samples = np.random.default_rng(0), 6, 4_000
    u = rng.gamma(n / 2, K_B * TEMPERATURES, size=(samples, 4))
    orders = [swap(row, TEMPERATURES[::-1], 0, rng)[0] for row in u]
    after = np.take_along_axis(u, np.array(orders), axis=1)
    expected = n / 2 * K_B * TEMPERATURES
    error = np.sqrt(n / 2 / samples) * K_B * TEMPERATURES
    assert (np.abs(after.mean(axis=0) - expected) > 4 * error).any()


def test_acceptance_is_the_closed_form() -> None:
    """For n harmonic coordinates the mean acceptance is 2 I_{1/(1+r)}(n/2, n/2), r = T_b / T_a.

    E min(1, e^D) over the product of two Gamma distributions is twice the probability that the
    colder one has the higher energy, as detailed balance makes both halves equal.
    """
    rng, n, samples = np.random.default_rng(1), 8, 40_000
    low, high = 300.0, 400.0
    u = rng.gamma(n / 2, K_B * np.array([low, high]), size=(samples, 2))
    done = np.mean([swap(row, np.array([low, high]), 0, rng)[2][0] for row in u])
    exact = 2 * betainc(n / 2, n / 2, 1 / (1 + high / low))
    assert done == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / samples))


def test_pairs_take_turns_and_are_counted() -> None:
    ladder = Ladder.start(TEMPERATURES)
    for _ in range(5):
        ladder.exchange(np.zeros(4), seed=3)  # equal energies: always accepted
    np.testing.assert_array_equal(ladder.attempted, [3, 2, 3])
    np.testing.assert_array_equal(ladder.accepted, [3, 2, 3])
    np.testing.assert_array_equal(ladder.acceptance, 1.0)
    assert sorted(ladder.replica) == [0, 1, 2, 3]


def test_passages_are_counted_from_end_to_end() -> None:
    """With every swap done, a replica travels up in 4 steps, waits one at the end, and returns."""
    ladder = Ladder.start(TEMPERATURES)
    at = []
    for _ in range(8):
        ladder.exchange(np.zeros(4), seed=0)
        at.append(int(np.flatnonzero(ladder.replica == 0)[0]))
    assert at == [1, 2, 3, 3, 2, 1, 0, 0]
    assert ladder.trips[0] == 2


def test_a_restored_ladder_goes_on_as_the_other() -> None:
    rng = np.random.default_rng(2)
    energies = rng.normal(scale=3.0, size=(20, 4))
    whole = Ladder.start(TEMPERATURES)
    orders = [whole.exchange(u, seed=5) for u in energies]
    first = Ladder.start(TEMPERATURES)
    for u in energies[:7]:
        first.exchange(u, seed=5)
    second = Ladder.restored(TEMPERATURES, first.plain())
    for u, order in zip(energies[7:], orders[7:], strict=True):
        np.testing.assert_array_equal(second.exchange(u, seed=5), order)
    for name, value in whole.plain().items():
        np.testing.assert_array_equal(second.plain()[name], value)
