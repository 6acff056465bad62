"""Known energies come back from samples drawn with them."""

import numpy as np
import pytest

from mlff_cli.coarse.priors.form_fits import (
    fit_cosine,
    fit_fourier,
    fit_harmonic,
    fit_periodic_spline,
    fit_spline,
    sampled_range,
)
from mlff_cli.coarse.priors.prior_curves import boltzmann, energy
from mlff_cli.data.beads.prior_forms import Cosine, Fourier, Harmonic
from tests.coarse.free_chains import (
    KT,
    Energy,
    angle_energy,
    bond_energy,
    dihedral_energy,
    draw,
    histogram,
)

N = 100_000


def deviation(found: np.ndarray, true: np.ndarray, p: np.ndarray) -> float:
    """Standard deviation of the difference over the samples, relative to that of the truth."""

    def spread(u: np.ndarray) -> float:
        mean = p @ u
        return float(np.sqrt(p @ (u - mean) ** 2))

    return spread(found - true) / spread(true)


@pytest.mark.parametrize(("k", "r0"), [(120.0, 3.8), (1500.0, 1.46), (3.0, 5.8), (0.5, 5.8)])
def test_a_spring_is_recovered(k: float, r0: float) -> None:
    fit = fit_harmonic(histogram("bond", draw("bond", lambda r: 0.5 * k * (r - r0) ** 2, N)), KT)
    assert fit.k == pytest.approx(k, rel=0.02)
    assert fit.r0 == pytest.approx(r0, rel=0.005)


def test_the_jacobian_matters_for_a_weak_spring() -> None:
    """Mean and variance alone would be wrong by more than the 5 % that are asked for."""
    values = draw("bond", lambda r: 0.25 * (r - 5.8) ** 2, N)
    assert np.mean(values) > 1.05 * 5.8
    assert fit_harmonic(histogram("bond", values), KT).r0 == pytest.approx(5.8, rel=0.005)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_fourier_series_is_recovered(order: int) -> None:
    a, b = np.array([2.9, 2.0, -0.8])[:order], np.array([1.1, -0.5, 0.6])[:order]
    truth = Fourier(tuple(a), tuple(b))
    h = histogram("angle", draw("angle", lambda t: energy(truth, t), N))
    fit = fit_fourier(h, KT)
    q = h.kind.centres
    assert deviation(energy(fit, q), energy(truth, q), h.counts / h.n) < 0.05
    assert len(fit.a) <= order
    if order < 3:  # on half a circle a third order is nearly made of the first two
        np.testing.assert_allclose([*fit.a, *fit.b], [*a, *b], atol=0.2)


def test_a_torsion_is_recovered() -> None:
    fit = fit_cosine(histogram("dihedral", draw("dihedral", dihedral_energy, N)), KT)
    np.testing.assert_allclose(fit.k, [0.5, 0.9, 0.3], rtol=0.05)
    turn = np.asarray(fit.gamma) - [0.5, -1.0, 0.0]
    np.testing.assert_allclose(np.cos(turn), 1.0, atol=2e-3)


@pytest.mark.parametrize(
    ("kind", "u"), [("bond", bond_energy), ("angle", angle_energy), ("dihedral", dihedral_energy)]
)
def test_splines_recover_an_energy_without_knowing_its_form(kind: str, u: Energy) -> None:
    h = histogram(kind, draw(kind, u, N))
    span = sampled_range(h)
    fit = (
        fit_periodic_spline(h, KT) if kind == "dihedral" else fit_spline(h, KT, span.low, span.high)
    )
    assert min(fit.values) == 0.0
    q = h.kind.centres
    inside = (q > span.low) & (q < span.high)
    p = h.counts * inside / h.counts[inside].sum()
    assert deviation(energy(fit, q), u(q), p) < 0.05


@pytest.mark.parametrize("form", ["harmonic", "fourier", "cosine", "spline", "periodic_spline"])
def test_errors_fall_with_the_square_root_of_the_samples(form: str) -> None:
    kind = {"harmonic": "bond", "fourier": "angle", "spline": "angle"}.get(form, "dihedral")
    u = {"bond": bond_energy, "angle": angle_energy, "dihedral": dihedral_energy}[kind]
    errors = []
    for n in (1000, 100_000):
        found = []
        for seed in range(4):
            h = histogram(kind, draw(kind, u, n, seed))
            if form == "spline":
                fit = fit_spline(h, KT, sampled_range(h).low, sampled_range(h).high)
            else:
                fit = {"harmonic": fit_harmonic, "fourier": fit_fourier, "cosine": fit_cosine,
                       "periodic_spline": fit_periodic_spline}[form](h, KT)  # fmt: skip
            true = draw(kind, u, 20_000, 99)
            found.append(deviation(energy(fit, true), u(true), np.full(20_000, 1 / 20_000)) ** 2)
        errors.append(np.sqrt(np.mean(found)))
    assert errors[1] < 0.05
    # 10 for n^(-1/2); smoothing learns more slowly
    assert errors[1] < errors[0] / (3.0 if "spline" in form else 4.0)


