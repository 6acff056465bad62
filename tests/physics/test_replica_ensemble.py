"""Replicas of OpenMM exchanged through a map, on particles whose energies are known exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openmm
import pytest
from scipy.stats import gamma, kstest

from mlff_cli.core.runtime import StopRequest
from mlff_cli.physics.ensembles.decorrelation import statistical_inefficiency
from mlff_cli.physics.mapped_exchange import MappedExchange
from mlff_cli.physics.md_schedule import Schedule
from mlff_cli.physics.molecular_dynamics import choose_engine
from mlff_cli.physics.replica_ensemble import Ensemble
from mlff_cli.physics.replica_exchange import K_B

KELVIN = np.array([300.0, 600.0])
ATOMS, STIFF, MASS = 4, 500.0, 12.0
INTERNAL = 3 * ATOMS - 3  # harmonic coordinates
EVERY = 40  # steps between exchanges


def springs() -> openmm.System:
    """A spring without length between any two atoms: U = k N / 2 sum (x - centre)^2."""
    system = openmm.System()
    force = openmm.HarmonicBondForce()
    for _ in range(ATOMS):
        system.addParticle(MASS)
    for i, j in itertools.combinations(range(ATOMS), 2):
        force.addBond(i, j, 0.0, STIFF)
    system.addForce(force)
    return system


class Stretch:
    """Stretches about the centre."""

    source, target = 300.0, 600.0

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def require(self, numbers: np.ndarray, bonds: np.ndarray) -> None:
        """Any molecule will do."""

    def __call__(self, positions: np.ndarray, *, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
        s = 1 / self.factor if inverse else self.factor
        centred = positions - positions.mean(axis=1, keepdims=True)
        return s * centred, np.full(len(positions), INTERNAL * math.log(s))


class Frames:
    """What a run writes."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, np.ndarray]] = {}

    def __call__(self, arrays: Mapping[str, np.ndarray], row: int) -> None:
        self.rows[row] = {k: np.array(v) for k, v in arrays.items()}

    def all(self, name: str) -> np.ndarray:
        return np.stack([self.rows[k][name] for k in sorted(self.rows)])


def made(move: Stretch | None, frames: int) -> Ensemble:
    schedule = Schedule(equilibration=1000, production=EVERY * frames, interval=EVERY,
                        exchange=EVERY)  # fmt: skip
    mapped = None if move is None else MappedExchange(move, KELVIN)
    engine = choose_engine("Reference")
    ensemble = Ensemble(engine, springs(), KELVIN, schedule, friction=20.0, timestep=2.0,
                        seed=1, mapped=mapped)  # fmt: skip
    ensemble.start(0.05 * np.random.default_rng(0).standard_normal((ATOMS, 3)))
    return ensemble


def run(ensemble: Ensemble, write: Frames, until: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        while ensemble.step < until:
            assert ensemble.advance(pool, StopRequest(), write)


@pytest.fixture(scope="module")
def mapped() -> tuple[Ensemble, Frames]:
    ensemble, frames = made(Stretch(1.2), 600), Frames()
    run(ensemble, frames, 1000 + 600 * EVERY)
    return ensemble, frames


def test_both_ensembles_are_exact(mapped: tuple[Ensemble, Frames]) -> None:
    """Energies of every temperature are Gamma(9/2, k_B T), after hundreds of mapped swaps."""
    ensemble, frames = mapped
    energy = frames.all("potential_energy")
    for k, t in enumerate(KELVIN):
        g = math.ceil(statistical_inefficiency([energy[:, k]]))
        exact = gamma(INTERNAL / 2, scale=K_B * t)
        assert kstest(energy[::g, k], exact.cdf).pvalue > 1e-3
        assert len(energy[::g]) > 150
    np.testing.assert_allclose(ensemble.mean_heat, KELVIN, rtol=0.05)


def test_swaps_are_those_of_the_map(mapped: tuple[Ensemble, Frames]) -> None:
    """Far more are done than plain ones of the same ladder would be, two energies each."""
    ensemble, _ = mapped
    tried = int(ensemble.ladder.attempted[0])
    assert ensemble.mapped is not None
    assert ensemble.mapped.evaluations == 2 * tried
    rng = np.random.default_rng(0)
    u = rng.gamma(INTERNAL / 2, K_B * KELVIN[:, None], (2, 40_000))
    beta = 1 / (K_B * KELVIN)
    plain = np.minimum(1, np.exp((beta[0] - beta[1]) * (u[0] - u[1]))).mean()
    s2 = ensemble.mapped.move.factor**2  # type: ignore[attr-defined]
    work = (beta[1] * s2 - beta[0]) * u[0] + (beta[0] / s2 - beta[1]) * u[1]
    expected = np.minimum(1, np.exp(-work)).mean()
    assert expected > plain + 0.15
    error = math.sqrt(expected * (1 - expected) / tried)
    assert ensemble.ladder.acceptance[0] == pytest.approx(expected, abs=5 * error)


def test_going_on_from_a_state_gives_the_same_bits() -> None:
    whole, there = made(Stretch(1.3), 60), Frames()
    run(whole, there, 1000 + 60 * EVERY)
    first, here = made(Stretch(1.3), 60), Frames()
    run(first, here, 1000 + 23 * EVERY)
    state = first.state()  # before others are made: random numbers of this platform are one stream
    second = made(Stretch(1.3), 60)
    second.restore(state)
    run(second, here, 1000 + 60 * EVERY)
    np.testing.assert_array_equal(here.all("position"), there.all("position"))
    assert second.mapped is not None
    assert whole.mapped is not None
    assert second.mapped.evaluations == whole.mapped.evaluations > 0
    np.testing.assert_array_equal(second.ladder.accepted, whole.ladder.accepted)
    assert 0 < whole.ladder.accepted[0] < whole.ladder.attempted[0]


def test_a_map_that_leads_to_nothing_leaves_replicas_alone() -> None:
    """Positions that are not finite are never taken; dynamics is that of no exchange at all."""

    class Broken(Stretch):
        def __call__(
            self, positions: np.ndarray, *, inverse: bool
        ) -> tuple[np.ndarray, np.ndarray]:
            moved, det = super().__call__(positions, inverse=inverse)
            return moved * np.nan, det

    ensemble, frames = made(Broken(1.2), 40), Frames()
    run(ensemble, frames, 1000 + 40 * EVERY)
    assert ensemble.ladder.accepted[0] == 0
    assert ensemble.ladder.attempted[0] == 20
    assert np.isfinite(frames.all("position")).all()
