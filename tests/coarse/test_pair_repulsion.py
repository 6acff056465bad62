"""Sigma from low percentiles."""

import numpy as np
import pytest

from mlff_cli.coarse.distributions import KINDS, Histogram
from mlff_cli.coarse.pair_repulsion import QUANTILE, fit_soft_sphere, fit_types
from mlff_cli.coarse.prior_curves import boltzmann, energy
from mlff_cli.data.prior_forms import SoftSphere
from tests.coarse.free_chains import KT, draw, histogram


def pairs(sigma: float, n: int = 100_000, types: tuple[str, ...] = ("*",)) -> Histogram:
    sphere = SoftSphere.of(KT, sigma)
    h = histogram("repulsion", draw("repulsion", lambda r: energy(sphere, r), n))
    return Histogram(h.kind, types, h.counts)


@pytest.mark.parametrize("sigma", [3.5, 5.0, 6.5])
def test_a_sphere_is_recovered_from_free_pairs(sigma: float) -> None:
    fit = fit_soft_sphere(pairs(sigma), KT)
    assert fit.sigma == pytest.approx(sigma, rel=0.02)
    assert fit.epsilon == KT


def test_the_fitted_sphere_has_the_percentile_of_the_samples() -> None:
    h = pairs(4.4, 20_000)
    p = boltzmann(h.kind, fit_soft_sphere(h, KT), KT, h.kind.edges)
    below = h.kind.edges[1:] <= h.quantile(QUANTILE)
    assert p[below].sum() == pytest.approx(QUANTILE, abs=5e-4)


def test_excluded_volume_costs_kt_at_the_percentile() -> None:
    kind = KINDS["excluded_volume"]
    h = Histogram(kind, ("*",), pairs(5.0).counts)
    fit = fit_soft_sphere(h, KT)
    assert fit.sigma == h.quantile(QUANTILE)
    assert energy(fit, np.array([fit.sigma]))[0] == pytest.approx(KT)


def test_pairs_that_crowd_leave_a_small_sphere() -> None:
    """Nothing keeps them apart: the percentile itself would be too much."""
    h = histogram("repulsion", draw("repulsion", lambda r: -2.0 * np.exp(-r), 50_000))
    fit = fit_soft_sphere(h, KT)
    assert 0 < fit.sigma <= h.quantile(QUANTILE)
    assert np.isfinite(energy(fit, np.linspace(0, 10, 50))).all()


@pytest.mark.parametrize("r", [0.0, 0.004, 9.995])
def test_pairs_all_in_one_place(r: float) -> None:
    fit = fit_soft_sphere(histogram("repulsion", np.full(500, r)), KT)
    assert 0.0 < fit.sigma < 50.0


def test_radii_of_types_are_recovered() -> None:
    """Sigma of a pair as the mean of two diameters; pairs that were never seen included."""
    diameter = {"A": 4.2, "B": 5.0, "C": 5.6}
    parts = [
        pairs(0.5 * (diameter[a] + diameter[b]), 60_000, (a, b))
        for a, b in [("A", "A"), ("A", "B"), ("A", "C"), ("B", "B"), ("B", "C"), ("C", "C")]
    ]
    whole = Histogram(parts[0].kind, ("*",), np.sum([h.counts for h in parts], axis=0))
    found = fit_types(parts, fit_soft_sphere(whole, KT), KT, 1000)
    for a, b in [("A", "A"), ("A", "B"), ("B", "C"), ("C", "C")]:
        assert found[(a, b)].sigma == pytest.approx(0.5 * (diameter[a] + diameter[b]), rel=0.05)
    assert found[("A", "*")].sigma < found[("B", "*")].sigma < found[("C", "*")].sigma


def test_one_pair_in_its_fold_does_not_blow_up_a_sphere() -> None:
    common = pairs(4.5, 50_000, ("A", "B"))
    far = Histogram(common.kind, ("C", "C"), np.where(common.kind.centres > 9.0, 50, 0))
    pooled = fit_soft_sphere(common, KT)
    found = fit_types([common, far], pooled, KT, 1000)
    assert found[("C", "C")].sigma == pytest.approx(1.25 * pooled.sigma)


def test_types_with_few_samples_are_left_to_the_pooled_sphere() -> None:
    parts = [pairs(4.5, 5000, ("A", "A")), pairs(4.5, 50, ("A", "B"))]
    found = fit_types(parts, fit_soft_sphere(parts[0], KT), KT, 1000)
    assert set(found) == {("A", "*"), ("A", "A")}