def test_two_kinds_of_bonds_in_one_give_a_spring_that_rests_among_them() -> None:
    """As CA-CA and CA-CB: the likeliest spring would rest near zero, or below."""
    for short, n in ((1.5, N // 2), (1.0, N // 10), (0.2, N)):
        values = np.concatenate(
            [
                draw("bond", lambda r, at=at: 150.0 * (r - at) ** 2, m)
                for at, m in ((short, n), (3.8, N))
            ]
        )
        fit = fit_harmonic(histogram("bond", values), KT)
        assert values.min() < fit.r0 < values.max()
        assert fit.k > 0.0


def test_the_fit_has_the_moments_of_the_samples() -> None:
    """What maximum likelihood means for springs and series, whatever the data really are."""
    values = np.concatenate(
        [draw("bond", bond_energy, 5000), draw("bond", bond_energy, 5000) + 0.1]
    )
    h = histogram("bond", values)
    fit = fit_harmonic(h, KT)
    edges = h.kind.edges
    p, r = boltzmann(h.kind, fit, KT, edges), h.kind.centres
    assert p @ r == pytest.approx(values.mean(), abs=1e-4)
    assert p @ r**2 - (p @ r) ** 2 == pytest.approx(values.var(), rel=1e-3)


def test_a_series_never_dives_where_no_data_are() -> None:
    """Least squares of the inverted histogram may; a density may not."""
    h = histogram("angle", draw("angle", lambda t: 40.0 * (t - 1.9) ** 2, 2000))
    fit = fit_fourier(h, KT)
    q = np.linspace(0.0, np.pi, 400)
    u = energy(fit, q)
    assert abs(q[np.argmin(u)] - 1.9) < 0.1
    outside = np.abs(q - 1.9) > 0.5
    assert u[outside].min() > u.min() + 4.0 * KT
    assert np.abs(u - u.min()).max() < 500.0


def test_dihedrals_all_in_one_place_give_finite_energies() -> None:
    h = histogram("dihedral", np.full(200, 1.0))
    for fit in (fit_cosine(h, KT), fit_periodic_spline(h, KT)):
        u = energy(fit, h.kind.centres)
        assert np.isfinite(u).all()
        assert np.ptp(u) < 500.0
        assert abs(h.kind.centres[np.argmin(u)] - 1.0) < 0.15


def test_a_rigid_bond_gives_a_stiff_spring() -> None:
    fit = fit_harmonic(histogram("bond", np.full(500, 3.8003)), KT)
    assert fit.r0 == pytest.approx(3.8, abs=0.002)
    assert 1e4 < fit.k < 1e5


def test_rigid_angles_give_stiff_valleys() -> None:
    h = histogram("angle", np.full(500, 1.9))
    for fit in (fit_fourier(h, KT), fit_spline(h, KT, 1.88, 1.92)):
        q = np.linspace(1.85, 1.95, 101)
        u = energy(fit, q)
        assert abs(q[np.argmin(u)] - 1.9) < 0.01
        assert 500.0 < np.polyfit(q - 1.9, u, 2)[0] * 2 < 5000.0  # kT/0.02^2 = 1490


def test_order_of_a_series_is_no_higher_than_the_data_ask_for() -> None:
    flat = histogram("dihedral", draw("dihedral", lambda p: np.zeros_like(p), 5000))
    fit = fit_cosine(flat, KT)
    assert len(fit.k) == 1
    assert fit.k[0] < 0.05


def test_a_spline_never_falls_outwards() -> None:
    h = histogram("angle", draw("angle", angle_energy, 3000))
    fit = fit_spline(h, KT, 1.3, 2.2)  # cut where the energy still falls
    assert fit.slopes is not None
    assert fit.slopes[0] <= 0.0 <= fit.slopes[1]
    far = energy(fit, np.array([-5.0, 0.0, 1.3, 2.2, 3.0, 9.0]))
    assert far[0] >= far[1] >= far[2]
    assert far[5] >= far[4] >= far[3]


def test_energies_have_the_units_of_kt() -> None:
    """The same samples at twice the temperature come from twice the energy."""
    h = histogram("bond", draw("bond", bond_energy, 5000))
    one, two = fit_harmonic(h, KT), fit_harmonic(h, 2 * KT)
    assert isinstance(one, Harmonic)
    assert two.k == pytest.approx(2 * one.k, rel=1e-9)
    assert two.r0 == pytest.approx(one.r0, rel=1e-12)
    d = histogram("dihedral", draw("dihedral", dihedral_energy, 5000))
    a, b = fit_cosine(d, KT), fit_cosine(d, 2 * KT)
    assert isinstance(a, Cosine)
    np.testing.assert_allclose(b.k, 2 * np.asarray(a.k), rtol=1e-9)
