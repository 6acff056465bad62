"""Internal coordinates and forms: closed forms, gradients, and what happens at the edges."""

import math

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlff_cli.physics import bonded

few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def points(seed, n, w):
    rng = torch.Generator().manual_seed(seed)
    return 5.0 * torch.randn(n, w, 3, generator=rng, dtype=torch.float64)


def test_coordinates_are_those_of_mdtraj():
    p = points(1, 50, 4)
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(4):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    frames = mdtraj.Trajectory(p.numpy(), topology)
    a, b, c, d = p.unbind(1)
    r = mdtraj.compute_distances(frames, [[0, 1]], periodic=False)[:, 0]
    theta = mdtraj.compute_angles(frames, [[0, 1, 2]], periodic=False)[:, 0]
    phi = mdtraj.compute_dihedrals(frames, [[0, 1, 2, 3]], periodic=False)[:, 0]
    assert bonded.distance(a, b).numpy() == pytest.approx(r, rel=1e-5)
    assert bonded.angle(a, b, c).numpy() == pytest.approx(theta, abs=1e-4)
    ours, sine_b, sine_c = bonded.dihedral(a, b, c, d)
    assert ours.numpy() == pytest.approx(phi, abs=1e-3)
    assert sine_b.numpy() == pytest.approx(np.sin(theta), abs=1e-4)
    assert sine_c.tolist() == pytest.approx(bonded.angle(b, c, d).sin().tolist(), abs=1e-12)


def test_the_sign_of_a_dihedral_is_that_of_iupac():
    """Looking from b to c, the front bond turns clockwise onto the far one: positive."""
    a, b, c = double([1.0, 0.0, 0.0]), double([0.0, 0.0, 0.0]), double([0.0, 0.0, 1.0])
    for degrees in (30.0, 90.0, -120.0, 180.0):
        t = math.radians(degrees)
        d = double([math.cos(t), math.sin(t), 1.0])
        assert math.degrees(bonded.dihedral(a, b, c, d)[0]) == pytest.approx(degrees)


@few
@given(st.integers(0, 10**6))
def test_angles_and_dihedrals_read_backwards_are_the_same(seed):
    a, b, c, d = points(seed, 3, 4).unbind(1)
    assert torch.allclose(bonded.angle(a, b, c), bonded.angle(c, b, a), atol=1e-12)
    forth, back = bonded.dihedral(a, b, c, d), bonded.dihedral(d, c, b, a)
    assert torch.allclose(torch.cos(forth[0] - back[0]), torch.ones(3).double(), atol=1e-12)
    assert torch.allclose(forth[1], back[2])


def test_gradients_of_coordinates():
    a, b, c, d = (p.requires_grad_() for p in points(2, 3, 4).unbind(1))
    assert torch.autograd.gradcheck(bonded.distance, (a, b))
    assert torch.autograd.gradcheck(bonded.angle, (a, b, c))
    assert torch.autograd.gradcheck(bonded.dihedral, (a, b, c, d))
    assert torch.autograd.gradgradcheck(bonded.angle, (a, b, c))
    assert torch.autograd.gradgradcheck(lambda *p: bonded.dihedral(*p)[0], (a, b, c, d))


STRANGE = {
    "coincident": [[1.0, 2.0, 3.0]] * 4,
    "straight": [[0.0, 0.0, 1.0], [0.0, 0.0, 4.8], [0.0, 0.0, 8.6], [0.0, 0.0, 12.4]],
    "folded": [[1.0, 0.0, 0.0], [4.8, 0.0, 0.0], [1.0, 0.0, 0.0], [4.8, 0.0, 0.0]],
    "first two coincide": [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 2.0, 0.0], [3.0, 3.0, 3.0]],
    "middle two coincide": [[0.0, 2.0, 0.0], [3.0, 2.0, 0.0], [3.0, 2.0, 0.0], [3.0, 3.0, 3.0]],
    "straight by halves": [[0.0, 0.0, 0.0], [3.8, 0.0, 0.0], [7.6, 0.0, 0.0], [7.6, 3.8, 1.0]],
    "stretched": [[0.0, 0.0, 0.0], [1e6, 0.0, 0.0], [1e6, 1e6, 0.0], [1e6, 1e6, -1e6]],
    "far away": [[1e5, 1e5, 1e5]] * 4,
    "almost straight": [[0.0, 0.0, 0.0], [3.8, 1e-9, 0.0], [7.6, 0.0, 1e-9], [11.4, 0.0, 0.0]],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", STRANGE)
