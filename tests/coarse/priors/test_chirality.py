"""The hand of dihedrals: mirror images, and what is pooled with what."""

import dataclasses

import numpy as np
import pytest

from mlff_cli.coarse.priors.chirality import flat_form, hand, mirror_form, mirrored, n_untold
from mlff_cli.coarse.priors.distributions import Distributions, typed_rows
from mlff_cli.coarse.priors.prior_curves import energy
from mlff_cli.coarse.priors.prior_entries import Fitted, PriorFit
from mlff_cli.coarse.priors.prior_fit import fit_prior
from mlff_cli.data.beads.cg_beads import plain_chain
from mlff_cli.data.beads.prior_forms import Cosine, PeriodicSpline
from tests.coarse.free_chains import KT, free_chains
from tests.coarse.priors.test_distributions import chain_terms

PHI = np.linspace(-np.pi, np.pi, 201)
FORMS = (Cosine((0.5, 1.2), (0.4, -1.0)), PeriodicSpline((0.0, 1.0, 0.3, 2.0, 0.5)))
L, D = ["ALA"] * 6, ["D-ALA"] * 6


def counted(*sets: tuple[np.ndarray, list[str]]) -> Distributions:
    found = Distributions()
    for x, types in sets:
        found.add(x, typed_rows(chain_terms(x.shape[1]), types))
    return found


def curves(fit: PriorFit) -> dict[str, Fitted]:
    return {f.label: f for f in fit.fitted if f.kind == "dihedral"}


def mirror(x: np.ndarray) -> np.ndarray:
    return x * [1.0, 1.0, -1.0]


@pytest.mark.parametrize(
    ("types", "told"),
    [
        (("ALA", "GLY"), "L"),
        (("D-ALA", "D-SER"), "D"),
        (("D-ALA-N", "GLY"), "D"),
        (("D-ALA", "SER"), "mixed"),
        (("D-ALA", "SER-N-C"), "mixed"),
        (("D-fined", "polar"), "L"),
    ],
)
def test_the_hand_of_types(types: tuple[str, str], told: str) -> None:
    assert hand(types) == told
    assert hand(types[::-1]) == told


@pytest.mark.parametrize("form", FORMS)
def test_a_mirrored_curve_is_that_of_minus_phi(form: Cosine | PeriodicSpline) -> None:
    np.testing.assert_allclose(energy(mirror_form(form), PHI), energy(form, -PHI), atol=1e-12)
    assert mirror_form(mirror_form(form)) == form
    assert np.ptp(energy(flat_form(form), PHI)) == 0.0


def test_mirrored_histograms_are_those_of_mirrored_chains() -> None:
    x = free_chains(300, 6)
    (ours,), (other,) = (counted((y, L)).of("dihedral") for y in (x, mirror(x)))
    np.testing.assert_array_equal(mirrored(ours).counts, other.counts)


@pytest.mark.parametrize("form", ["parametric", "spline"])
def test_a_d_chain_does_not_change_the_pooled_curve_of_its_mirror_image(form: str) -> None:
    x = free_chains(800, 6)
    alone = curves(fit_prior(counted((x, L)), KT, form=form))["pooled"]
    both = curves(fit_prior(counted((x, L), (mirror(x), D)), KT, form=form))
    found = energy(both["pooled"].entry.parameters, PHI)
    assert np.ptp(found - energy(alone.entry.parameters, PHI)) < 0.15  # kcal/mol: twice the samples
    other = energy(both["D-ALA-D-ALA"].entry.parameters, -PHI)
    own = energy(both["ALA-ALA"].entry.parameters, PHI)
    np.testing.assert_allclose(other - other.min(), own - own.min(), atol=1e-6)


@pytest.mark.parametrize("options", [{"min_samples": 10**6}, {"by_type": False}])
def test_d_types_with_few_samples_take_the_mirror_image(options: dict) -> None:
    x = free_chains(800, 6)
    fit = fit_prior(counted((x, L), (mirror(x[:50]), D)), KT, **options)
    found = curves(fit)
    assert found["D-ALA-D-ALA"].types == ("*", "D-ALA", "D-ALA", "*")
    np.testing.assert_allclose(
        energy(found["D-ALA-D-ALA"].entry.parameters, PHI),
        energy(found["pooled"].entry.parameters, -PHI),
        atol=1e-9,
    )
    assert found["D-ALA-D-ALA"].overlap > 0.85  # it is their curve
    assert any("D-ALA-D-ALA: too few samples, the mirror image" in note for note in fit.notes)
    assert "D-ALA-D-ALA" not in fit.few.get("dihedral", [])


def test_a_set_of_d_alone_has_the_curve_of_l_in_its_pool() -> None:
    x = free_chains(800, 6)
    ours = curves(fit_prior(counted((x, L)), KT))
    other = curves(fit_prior(counted((mirror(x), D)), KT))
    assert ours["pooled"].entry.parameters == other["pooled"].entry.parameters
    assert set(other) == {"pooled", "D-ALA-D-ALA"}


def test_where_hands_meet_no_curve_is_borrowed() -> None:
    x = free_chains(800, 6)
    some = counted((x, L), (x[:60], ["ALA", "ALA", "D-ALA", "ALA", "ALA", "ALA"]))
    few = counted((x, L), (x[:20], ["ALA", "ALA", "D-ALA", "ALA", "ALA", "ALA"]))
    assert np.ptp(energy(curves(fit_prior(some, KT))["ALA-D-ALA"].entry.parameters, PHI)) > KT
    fit = fit_prior(few, KT)
    assert np.ptp(energy(curves(fit)["ALA-D-ALA"].entry.parameters, PHI)) == 0.0
    assert any("ALA-D-ALA: too few samples, no curve instead" in note for note in fit.notes)
    assert curves(fit)["pooled"].entry.samples == 800 * 3 + 20


def test_hands_that_meet_everywhere_are_pooled_as_they_are() -> None:
    """Gramicidin: L and D by turns."""
    x = free_chains(400, 6)
    found = curves(fit_prior(counted((x, ["ALA", "D-LEU"] * 3)), KT))
    assert found["pooled"].entry.samples == 1200
    assert found["pooled"].entry.parameters == found["ALA-D-LEU"].entry.parameters


def test_sets_without_d_are_as_they_were() -> None:
    fit = fit_prior(counted((free_chains(400, 6), ["ALA", "GLY", "SER"] * 2)), KT)
    assert not any("mirror" in note or "D-amino" in note for note in fit.notes)


def test_dihedrals_whose_types_hide_the_hand_are_counted() -> None:
    rows = chain_terms(6).dihedrals
    plain = plain_chain("m", np.zeros(6, np.int32))
    named = dataclasses.replace(plain, residue_name=np.array(["ALA", "ALA", "DAL"] + ["ALA"] * 3))
    assert n_untold(plain, rows, ["polar"] * 6) == 0
    assert n_untold(named, rows, ["nonpolar"] * 6) == 2
    assert n_untold(named, rows, ["ALA", "ALA", "D-ALA", "ALA", "ALA", "ALA"]) == 0
    # a residue of three beads, its type on the last
    backbone = dataclasses.replace(plain, residue=np.array([1, 1, 1, 2, 2, 2], np.int32))
    types = ["N", "CA", "D-ALA", "N", "CA", "ALA"]
    assert n_untold(backbone, np.array([[3, 0, 1, 4], [0, 3, 4, 1], [0, 1, 2, 3]]), types) == 1
