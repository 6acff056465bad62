"""Cubic splines: their knots, SciPy's splines, derivatives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from mlff_cli.physics.splines import cubic_spline, curvature_matrix, periodic_spline

ENDS = ["natural", "clamped"]
energies = st.lists(st.floats(-20.0, 20.0), min_size=3, max_size=12)

few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def open_spline(x, low, high, values, slopes=None):
    """One spline with two ends."""
    y, h = double([values]), (high - low) / (len(values) - 1)
    ends = "natural" if slopes is None else "clamped"
    known = y if slopes is None else torch.cat([y, h * double([slopes])], 1)
    m = known @ curvature_matrix(len(values), ends).T
    rows = torch.zeros(x.shape[-1], dtype=torch.int64)
    return cubic_spline(x, rows, double([low]), double([high]), y, m)


def ring_spline(x, values):
    y = double([values])
    m = y @ curvature_matrix(len(values), "periodic").T
    return periodic_spline(x, torch.zeros(x.shape[-1], dtype=torch.int64), y, m)


@few
@given(energies, st.floats(-5.0, 5.0), st.floats(0.1, 9.0))
def test_the_knots_are_met_and_scipy_agrees_between_them(values, low, width):
    high, slopes = low + width, (-3.0, 2.0)
    knots = np.linspace(low, high, len(values))
    x = np.linspace(low, high, 41)
    ours = open_spline(double(knots), low, high, values).numpy()
    assert ours == pytest.approx(np.array(values), abs=1e-12)
    for mine, theirs in ((None, "natural"), (slopes, ((1, slopes[0]), (1, slopes[1])))):
        reference = CubicSpline(knots, values, bc_type=theirs)(x)
        found = open_spline(double(x), low, high, values, mine).numpy()
        assert found == pytest.approx(reference, abs=1e-10)


@few
@given(energies)
def test_periodic_splines_meet_their_knots_and_scipy(values):
    knots = np.linspace(-np.pi, np.pi, len(values) + 1)
    x = np.linspace(-np.pi, np.pi, 41)
    reference = CubicSpline(knots, [*values, values[0]], bc_type="periodic")
    assert ring_spline(double(x), values).numpy() == pytest.approx(reference(x), abs=1e-10)
    assert ring_spline(double(knots), values).numpy() == pytest.approx(
        [*values, values[0]], abs=1e-12
    )


@few
@given(energies, st.floats(-3.2, 3.2), st.sampled_from([-2, -1, 1, 2]))
def test_a_turn_changes_nothing(values, phi, turns):
    x = double([phi, phi + turns * 2.0 * math.pi])
    here, there = ring_spline(x, values).tolist()
    assert here == pytest.approx(there, abs=1e-8)


@pytest.mark.parametrize("slopes", [None, (-4.0, 7.0)])
def test_beyond_its_ends_it_is_straight_and_smooth(slopes):
    values = [3.0, 1.0, 0.5, 2.5]
    x = double([0.0, 1.0, 2.0 - 1e-9, 2.0, 2.0 + 1e-9, 5.0 - 1e-9, 5.0, 5.0 + 1e-9, 8.0, 9.0])
    x.requires_grad_()
    u = open_spline(x, 2.0, 5.0, values, slopes)
    (slope,) = torch.autograd.grad(u.sum(), x)
    assert slope[:5].tolist() == pytest.approx([slope[0].item()] * 5, abs=1e-6)
    assert slope[5:].tolist() == pytest.approx([slope[-1].item()] * 5, abs=1e-6)
    assert (u[0] - u[1]).item() == pytest.approx(-slope[0].item(), abs=1e-12)
    assert u[2:5].tolist() == pytest.approx([3.0] * 3, abs=1e-6)
    assert u[5:8].tolist() == pytest.approx([2.5] * 3, abs=1e-6)
    if slopes is not None:
        assert slope[[0, -1]].tolist() == pytest.approx(slopes, abs=1e-12)


def test_the_natural_spline_does_not_bend_at_its_ends():
    x = double([2.0 + 1e-7, 5.0 - 1e-7]).requires_grad_()
    u = open_spline(x, 2.0, 5.0, [3.0, 1.0, 0.5, 2.5])
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert bend.abs().max().item() < 1e-5


def test_every_term_takes_its_own_spline():
    values = double([[0.0, 1.0, 0.0], [5.0, 2.0, 4.0]])
    low, high = double([0.0, 10.0]), double([2.0, 14.0])
    m = values @ curvature_matrix(3, "natural").T
    x = double([[0.5, 11.0, 1.5], [13.0, 13.0, 0.0]])
    rows = torch.tensor([0, 1, 0])
    found = cubic_spline(x, rows, low, high, values, m)
    for b in range(2):
        for t, row in enumerate(rows.tolist()):
            alone = open_spline(
                x[b, t : t + 1], low[row].item(), high[row].item(), values[row].tolist()
            )
            assert found[b, t].item() == pytest.approx(alone.item(), abs=1e-12)


def test_gradients_by_argument_and_by_values():
    rng = torch.Generator().manual_seed(3)
    values = torch.randn(2, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    slopes = torch.randn(2, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    x = (7.0 * torch.rand(4, 5, generator=rng, dtype=torch.float64) - 1.0).requires_grad_()
    rows = torch.tensor([0, 1, 1, 0, 1])
    low, high = double([0.0, 1.0]), double([5.0, 4.0])

    def ends(x, values, slopes):
        h = ((high - low) / 5)[:, None]
        m = torch.cat([values, h * slopes], 1) @ curvature_matrix(6, "clamped").T
        return cubic_spline(x, rows, low, high, values, m)

    def ring(x, values):
        return periodic_spline(x, rows, values, values @ curvature_matrix(6, "periodic").T)

    assert torch.autograd.gradcheck(ends, (x, values, slopes))
    assert torch.autograd.gradcheck(ring, (x, values))
    assert torch.autograd.gradgradcheck(ring, (x, values))
