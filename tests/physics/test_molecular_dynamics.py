"""Langevin dynamics: the canonical distribution of an analytic system, and exact continuation."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openmm
import pytest

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.core.runtime import StopRequest
from mlff_cli.physics.md_schedule import Schedule, make_schedule
from mlff_cli.physics.molecular_dynamics import Replica, choose_engine
from mlff_cli.physics.replica_ensemble import Ensemble
from mlff_cli.physics.replica_exchange import K_B

STIFFNESS = 4000.0  # kJ/mol/nm^2: with a reduced mass of 6 u, omega = 26/ps


def dimers(n: int) -> openmm.System:
    """Make n pairs of atoms with U = k |x_1 - x_2|^2 / 2: three harmonic coordinates each."""
    system = openmm.System()
    force = openmm.HarmonicBondForce()
    for _ in range(n):
        force.addBond(system.addParticle(12.0), system.addParticle(12.0), 0.0, STIFFNESS)
    system.addForce(force)
    return system


def ensemble(
    n: int, temperatures: list[float], schedule: Schedule, seed: int = 1, **more: float
) -> Ensemble:
    return Ensemble(
        choose_engine("CPU"),
        dimers(n),
        np.array(temperatures),
        schedule,
        friction=more.get("friction", 20.0),
        timestep=more.get("timestep", 4.0),
        seed=seed,
    )


def collect(run: Ensemble, end: int) -> dict[str, np.ndarray]:
    kept: dict[str, list[np.ndarray]] = {}

    def write(arrays: Mapping[str, np.ndarray], row: int) -> None:
        assert row == len(arrays["step"]) * len(kept.get("step", []))
        for name, values in arrays.items():
            kept.setdefault(name, []).append(np.array(values))

    with ThreadPoolExecutor(2) as pool:
        while run.step < end:
            assert run.advance(pool, StopRequest(), write)
    return {name: np.stack(values) for name, values in kept.items()}


def test_energies_and_kinetic_temperature_are_the_canonical_ones() -> None:
    """<U> = f/2 k_B T, var U = f/2 (k_B T)^2 for f = 3n springs; <E_kin> = 6n/2 k_B T.

    The middle scheme samples positions of a harmonic well exactly, whatever the time step.
    """
    n, temperature = 100, 350.0
    schedule = Schedule(equilibration=500, production=12_000, interval=40, exchange=0)
    run = ensemble(n, [temperature], schedule)
    run.start(np.zeros((2 * n, 3)) + np.arange(2 * n)[:, None] * 1e-6)
    kept = collect(run, schedule.end)
    u = kept["potential_energy"][:, 0] / (K_B * temperature)
    f = 3 * n
    assert len(u) == 300
    assert u.mean() == pytest.approx(f / 2, abs=4 * np.sqrt(f / 2 / len(u)))
    assert u.var() == pytest.approx(f / 2, rel=4 * np.sqrt(2 / len(u)))
    assert run.mean_heat[0] == pytest.approx(temperature, rel=4 * np.sqrt(1 / f / len(u)) + 0.003)


def test_exchange_keeps_every_temperature_canonical() -> None:
    """Three temperatures that swap half of the time: means and kinetic energies stay in place."""
    n, temperatures = 10, [300.0, 360.0, 430.0]
    schedule = Schedule(equilibration=500, production=12_000, interval=40, exchange=40)
    run = ensemble(n, temperatures, schedule)
    run.start(np.zeros((2 * n, 3)) + np.arange(2 * n)[:, None] * 1e-6)
    kept = collect(run, schedule.end)
    f = 3 * n
    u = kept["potential_energy"] / (K_B * np.array(temperatures))
    assert (np.abs(u.mean(axis=0) - f / 2) < 4 * np.sqrt(f / 2 * 2 / len(u))).all(), u.mean(axis=0)
    np.testing.assert_allclose(run.mean_heat, temperatures, rtol=4 * np.sqrt(2 / (2 * f * len(u))))
    assert (run.ladder.acceptance > 0.2).all()
    assert (run.ladder.acceptance < 0.9).all()
    assert run.ladder.trips.sum() > 4
    assert (np.sort(kept["replica"], axis=1) == np.arange(3)).all()
    np.testing.assert_array_equal(kept["temperature"], np.tile(temperatures, (len(u), 1)))


def test_a_replica_put_elsewhere_is_canonical_from_the_first_step() -> None:
    """As in `test_langevin`, at omega h = 0.52."""
    n, temperature = 30_000, 300.0
    replica = Replica(
        choose_engine("CPU"), dimers(n), temperature, friction=20.0, timestep=20.0, seed=1, index=0
    )
    rng = np.random.default_rng(2)
    stretch = np.sqrt(K_B * temperature / STIFFNESS) * rng.standard_normal((n, 3))
    where = np.stack([-0.5 * stretch, 0.5 * stretch], axis=1).reshape(2 * n, 3)
    replica.start(np.zeros((2 * n, 3)) + np.arange(2 * n)[:, None] * 1e-6)
    replica.place(where, 5)
    np.testing.assert_allclose(replica.positions(), where, atol=1e-6)
    f = 3 * n
    for _ in range(25):
        energy = replica.snapshot().energy / (0.5 * f * K_B * temperature)
        assert energy == pytest.approx(1.0, abs=4.5 * np.sqrt(2 / f))
        replica.step(1)


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_a_restored_ensemble_does_what_the_other_does(stop_after: int) -> None:
    """Bit for bit, and whatever else the receiving context did before."""
    schedule = Schedule(equilibration=40, production=400, interval=40, exchange=60)
    rng = np.random.default_rng(0)
    start = rng.normal(scale=0.02, size=(10, 3))
    whole = ensemble(5, [300.0, 330.0, 370.0], schedule)
    whole.start(start)
    expected = collect(whole, schedule.end)
    first = ensemble(5, [300.0, 330.0, 370.0], schedule)
    first.start(start)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(stop_after):
            first.advance(pool, StopRequest(), lambda arrays, row: None)
    state = {name: np.array(value) for name, value in first.state().items()}
    second = ensemble(5, [300.0, 330.0, 370.0], schedule, seed=1)
    second.start(rng.normal(size=(10, 3)))
    second.restore(state)
    kept: list[Mapping[str, np.ndarray]] = []
    with ThreadPoolExecutor(3) as pool:
        while second.step < schedule.end:
            second.advance(pool, StopRequest(), lambda arrays, row: kept.append(dict(arrays)))
    for name, values in expected.items():
        tail = values[len(values) - len(kept) :]
        np.testing.assert_array_equal(np.stack([k[name] for k in kept]), tail, err_msg=name)


def test_seeds_and_replicas_differ() -> None:
    schedule = Schedule(equilibration=0, production=40, interval=40, exchange=0)
    found = []
    for seed in (1, 1, 2):
        run = ensemble(4, [300.0, 301.0], schedule, seed=seed)
        run.start(np.zeros((8, 3)))
        found.append(collect(run, 40)["position"])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert np.abs(found[0][0, 0] - found[0][0, 1]).max() > 1e-3


def test_an_explosion_is_told() -> None:
    schedule = Schedule(equilibration=0, production=4000, interval=1000, exchange=0)
    run = ensemble(20, [300.0], schedule, timestep=150.0, friction=1.0)
    run.start(np.random.default_rng(0).normal(size=(40, 3)))
    with pytest.raises(NumericalError, match=r"300 K|NaN"):
        collect(run, 4000)


def test_a_stop_request_leaves_a_long_way_to_the_next_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import signal

    from mlff_cli.physics import replica_ensemble

    monkeypatch.setattr(replica_ensemble, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(replica_ensemble, "POLL_SECONDS", 0.05)
    schedule = Schedule(equilibration=0, production=10**8, interval=10**8, exchange=0)
    run = ensemble(5, [300.0], schedule)
    run.start(np.zeros((10, 3)))
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    with ThreadPoolExecutor(1) as pool:
        assert not run.advance(pool, stop, lambda arrays, row: None)
    assert run.step == 0


def test_engines() -> None:
    assert choose_engine("Reference").exact
    assert choose_engine("CPU").exact
    assert not choose_engine("CPU", threads=2).exact
    with pytest.raises(UsageError, match=r"Reference, CPU.*'cpu'"):
        choose_engine("cpu")
    assert (
        Replica(
            choose_engine("Reference"), dimers(2), 300.0, friction=1, timestep=1, seed=0, index=0
        ).degrees_of_freedom
        == 12
    )


def test_schedules() -> None:
    made = make_schedule(time=1.0, equilibration=0.1, interval=0.2, exchange=0.1, timestep=2.0)
    assert made == Schedule(equilibration=50, production=500, interval=100, exchange=50)
    assert made.n_frames == 5
    steps, step = [], 0
    while step < made.end:
        step = made.next_event(step)
        steps.append(step)
    assert steps == list(range(50, 551, 50))
    assert sum(map(made.is_frame, steps)) == 5
    assert sum(map(made.is_exchange, steps)) == 10
    for wrong, told in (
        ({"time": 1.1}, r"--time must be a multiple of --interval \(0.2 ps\), found 1.1 ps"),
        ({"interval": 0.0015}, "--interval must be a multiple of --timestep"),
        ({"exchange": 0.003}, "--exchange-interval must be a multiple"),
        ({"timestep": 0.0}, "--timestep must be positive"),
        ({"time": -1.0}, "--time must be positive"),
        ({"time": float("nan")}, "--time must be positive"),
        ({"equilibration": -1.0}, "--equilibration must be 0 or more"),
    ):
        given = {"time": 1.0, "equilibration": 0.1, "interval": 0.2, "exchange": 0.1}
        with pytest.raises(UsageError, match=told):
            make_schedule(**{**given, "timestep": 2.0, **wrong})
