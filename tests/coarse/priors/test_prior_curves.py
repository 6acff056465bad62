"""Curves drawn in figures are the energies that models compute."""

import numpy as np
import pytest

from mlff_cli.coarse.priors.distributions import TERM_KINDS
from mlff_cli.coarse.priors.prior_curves import boltzmann, energy
from mlff_cli.data.beads.prior_forms import (
    Cosine,
    Form,
    Fourier,
    Harmonic,
    PeriodicSpline,
    SoftSphere,
    Spline,
    Wall,
)
from tests.coarse.free_chains import KT

FORMS: dict[str, tuple[str, Form]] = {
    "harmonic": ("bond", Harmonic(20.0, 3.8)),
    "fourier": ("angle", Fourier((3.0, 2.0), (1.0, -0.5))),
    "cosine": ("dihedral", Cosine((0.5, 1.0), (0.4, -1.0))),
    "spline": ("angle", Spline(1.2, 2.6, (2.0, 0.0, 1.0, 0.5, 3.0), (-4.0, 5.0))),
    "natural": ("bond", Spline(3.0, 4.5, (2.0, 0.0, 1.0, 0.5, 3.0))),
    "periodic": ("dihedral", PeriodicSpline((0.0, 1.0, 0.4, 2.0, 1.5))),
    "sphere": ("repulsion", SoftSphere.of(0.6, 5.0)),
}


@pytest.mark.parametrize("name", FORMS)
def test_curves_are_smooth_and_finite(name: str) -> None:
    kind, form = FORMS[name]
    q = np.linspace(TERM_KINDS[kind].low, TERM_KINDS[kind].high, 20_001)
    u = energy(form, q)
    assert np.isfinite(u).all()
    slope = np.gradient(u, q)
    # a jump of U or U' would not shrink with the grid
    assert np.abs(np.diff(slope)).max() < 0.05 * max(np.abs(slope).max(), 1.0)


@pytest.mark.parametrize("name", FORMS)
def test_densities_sum_to_one_and_follow_boltzmann(name: str) -> None:
    kind, form = FORMS[name]
    edges = TERM_KINDS[kind].edges
    p = boltzmann(TERM_KINDS[kind], form, KT, edges)
    assert p.sum() == pytest.approx(1.0)
    likely = p > 1e-8
    found = -KT * np.log(p[likely] / TERM_KINDS[kind].measure[likely])
    np.testing.assert_allclose(
        found - found[0],
        (u := energy(form, TERM_KINDS[kind].centres)[likely]) - u[0],
        atol=1e-9,
    )


def test_a_wall_adds_half_a_spring_on_either_side() -> None:
    form = Spline(1.0, 2.0, (0.0, 0.0, 0.0))
    wall = Wall(10.0, 1.0, 2.0)
    np.testing.assert_allclose(
        energy(form, np.array([0.5, 1.0, 1.5, 2.0, 2.2]), wall), [1.25, 0.0, 0.0, 0.0, 0.2]
    )
    np.testing.assert_allclose(energy(form, np.array([0.5, 2.2]), Wall(10.0, high=2.0)), [0, 0.2])
