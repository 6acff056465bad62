"""Langevin dynamics: canonical distributions, diffusion, leap-frog, OpenMM's own steps."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from scipy import stats

from mlff_cli.physics.langevin import ANGSTROM_KCAL, K_B, NM_KJ, Langevin
from mlff_cli.physics.replica_exchange import K_B as K_B_KJ

STIFF = 20.0  # kcal/mol/angstrom^2


class Springs:
    """U = k |x|^2 / 2 of every particle; counts what it is asked."""

    def __init__(self, k: float = STIFF) -> None:
        self.k, self.calls, self.settled = k, 0, 0

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        return 0.5 * self.k * x.square().sum((1, 2)), -self.k * x

    def settle(self) -> None:
        self.settled += 1


def free(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_zeros(len(x)), torch.zeros_like(x)


def wells(
    n: int = 20, temperatures: tuple[float, ...] = (300.0,), copies: int = 200, **more: float
) -> Langevin:
    settings = {"friction": 10.0, "timestep": 20.0, "seed": 3, **more}
    masses = np.linspace(12.0, 110.0, n)
    return Langevin(Springs(), masses, np.repeat(temperatures, copies), **settings)


def test_positions_in_a_well_are_canonical_at_any_time_step() -> None:
    """Positions ~ N(0, kT/k), v ~ N(0, kT/m), at omega h = 0.53 for the lightest particle.

    A scheme of second order that is not the middle one would be 7 % off in the variance.
    """
    run = wells(temperatures=(250.0, 400.0))
    run.start(np.zeros((400, 20, 3)))
    run.step(500)
    kT = K_B * run.temperatures[:, None, None]
    x, v = run.x.numpy() / np.sqrt(kT / STIFF), run.v.numpy()
    masses = np.linspace(12.0, 110.0, 20)[:, None]
    for u in (x, v / np.sqrt(kT * ANGSTROM_KCAL / masses)):
        for part in (u[:200], u[200:], u[:, 0]):
            assert stats.kstest(part.ravel(), "norm").pvalue > 1e-3
        assert u.var() == pytest.approx(1.0, abs=4 * np.sqrt(2 / u.size))
    heat = run.kinetic_temperature().numpy()
    error = np.sqrt(2 / (60 * 200))
    assert heat[:200].mean() == pytest.approx(250.0, rel=4 * error)
    assert heat[200:].mean() == pytest.approx(400.0, rel=4 * error)


def test_free_particles_diffuse_as_einstein_says() -> None:
    """<|x|^2> = 6 D t (1 - (1 - exp(-gamma t))/(gamma t)), D = kT/(m gamma); v forgets itself."""
    gamma, h, steps, m = 5.0, 4.0, 250, 50.0
    run = Langevin(free, np.full(10, m), np.full(400, 300.0), friction=gamma, timestep=h, seed=0)
    run.start(np.zeros((400, 10, 3)))
    v0, t = run.v.clone(), steps * h / 1000
    run.step(steps)
    d = K_B * 300.0 * ANGSTROM_KCAL / (m * gamma)
    expected = 6 * d * t * (1 - (1 - np.exp(-gamma * t)) / (gamma * t))
    samples = 4000
    assert float(run.x.square().sum(-1).mean()) == pytest.approx(
        expected, rel=4 * np.sqrt(2 / 3 / samples) + 0.01
    )
    correlation = float((v0 * run.v).mean() / v0.square().mean())
    assert correlation == pytest.approx(np.exp(-gamma * t), abs=4 / np.sqrt(3 * samples))


def test_without_friction_it_is_reversible_and_keeps_the_energy() -> None:
    run = wells(copies=2, friction=0.0, timestep=5.0)
    run.start(np.random.default_rng(0).normal(size=(2, 20, 3)))
    start = run.x.clone()
    run.step(200)
    # v is that of half a step before x: back it goes from the half step after
    run.v = -(run.v + run.forces * run._kick)
    run.step(200)
    torch.testing.assert_close(run.x, start, rtol=1e-9, atol=1e-9)
    run.step(1)
    slow = wells(copies=2, friction=0.0, timestep=1.0)
    slow.start(start)

    def total() -> torch.Tensor:  # velocities of the positions' own time
        v = slow.v + 0.5 * slow.forces * slow._kick
        mass = torch.linspace(12.0, 110.0, 20, dtype=torch.float64)[:, None]
        return slow.energy + 0.5 * (mass * v.square()).sum((1, 2)) / ANGSTROM_KCAL

    before = total()
    slow.step(200)
    torch.testing.assert_close(total(), before, rtol=2e-3, atol=0.0)


def test_a_well_swings_with_its_period() -> None:
    """T = 2 pi sqrt(m/k), in picoseconds."""
    m, h = 50.0, 1.0
    run = Langevin(Springs(), np.array([m]), np.array([1e-9]), friction=0.0, timestep=h, seed=0)
    run.start(np.array([[[1.0, 0.0, 0.0]]]))
    period = 2 * np.pi * np.sqrt(m / (STIFF * ANGSTROM_KCAL))
    track = []
    for _ in range(round(2 * period * 1000 / h)):
        track.append(float(run.x[0, 0, 0]))
        run.step()
    sign = np.flatnonzero(np.diff(np.sign(track)) < 0)
    assert (sign[1] - sign[0]) * h / 1000 == pytest.approx(period, abs=1.5 * h / 1000)


def test_openmm_takes_the_same_steps() -> None:
    """LangevinMiddleIntegrator without friction on a chain of springs, nm and kJ/mol."""
    n, k, r0 = 5, 4000.0, 0.3
    system, force = openmm.System(), openmm.HarmonicBondForce()
    masses = np.array([12.0, 14.0, 16.0, 30.0, 110.0])
    for m in masses:
        system.addParticle(m)
    for i in range(n - 1):
        force.addBond(i, i + 1, r0, k)
    system.addForce(force)
    x0 = np.cumsum(np.random.default_rng(1).normal(0.0, 0.2, (n, 3)), axis=0)
    integrator = openmm.LangevinMiddleIntegrator(0.0, 0.0, 0.002)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(x0)
    integrator.step(200)
    theirs = context.getState(positions=True).getPositions(asNumpy=True)._value

    def springs(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.detach().requires_grad_()
        r = (x[:, 1:] - x[:, :-1]).norm(dim=-1)
        energy = 0.5 * k * (r - r0).square().sum(-1)
        return energy, -torch.autograd.grad(energy.sum(), x)[0]

    run = Langevin(
        springs, masses, np.array([1e-12]), friction=0.0, timestep=2.0, seed=0, k_B=K_B_KJ,
        scale=NM_KJ,
    )  # fmt: skip
    run.start(x0[None])
    run.v.zero_()
    run.step(200)
    np.testing.assert_allclose(run.positions()[0], theirs, atol=1e-9)


def test_going_on_from_a_state_gives_the_same_bits() -> None:
    whole, first, second = (wells(copies=3) for _ in range(3))
    begin = np.random.default_rng(5).normal(size=(3, 20, 3))
    for run in (whole, first):
        run.start(begin)
        run.step(7)
        run.settle()
    second.restore(first.state())
    whole.step(9)
    second.step(4)
    second.step(5)
    assert torch.equal(whole.x, second.x)
    assert torch.equal(whole.v, second.v)
    assert torch.equal(whole.forces, second.forces)
    assert second.potential.settled > 0


def test_seeds_decide_everything_and_no_global_state_is_touched() -> None:
    before = torch.random.get_rng_state()
    runs = [wells(copies=2, seed=seed) for seed in (1, 1, 2)]
    for run in runs:
        run.start(np.zeros((2, 20, 3)))
        run.step(3)
    assert torch.equal(runs[0].x, runs[1].x)
    assert not torch.equal(runs[0].x, runs[2].x)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32


def test_another_thermostat_rescales_velocities() -> None:
    run = wells(copies=4)
    run.start(np.zeros((4, 20, 3)))
    v = run.v.clone()
    run.assign(np.array([300.0, 1200.0, 75.0, 300.0]))
    torch.testing.assert_close(run.v, v * torch.tensor([1.0, 2.0, 0.5, 1.0])[:, None, None])
    with pytest.raises(ValueError, match=r"broadcast|shape"):
        run.assign(np.array([300.0, 310.0]))


def test_replicas_put_elsewhere_are_canonical_from_the_first_step() -> None:
    """At omega h = 0.53, after hundreds of steps or after one: nothing swings, nothing is heated.

    Velocities drawn where the scheme does not have them put up to 30 % into the mean energy, and
    those drawn without regard to the time step 4 %.
    """
    run = wells(n=4, copies=8000)
    run.start(np.zeros((8000, 4, 3)))
    kT = K_B * 300.0
    where = np.sqrt(kT / STIFF) * np.random.default_rng(1).standard_normal((8000, 4, 3))
    rows = np.arange(0, 8000, 2)  # the others are left alone
    before = run.x[1::2].clone(), run.v[1::2].clone()
    run.place(rows, where[rows])
    torch.testing.assert_close((run.x[1::2], run.v[1::2]), before, rtol=0.0, atol=0.0)
    np.testing.assert_array_equal(run.x[::2].numpy(), where[rows])
    error = np.sqrt(2 / where[rows].size)
    for _ in range(25):
        energy = run.energy[::2].mean() / (6.0 * kT)
        assert energy == pytest.approx(1.0, abs=4.5 * error)
        assert run.kinetic_temperature()[::2].mean() / 300.0 == pytest.approx(1.0, abs=4.5 * error)
        run.step()


def test_one_evaluation_a_step_and_centres_at_the_origin() -> None:
    run = Langevin(
        Springs(), np.array([1.0, 3.0]), np.full(2, 300.0), friction=1.0, timestep=1.0, seed=0,
        recentre=True,
    )  # fmt: skip
    run.start(np.full((2, 2, 3), 5.0))
    calls = run.potential.calls
    run.step(10)
    run.settle()
    assert run.potential.calls == calls + 10
    centre = (run.x * torch.tensor([0.25, 0.75], dtype=torch.float64)[:, None]).sum(1)
    torch.testing.assert_close(centre, torch.zeros_like(centre), atol=1e-12, rtol=0.0)
    found = run.snapshots()
    assert found.positions.shape == found.forces.shape == (2, 2, 3)
    assert found.energy.dtype == np.float64
    assert found.kinetic_temperature.shape == (2,)
