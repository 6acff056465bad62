"""Sigma from low percentiles."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mlff_cli.coarse.priors.distributions import TERM_KINDS, Histogram
from mlff_cli.coarse.priors.pair_repulsion import QUANTILE, TypedSphere, fit_soft_sphere, fit_types
from mlff_cli.coarse.priors.prior_curves import energy
from mlff_cli.data.beads.prior_forms import SoftSphere
from tests.coarse.free_chains import KT, draw, histogram


def pairs(
    sigma: float, n: int = 100_000, types: tuple[str, ...] = ("*",), seed: int = 0
) -> Histogram:
    sphere = SoftSphere.of(KT, sigma)
    h = histogram("repulsion", draw("repulsion", lambda r: energy(sphere, r), n, seed))
    return Histogram(h.kind, types, h.counts)


def by_types(found: Sequence[TypedSphere]) -> dict[tuple[str, str], SoftSphere]:
    return {f.types: f.sphere for f in found}


@pytest.mark.parametrize("kind", ["repulsion", "excluded_volume"])
def test_a_pair_pays_kt_at_the_percentile(kind: str) -> None:
    h = replace(pairs(5.0), kind=TERM_KINDS[kind])
    fit = fit_soft_sphere(h, KT)
    assert fit.sigma == h.quantile(QUANTILE)
    np.testing.assert_allclose(
        energy(fit, fit.sigma * np.array([1.0, 0.5, 1.3])), [KT, 16 * KT, 0.35 * KT], rtol=0.01
    )


def test_sigma_is_near_that_of_the_samples_and_grows_with_it() -> None:
    """Free pairs, whose near space is all that a sphere takes; chains: the test of the stage."""
    found = [fit_soft_sphere(pairs(s), KT).sigma for s in (3.5, 4.0, 4.5, 5.0)]
    np.testing.assert_allclose(found, [3.5, 4.0, 4.5, 5.0], rtol=0.13)
    assert found == sorted(found)


def test_sigma_settles_as_samples_grow() -> None:
    whole = fit_soft_sphere(pairs(4.5, 400_000), KT).sigma
    few, many = (
        np.std([fit_soft_sphere(pairs(4.5, n, seed=s), KT).sigma for s in range(8)])
        for n in (1000, 50_000)
    )
    assert many < few / 3.0
    assert fit_soft_sphere(pairs(4.5, 50_000), KT).sigma == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("r", [0.0, 0.004, 9.995])
def test_pairs_all_in_one_place(r: float) -> None:
    fit = fit_soft_sphere(histogram("repulsion", np.full(500, r)), KT)
    assert 0.0 < fit.sigma < 50.0


def test_sigmas_of_pairs_follow_from_those_of_their_types() -> None:
    """Where every sigma is the mean of two diameters, as well as from the pairs themselves."""
    diameter = {"A": 4.2, "B": 5.0, "C": 5.6}
    parts = [
        pairs(0.5 * (diameter[a] + diameter[b]), 60_000, (a, b))
        for a, b in [("A", "A"), ("A", "B"), ("A", "C"), ("B", "B"), ("B", "C"), ("C", "C")]
    ]
    whole = Histogram(parts[0].kind, ("*",), np.sum([h.counts for h in parts], axis=0))
    found = by_types(fit_types(parts, fit_soft_sphere(whole, KT), KT, 1000))
    for a, b in [("A", "A"), ("A", "B"), ("B", "C"), ("C", "C")]:
        own = next(h for h in parts if h.types == (a, b))
        assert found[(a, b)].sigma == pytest.approx(fit_soft_sphere(own, KT).sigma, rel=0.05)
    assert found[("A", "*")].sigma < found[("B", "*")].sigma < found[("C", "*")].sigma


def test_one_pair_in_its_fold_does_not_blow_up_a_sphere() -> None:
    common = pairs(4.5, 50_000, ("A", "B"))
    far = Histogram(common.kind, ("C", "C"), np.where(common.kind.centres > 9.0, 50, 0))
    pooled = fit_soft_sphere(common, KT)
    found = by_types(fit_types([common, far], pooled, KT, 1000))
    assert found[("C", "C")].sigma == pytest.approx(1.25 * pooled.sigma)


def test_types_with_few_samples_are_left_to_the_pooled_sphere() -> None:
    parts = [pairs(4.5, 5000, ("A", "A")), pairs(4.5, 50, ("A", "B"))]
    found = by_types(fit_types(parts, fit_soft_sphere(parts[0], KT), KT, 1000))
    assert set(found) == {("A", "*"), ("A", "A")}