def test_values_and_two_gradients_are_finite(name, dtype):
    p = torch.tensor(STRANGE[name], dtype=dtype, requires_grad=True)
    a, b, c, d = p.unbind(0)
    phi, sine_b, sine_c = bonded.dihedral(a, b, c, d)
    fade = bonded.fade(sine_b, 0.2) * bonded.fade(sine_c, 0.2)
    for value in (bonded.distance(a, b), bonded.angle(a, b, c), fade * torch.cos(phi - 0.3)):
        (first,) = torch.autograd.grad(value, p, create_graph=True)
        assert value.isfinite()
        assert first.isfinite().all()
        if first.requires_grad:
            (second,) = torch.autograd.grad(first.square().sum(), p, retain_graph=True)
            assert second.isfinite().all()


@few
@given(st.floats(1e-12, 0.3), st.floats(0.0, 2 * math.pi))
def test_a_fading_dihedral_has_a_bounded_force_that_vanishes_with_the_angle(bend, turn):
    """Without the fade the force is 1/(r sin theta); with it at most about 2/(r d)."""
    s, r = bend, 3.8
    p = double(
        [
            [-r * math.cos(s), r * math.sin(s), 0.0],
            [0.0, 0.0, 0.0],
            [r, 0.0, 0.0],
            [r, r * math.cos(turn), r * math.sin(turn)],
        ]
    ).requires_grad_()
    phi, sine_b, sine_c = bonded.dihedral(*p.unbind(0))
    u = torch.cos(phi - 1.0) * bonded.fade(sine_b, 0.2) * bonded.fade(sine_c, 0.2)
    (gradient,) = torch.autograd.grad(u, p)
    assert gradient.norm().item() < 12.0
    if s < 1e-3:
        assert gradient.norm().item() < 30.0 * s
        assert abs(u.item()) < 1e-5
    if s > 0.2014:
        assert u.item() == pytest.approx(math.cos(phi.item() - 1.0), abs=1e-12)


def test_without_a_fade_only_what_is_collinear_is_left_out():
    assert bonded.fade(double([0.0, 1e-5, 0.1, 1.0]), 0.0).tolist() == [0.0, 1.0, 1.0, 1.0]
    assert bonded.fade(double([0.0, 0.1, 0.2, 1.0]), 0.2).tolist() == [0.0, 0.5, 1.0, 1.0]


def test_the_angle_keeps_its_precision_where_it_is_straight():
    for s in (1e-3, 1e-5):
        a, b, c = double([-1.0, s, 0.0]), double([0.0, 0.0, 0.0]), double([1.0, 0.0, 0.0])
        assert math.pi - bonded.angle(a, b, c).item() == pytest.approx(math.atan(s), rel=1e-9)


def test_where_there_is_no_direction_the_documented_values_stand():
    a, b, d = double([1.0, 2.0, 3.0]), double([2.0, 0.0, 3.0]), double([0.0, 1.0, 4.0])
    assert bonded.angle(a, a, b).item() == pytest.approx(math.pi / 2)
    assert bonded.angle(b, a, a).item() == pytest.approx(math.pi / 2)
    assert [v.item() for v in bonded.dihedral(a, b, 2 * b - a, d)][:2] == [0.0, 0.0]
    assert bonded.distance(a, a + 1e-7).item() == 0.0


def test_harmonic():
    assert bonded.harmonic(double(4.0), double(10.0), double(3.8)).item() == pytest.approx(0.2)


def test_fourier():
    theta, a, b = 1.1, [1.0, -2.0, 0.5], [0.3, 0.0, -1.0]
    expected = sum(
        x * math.cos(n * theta) + y * math.sin(n * theta)
        for n, (x, y) in enumerate(zip(a, b, strict=True), 1)
    )
    assert bonded.fourier(double(theta), double(a), double(b)).item() == pytest.approx(expected)


