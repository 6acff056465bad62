"""Runs of replicas: canonical at every temperature, continued exactly, stopped when one breaks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy import stats

from mlff_cli.core.units import KJ_PER_KCAL
from mlff_cli.physics.langevin import K_B, Langevin
from mlff_cli.physics.md_schedule import Schedule
from mlff_cli.potentials.prior import Prior
from mlff_cli.sampling.beads.dynamics import LOOK, BeadDynamics, BrokenChainError
from mlff_cli.sampling.beads.guard import Guard
from tests.potentials.prior_cases import PARAMETRIC, chain_terms, chain_types

STIFF, N = 2.0, 4


class Anywhere(Guard):
    """Limits of beads that have no bonds and may lie on each other."""

    def __init__(self) -> None:
        super().__init__(np.zeros((0, 2), dtype=int), 50.0 * np.eye(3)[None], list("abc"))

    def _nearest(self, x: np.ndarray, reach: float) -> tuple[float, int, int, int]:
        return reach, -1, -1, -1


def springs(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return 0.5 * STIFF * x.square().sum((1, 2)), -STIFF * x


def springs_run(
    temperatures: tuple[float, ...], ladders: int, schedule: Schedule, seed: int = 0
) -> BeadDynamics:
    start = np.tile(temperatures, ladders)
    mover = Langevin(springs, np.full(N, 50.0), start, friction=20.0, timestep=20.0, seed=seed)
    return BeadDynamics(
        mover, Anywhere(), np.array(temperatures), ladders, schedule, timestep=20.0, seed=seed
    )


def collect(run: BeadDynamics, until: int | None = None) -> dict[str, np.ndarray]:
    kept: dict[str, list[np.ndarray]] = {}

    def write(arrays: Mapping[str, np.ndarray], row: int) -> None:
        assert row % run.n_replicas == 0
        for name, values in arrays.items():
            kept.setdefault(name, []).append(np.array(values))

    while run.step < (run.schedule.end if until is None else until):
        run.advance(write)
    return {name: np.stack(values) for name, values in kept.items()}


def test_exchange_leaves_every_temperature_canonical() -> None:
    """U / kT ~ Gamma(3N/2) at every temperature, though replicas swap a third of the time."""
    temperatures, ladders = (300.0, 420.0, 600.0), 60
    schedule = Schedule(equilibration=0, production=1600, interval=40, exchange=10)
    run = springs_run(temperatures, ladders, schedule)
    run.start(np.zeros((3 * ladders, N, 3)))
    kept = collect(run)
    u = kept["potential_energy"][20:] / KJ_PER_KCAL
    u = u.reshape(len(u), ladders, 3) / (K_B * np.array(temperatures))
    frames = u[::4].reshape(-1, 3)  # apart by more than the correlation time
    for k in range(3):
        assert stats.kstest(frames[:, k], "gamma", (1.5 * N,)).pvalue > 1e-3
    counts = run.exchanged()
    assert (counts.attempted == ladders * 80).all()
    expected = [_swapped(a, b) for a, b in ((300.0, 420.0), (420.0, 600.0))]
    np.testing.assert_allclose(counts.acceptance, expected, atol=0.03)
    assert counts.trips.sum() > ladders
    np.testing.assert_allclose(run.mean_heat, temperatures, rtol=0.03)
    # every ladder holds its own replicas, each once
    np.testing.assert_array_equal(
        np.sort(kept["replica"].reshape(-1, ladders, 3), axis=2),
        np.broadcast_to(np.arange(3 * ladders).reshape(ladders, 3), (40, ladders, 3)),
    )
    np.testing.assert_array_equal(kept["temperature"][7], np.tile(temperatures, ladders))


def _swapped(low: float, high: float, samples: int = 200_000) -> float:
    """Mean acceptance between exact samples of two temperatures."""
    rng = np.random.default_rng(0)
    a, b = (rng.gamma(1.5 * N, t, samples) for t in (low, high))
    return float(np.exp(np.minimum(0.0, (1 / low - 1 / high) * (a - b))).mean())


def test_a_run_that_goes_on_writes_the_same_bits() -> None:
    schedule = Schedule(equilibration=0, production=130, interval=13, exchange=9)
    begin = np.random.default_rng(1).normal(size=(6, N, 3))
    whole = springs_run((300.0, 330.0), 3, schedule)
    whole.start(begin)
    expected = collect(whole)
    first = springs_run((300.0, 330.0), 3, schedule)
    first.start(begin)
    before = collect(first, until=60)
    second = springs_run((300.0, 330.0), 3, schedule)
    second.restore({k: v.copy() for k, v in first.state().items()})
    after = collect(second)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.concatenate([before[name], after[name]]), values)
    np.testing.assert_array_equal(second.mean_heat, whole.mean_heat)
    assert [a.accepted.tolist() for a in second.ladders] == [
        a.accepted.tolist() for a in whole.ladders
    ]


def test_frames_are_in_the_units_of_h5md() -> None:
    schedule = Schedule(equilibration=0, production=4, interval=4, exchange=0)
    run = springs_run((300.0,), 2, schedule)
    run.start(np.ones((2, N, 3)))
    kept = collect(run)
    x = run.replicas.positions()
    np.testing.assert_allclose(kept["position"][0], 0.1 * x)
    np.testing.assert_allclose(kept["force"][0], -STIFF * x * 41.84)
    np.testing.assert_allclose(
        kept["potential_energy"][0], 0.5 * STIFF * (x**2).sum((1, 2)) * 4.184
    )
    assert kept["time"][0].tolist() == [0.08, 0.08]


def breaking(kind: str) -> BeadDynamics:
    """Two beads with a bond that something tears, squeezes, or turns into NaN in replica 2."""

    def potential(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        d = x[:, 1] - x[:, 0]
        pull = torch.zeros_like(x)
        push = {"tears": 5.0, "squeezes": -5.0, "nan": float("nan")}[kind]
        pull[2, 1], pull[2, 0] = push * d[2], -push * d[2]
        return x.new_zeros(len(x)), pull

    start = np.zeros((4, 2, 3))
    start[:, 1, 0] = 3.8
    mover = Langevin(
        potential, np.full(2, 50.0), np.full(4, 10.0), friction=1.0, timestep=2.0, seed=0
    )
    guard = Guard(np.array([[0, 1]]), start, ["ALA 1 CA", "GLY 2 CA"])
    schedule = Schedule(equilibration=0, production=2000, interval=500, exchange=0)
    run = BeadDynamics(mover, guard, np.array([10.0]), 4, schedule, timestep=2.0, seed=0)
    run.start(start)
    return run


@pytest.mark.parametrize(
    ("kind", "told"), [("tears", "has broken"), ("squeezes", "has collapsed"), ("nan", "NaN")]
)
def test_a_broken_chain_stops_the_run_and_hands_over_the_frame(kind: str, told: str) -> None:
    run = breaking(kind)
    with pytest.raises(BrokenChainError, match=told) as caught:
        collect(run)
    error = caught.value
    assert (error.replica, error.temperature, error.exit_code) == (2, 10.0, 5)
    assert error.step % LOOK == 0
    if kind == "nan":  # the first look found it: no frame before
        assert error.step == LOOK
    else:
        assert np.isfinite(error.positions).all()
        r = np.linalg.norm(error.positions[1] - error.positions[0])
        assert not 1.9 <= r <= 5.7


def test_a_chain_under_its_prior_stays_whole_and_warm() -> None:
    n, copies = 10, 16
    terms, types = chain_terms(n), chain_types(n)
    prior = Prior(PARAMETRIC)
    bound = prior.bind(terms, types)
    x = np.zeros((copies, n, 3))
    x[:, :, 0], x[:, :, 1] = 3.2 * np.arange(n), 2.0 * (np.arange(n) % 2)
    x += np.random.default_rng(0).normal(0.0, 0.05, x.shape)
    mover = Langevin(
        lambda y: prior.energy_and_forces(y, bound),
        np.full(n, 110.0), np.full(copies, 300.0), friction=5.0, timestep=4.0, seed=0,
        recentre=True,
    )  # fmt: skip
    guard = Guard(terms.bonds, x, [f"{t} {k}" for k, t in enumerate(types)])
    schedule = Schedule(equilibration=0, production=200, interval=20, exchange=0)
    run = BeadDynamics(mover, guard, np.array([300.0]), copies, schedule, timestep=4.0, seed=0)
    run.start(x)
    kept = collect(run)
    assert kept["position"].shape == (10, copies, n, 3)
    np.testing.assert_allclose(kept["position"].mean(axis=2), 0.0, atol=0.02)
    assert run.mean_heat[0] == pytest.approx(300.0, rel=0.15)
