"""Replicas in one batch: OpenMM's trajectory, exchange, states, threads, what explodes."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openmm
import pytest
import torch

from mlff_cli.core.errors import NumericalError
from mlff_cli.core.runtime import StopRequest
from mlff_cli.physics.batched_ensemble import BatchedEnsemble, BatchedPotential
from mlff_cli.physics.forcefield import ForceField
from mlff_cli.physics.langevin import NM_KJ, Langevin
from mlff_cli.physics.mapped_exchange import MappedExchange
from mlff_cli.physics.md_schedule import Schedule
from tests.physics.forcefield.molecules import molecule, reference, relaxed, shaken

SCHEDULE = Schedule(equilibration=4, production=16, interval=4, exchange=8)
TEMPERATURES = np.array([300.0, 330.0, 360.0])


@pytest.fixture(scope="module")
def dipeptide() -> tuple[openmm.System, np.ndarray]:
    made = molecule()
    return made.system, relaxed(made)


def _ensemble(system: openmm.System, **changed: Any) -> BatchedEnsemble:
    given: dict[str, Any] = {"copies": 2, "friction": 1.0, "timestep": 1.0, "seed": 3} | changed
    return BatchedEnsemble(ForceField.from_system(system), TEMPERATURES, SCHEDULE, **given)


def _run(ensemble: BatchedEnsemble, until: int = SCHEDULE.end) -> list[dict[str, np.ndarray]]:
    """Frames up to a step."""
    frames: list[dict[str, np.ndarray]] = []

    def write(arrays: Mapping[str, np.ndarray], row: int) -> None:
        frames.append({**arrays, "row": np.asarray(row)})

    with ThreadPoolExecutor(1) as pool:
        while ensemble.step < until:
            assert ensemble.advance(pool, StopRequest(), write)
    return frames


def test_without_friction_it_is_the_trajectory_of_openmm(
    dipeptide: tuple[openmm.System, np.ndarray],
) -> None:
    system, x = dipeptide
    field = ForceField.from_system(system)
    masses = field.masses.numpy()
    dynamics = Langevin(
        BatchedPotential(field),
        masses,
        np.array([300.0, 500.0]),
        friction=0.0,
        timestep=1.0,
        seed=0,
        k_B=0.00831446261815324,
        scale=NM_KJ,
    )
    dynamics.start(shaken(x, (0.0, 0.001)))
    first, speeds = dynamics.positions(), dynamics.v.numpy().copy()
    dynamics.step(50)
    context = reference(system)
    for k in range(2):
        context.reinitialize()
        context.setPositions(first[k])
        context.setVelocities(speeds[k])  # of half a step before, in both
        context.getIntegrator().step(50)
        reached = context.getState(positions=True).getPositions(asNumpy=True)._value
        assert np.abs(reached - first[k]).max() > 1e-3
        np.testing.assert_allclose(dynamics.positions()[k], reached, atol=1e-8)


def test_frames_are_ordered_and_belong_together(
    dipeptide: tuple[openmm.System, np.ndarray],
) -> None:
    system, x = dipeptide
    ensemble = _ensemble(system)
    ensemble.start(x)
    frames = _run(ensemble)
    assert [int(f["row"]) for f in frames] == [0, 6, 12, 18]
    assert [f["step"][0] for f in frames] == [4, 8, 12, 16]
    field = ForceField.from_system(system)
    for frame in frames:
        np.testing.assert_array_equal(frame["temperature"], np.repeat(TEMPERATURES, 2))
        assert sorted(frame["replica"]) == list(range(6))
        assert (frame["replica"].reshape(3, 2) // 3 == [0, 1]).all()  # a ladder keeps its replicas
        energy, gradient = field.energy_and_gradient(torch.from_numpy(frame["position"]))
        np.testing.assert_allclose(frame["potential_energy"], energy, rtol=1e-9)
        np.testing.assert_allclose(frame["force"], -gradient, rtol=1e-6, atol=1e-6)
    assert ensemble.ladder.attempted.tolist() == [2, 2]
    assert len(ensemble.ladder.trips) == 6
    assert (abs(ensemble.mean_heat - 200) < 160).all()  # from a minimum half goes to the potential


@pytest.mark.parametrize("at", [4, 12])
def test_from_a_state_it_goes_on_as_if_never_left(
    dipeptide: tuple[openmm.System, np.ndarray], at: int
) -> None:
    system, x = dipeptide
    whole = _ensemble(system)
    whole.start(x)
    first = _run(whole, at)
    kept = {name: values.copy() for name, values in whole.state().items()}
    frames = _run(whole)
    again = _ensemble(system)
    again.restore(kept)
    assert again.step == at
    for mine, other in zip(_run(again), frames, strict=True):
        for name, values in other.items():
            np.testing.assert_array_equal(mine[name], values)
    for name, values in whole.state().items():
        np.testing.assert_array_equal(again.state()[name], values)
    assert len(first) + len(frames) == SCHEDULE.n_frames


def test_threads_change_no_bit(
    dipeptide: tuple[openmm.System, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlff_cli.physics.batched_ensemble.PART", 3)
    field = ForceField.from_system(dipeptide[0], torch.float32)
    x = torch.from_numpy(shaken(dipeptide[1], (0.005,) * 8))
    one, three = (BatchedPotential(field, threads)(x) for threads in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert torch.equal(a, b)
    assert one[0].dtype == torch.float64


class _Same:
    """The identity, which makes every mapped swap a plain one."""

    source, target = 300.0, 330.0

    def __call__(self, positions: np.ndarray, *, inverse: bool) -> tuple[np.ndarray, np.ndarray]:
        return positions.copy(), np.zeros(len(positions))


def test_a_mapped_swap_through_the_identity_is_a_plain_one(
    dipeptide: tuple[openmm.System, np.ndarray],
) -> None:
    system, x = dipeptide
    plain, mapped = (
        _ensemble(system, mapped=m) for m in (None, MappedExchange(_Same(), TEMPERATURES))
    )
    for ensemble in (plain, mapped):
        ensemble.start(x)
        _run(ensemble, 12)  # the first exchange is at 12
    np.testing.assert_array_equal(plain.at, mapped.at)
    assert plain.ladder.accepted[0] == mapped.ladder.accepted[0] > 0
    assert mapped.mapped is not None
    assert mapped.mapped.evaluations == 4  # two of each of the two ladders
    a, b = plain.state(), mapped.state()
    np.testing.assert_allclose(a["dynamics_x"], b["dynamics_x"], atol=1e-12)
    np.testing.assert_allclose(a["dynamics_energy"], b["dynamics_energy"], rtol=1e-9)
    moved = plain.at[:, :2].ravel() != np.array([0, 1, 3, 4])
    other = (a["dynamics_v"] != b["dynamics_v"]).any((1, 2))
    assert set(np.flatnonzero(other)) == set(plain.at[:, :2].ravel()[moved])


@pytest.mark.parametrize("timestep", [12.0, 60.0])
def test_an_explosion_is_told(dipeptide: tuple[openmm.System, np.ndarray], timestep: float) -> None:
    ensemble = _ensemble(dipeptide[0], timestep=timestep)
    ensemble.start(dipeptide[1])
    with pytest.raises(NumericalError, match=r"at 3\d0 K.*replica|near 3\d0 K.*replica"):
        _run(ensemble)


def test_a_run_that_takes_long_is_left_when_asked(
    dipeptide: tuple[openmm.System, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    monkeypatch.setattr("mlff_cli.physics.batched_ensemble.GRACE_SECONDS", -1.0)
    ensemble = _ensemble(dipeptide[0])
    ensemble.start(dipeptide[1])
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    with ThreadPoolExecutor(1) as pool:
        assert not ensemble.advance(pool, stop, lambda arrays, row: None)
    assert ensemble.step == 0
