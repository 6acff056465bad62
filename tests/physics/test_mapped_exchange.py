"""Swaps through a map: detailed balance, and ensembles that stay as they are, solved exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import gamma, kstest, norm

from mlff_cli.core.errors import UsageError
from mlff_cli.physics.mapped_exchange import MappedExchange
from mlff_cli.physics.replica_exchange import K_B, Ladder, swap

KELVIN = np.array([300.0, 450.0])
BETA = 1 / (K_B * KELVIN)
STIFF = np.array([[4.0, 30.0, 500.0], [9.0, 80.0, 2.0]])  # kJ/mol/nm^2 of 2 atoms
LADDERS = 6_000

Moved = tuple[np.ndarray, np.ndarray]


class Shear:
    """x' = s x; atom 0: x'_0 <- sinh(x'_0); atom 1: x'_1 += c sin(x'_0).

    ln|det| = 6 ln s + sum_d ln cosh(s x_0d), which differs from conformation to conformation.

    Args:
        stretch: s.
        ends: source and target, K.
    """

    def __init__(self, stretch: float = 1.1, ends: tuple[float, float] = (300.0, 450.0)) -> None:
        self.source, self.target = ends
        self.stretch = stretch

    def require(self, numbers: np.ndarray, bonds: np.ndarray) -> None:
        """Any molecule will do."""

    def __call__(self, positions: np.ndarray, *, inverse: bool) -> Moved:
        x = positions.copy()
        if inverse:
            x[:, 1] -= 0.1 * np.sin(x[:, 0])
            x[:, 0] = np.arcsinh(x[:, 0])
        else:
            x *= self.stretch
        det = 6 * math.log(self.stretch) + np.log(np.cosh(x[:, 0])).sum(axis=-1)
        if inverse:
            return x / self.stretch, -det
        x[:, 0] = np.sinh(x[:, 0])
        x[:, 1] += 0.1 * np.sin(x[:, 0])
        return x, det


def energy(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (STIFF * x**2).sum(axis=(-2, -1)))


def canonical(seed: int, n: int = LADDERS) -> np.ndarray:
    """Exact samples (n, 2, 2, 3) at both temperatures."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 2, 2, 3)) / np.sqrt(BETA[None, :, None, None] * STIFF)


def exchanged(x: np.ndarray, move: Shear, steps: int) -> tuple[np.ndarray, float]:
    """Nothing but mapped swaps, and what share of the last ones was done."""
    mapped = MappedExchange(move, KELVIN)
    share = 0.0
    for step in range(steps):
        rng = np.random.default_rng([5, step])
        proposal = mapped.propose(x, energy(x), energy)
        done = np.array(
            [
                mapped.accepted(swap(e, KELVIN, 0, rng, proposal.of_ladder(k, 1))[0])
                for k, e in enumerate(energy(x))
            ]
        )
        x = np.where(done[:, None, None, None], proposal.positions, x)
        share = float(done.mean())
    return x, share


def p_values(x: np.ndarray) -> list[float]:
    """Of the energies and of every coordinate against their exact distributions."""
    found = []
    for k, beta in enumerate(BETA):
        found.append(kstest(energy(x[:, k]), gamma(3, scale=1 / beta).cdf).pvalue)
        scaled = x[:, k] * np.sqrt(beta * STIFF)
        found += [kstest(scaled[:, a, d], norm.cdf).pvalue for a in range(2) for d in range(3)]
    return found


@pytest.mark.parametrize("ends", [(300.0, 450.0), (450.0, 300.0)])
def test_detailed_balance_of_every_swap(ends: tuple[float, float]) -> None:
    """The swap back has -ln P: with P = min(1, e^ln P), p(x) P(x -> x') |J| = p(x') P(x' -> x)."""
    mapped = MappedExchange(Shear(1.3, ends=ends), KELVIN)
    x = canonical(0, 50)
    there = mapped.propose(x, energy(x), energy)
    back = mapped.propose(there.positions, energy(there.positions), energy)
    np.testing.assert_allclose(back.positions, x, atol=1e-12)
    np.testing.assert_allclose(back.log_p, -there.log_p, atol=1e-9)
    assert mapped.evaluations == 4 * len(x)


def test_swaps_keep_both_ensembles() -> None:
    """Exact samples stay exact when nothing but swaps through an imperfect map acts on them.

    An odd number of swaps: of an even one most conformations would come back unchanged.
    """
    after, share = exchanged(canonical(1), Shear(), 3)
    assert min(p_values(after)) > 1e-3
    assert 0.3 < share < 0.95


def test_a_wrong_log_determinant_is_seen() -> None:
    """The test above can fail: without the log-determinant the ensembles move."""

    class Wrong(Shear):
        def __call__(self, positions: np.ndarray, *, inverse: bool) -> Moved:
            moved, det = super().__call__(positions, inverse=inverse)
            return moved, 0 * det

    after, _ = exchanged(canonical(1), Wrong(), 3)
    assert min(p_values(after)) < 1e-6


def test_the_identity_is_the_plain_swap() -> None:
    class Nothing(Shear):
        def __call__(self, positions: np.ndarray, *, inverse: bool) -> Moved:
            return positions, np.zeros(len(positions))

    x = canonical(2, 200)
    proposal = MappedExchange(Nothing(), KELVIN).propose(x, energy(x), energy)
    plain = (BETA[0] - BETA[1]) * (energy(x[:, 0]) - energy(x[:, 1]))
    np.testing.assert_allclose(proposal.log_p, plain, atol=1e-12)
    np.testing.assert_array_equal(proposal.positions, x[:, ::-1])


def test_only_the_maps_pair_is_mapped() -> None:
    """In a longer ladder the other pairs keep the plain rule, and the map's waits for its turn."""
    kelvin = np.array([250.0, 300.0, 450.0, 500.0])
    mapped, ladder = MappedExchange(Shear(), kelvin), Ladder.start(kelvin)
    assert mapped.pair == 1
    assert not mapped.due(ladder)  # pairs 0 and 2 come first
    energies = np.array([1.0, 2.0, 3.0, 4.0])
    ladder.exchange(energies, 0)
    assert mapped.due(ladder)
    x = canonical(3, 1)
    proposal = mapped.propose(x, energy(x), energy)
    never = np.where(np.arange(3) == 1, -np.inf, np.nan)
    np.testing.assert_array_equal(np.isnan(proposal.of_ladder(0, 3)), np.isnan(never))
    assert not mapped.accepted(ladder.exchange(energies, 0, never))
    ladder.attempts = 1
    always = np.where(np.arange(3) == 1, 1.0, np.nan)
    assert mapped.accepted(ladder.exchange(energies, 0, always))
    assert ladder.accepted[1] == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_conformation_without_energy_is_refused(value: float) -> None:
    """A failed evaluation never becomes an accepted swap, nor spoils another ladder's."""
    x = canonical(4, 3)

    def failing(moved: np.ndarray) -> np.ndarray:
        found = energy(moved)
        found[1] = value
        return found

    mapped = MappedExchange(Shear(), KELVIN)
    proposal = mapped.propose(x, energy(x), failing)
    assert proposal.log_p[1] == -np.inf
    whole = mapped.propose(x, energy(x), energy).log_p
    np.testing.assert_array_equal(proposal.log_p[[0, 2]], whole[[0, 2]])
    rng = np.random.default_rng(0)
    assert not swap(energy(x[1]), KELVIN, 0, rng, proposal.of_ladder(1, 1))[2].any()


class Mirror(Shear):
    """x' = s x, and its mirror image where atom 0 is on the right: bijective, |det| the same."""

    def __call__(self, positions: np.ndarray, *, inverse: bool) -> Moved:
        factor = 1 / self.stretch if inverse else self.stretch
        x = positions * factor
        x[:, :, 2] *= np.where(positions[:, 0, 0] > 0, -1.0, 1.0)[:, None]
        return x, np.full(len(x), 3 * x.shape[1] * math.log(factor))


CENTRE = np.array([[0, 1], [0, 2], [0, 3], [0, 4]])
ARMS = np.array([[0.01, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]]) / 10


def springs(x: np.ndarray) -> np.ndarray:
    """Of the four neighbours' distances: they do not know the hand."""
    r = np.linalg.norm(x[:, 1:] - x[:, :1], axis=-1)
    return np.asarray(((r - 0.17) ** 2).sum(axis=-1) * 100)


def test_a_swap_that_makes_a_mirror_image_is_refused() -> None:
    """Energies would allow it. Its way back is refused as well; other ladders swap as ever."""
    rng = np.random.default_rng(6)
    x = ARMS + 0.005 * rng.standard_normal((40, 2, 5, 3))
    x[:, :, 0, 0] = np.where(np.arange(40) % 2, 0.01, -0.01)[:, None]  # every second one mirrored
    e = np.stack([springs(x[:, k]) for k in (0, 1)], axis=1)
    blind = MappedExchange(Mirror(1.01), KELVIN).propose(x, e, springs)
    assert np.isfinite(blind.log_p).all()  # without bonds nothing is known of hands
    mapped = MappedExchange(Mirror(1.01), KELVIN, CENTRE)
    there = mapped.propose(x, e, springs)
    np.testing.assert_array_equal(there.log_p[1::2], -np.inf)
    np.testing.assert_array_equal(there.log_p[::2], blind.log_p[::2])
    assert mapped.mirrored == 20
    back = np.stack([springs(there.positions[:, k]) for k in (0, 1)], axis=1)
    again = mapped.propose(there.positions, back, springs)
    np.testing.assert_array_equal(again.log_p[1::2], -np.inf)
    np.testing.assert_allclose(again.log_p[::2], -there.log_p[::2], atol=1e-9)
    assert mapped.mirrored == 40
    other = MappedExchange(Mirror(1.01), KELVIN, CENTRE)
    other.restore(mapped.plain())
    assert (other.mirrored, other.evaluations) == (40, 160)


@pytest.mark.parametrize("kelvin", [[300.0, 370.0, 450.0], [300.0, 400.0], [300.0]])
def test_the_ladder_must_have_the_maps_temperatures_side_by_side(kelvin: list[float]) -> None:
    with pytest.raises(UsageError, match="two neighbouring temperatures") as error:
        MappedExchange(Shear(), np.array(kelvin))
    assert "--temperature 300,450" in str(error.value.remedy)