def test_cosine():
    phi, k, gamma = -2.3, [1.0, 2.0], [0.4, -1.5]
    expected = sum(
        x * (1.0 + math.cos(n * phi - g)) for n, (x, g) in enumerate(zip(k, gamma, strict=True), 1)
    )
    assert bonded.cosine(double(phi), double(k), double(gamma)).item() == pytest.approx(expected)


SPHERE = [double(v) for v in (1.3, 5.0, 2.5, 10.0, 12.5)]  # epsilon, sigma, core, onset, cutoff


def sphere(r):
    return bonded.soft_sphere(r, *SPHERE)


def slopes(r, order):
    r = double(r).requires_grad_()
    u = sphere(r)
    for _ in range(order):
        (u,) = torch.autograd.grad(u.sum(), r, create_graph=True)
    return u.detach()


def test_a_soft_sphere_is_the_power_law_between_core_and_onset():
    r = torch.linspace(2.5, 10.0, 50, dtype=torch.float64)
    assert torch.allclose(sphere(r), 1.3 * (5.0 / r) ** 4, rtol=1e-14)


def test_a_soft_sphere_is_zero_from_its_cutoff_on_and_reaches_it_smoothly():
    beyond = [12.5, 12.6, 20.0, 1e6]
    assert not sphere(double(beyond)).any()
    assert not slopes(beyond, 1).any()
    e = 1e-6
    for r in (10.0, 12.5):
        for order in (0, 1, 2):
            below, above = slopes([r - e, r + e], order).tolist()
            assert below == pytest.approx(above, abs=1e-4)


def test_a_soft_sphere_rises_in_a_straight_line_below_its_core():
    u = sphere(double([0.0, 1.0, 2.0, 2.5]))
    assert u[0].item() == pytest.approx(1.3 * 80.0)
    assert u.diff().div(double([1.0, 1.0, 0.5])).tolist() == pytest.approx([-1.3 * 64 / 2.5] * 3)
    force = slopes([0.0, 2.4, 2.5, 2.5 + 1e-9], 1)
    assert force.tolist() == pytest.approx([-1.3 * 64 / 2.5] * 4)


@few
@given(st.lists(st.floats(0.0, 13.0), min_size=2, max_size=2))
def test_a_soft_sphere_never_attracts(r):
    near, far = sphere(double(sorted(r))).tolist()
    assert near >= far >= 0.0


def test_walls_are_springs_outside():
    k, low, high = double(50.0), double(3.0), double(4.0)
    q = double([2.5, 3.0, 3.5, 4.0, 4.2])
    assert bonded.wall(q, k, low, high).tolist() == pytest.approx([6.25, 0.0, 0.0, 0.0, 1.0])
    none = double(-math.inf), double(math.inf)
    q.requires_grad_()
    u = bonded.wall(q, k, *none).sum()
    (slope,) = torch.autograd.grad(u, q)
    assert u.item() == 0.0
    assert not slope.any()


def test_gradients_of_forms():
    rng = torch.Generator().manual_seed(5)

    def random(*shape, low=0.5, high=3.0):
        u = torch.rand(*shape, generator=rng, dtype=torch.float64)
        return (low + (high - low) * u).requires_grad_()

    q, k, r0 = random(7), random(7), random(7)
    a, b = random(7, 3), random(7, 3)
    assert torch.autograd.gradcheck(bonded.harmonic, (q, k, r0))
    assert torch.autograd.gradcheck(bonded.fourier, (q, a, b))
    assert torch.autograd.gradcheck(bonded.cosine, (q, a, b))
    r, eps, sigma = random(9, low=0.3, high=14.0), random(9), random(9, low=4.0, high=6.0)
    rest = [s.expand(9) for s in SPHERE[2:]]
    assert torch.autograd.gradcheck(
        lambda r, e, s: bonded.soft_sphere(r, e, s, *rest), (r, eps, sigma)
    )
    assert torch.autograd.gradgradcheck(
        lambda r, e, s: bonded.soft_sphere(r, e, s, *rest), (r, eps, sigma)
    )
