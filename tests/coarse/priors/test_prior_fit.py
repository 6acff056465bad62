"""From chains to a prior: recovery, pooling, walls, and what is told."""

from dataclasses import replace

import numpy as np
import pytest

from mlff_cli.coarse.mapping.topology import terms as topology_terms
from mlff_cli.coarse.priors.distributions import Distributions, TypedRows, typed_rows
from mlff_cli.coarse.priors.prior_curves import energy
from mlff_cli.coarse.priors.prior_entries import PriorFit
from mlff_cli.coarse.priors.prior_fit import LAST_ANGLE, fit_prior
from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import BeadMolecule, plain_chain
from mlff_cli.data.beads.prior_file import PriorFile, prior_from_plain, prior_to_plain
from mlff_cli.data.beads.prior_forms import Harmonic
from mlff_cli.physics.internal_coordinates import distances
from tests.coarse.backbones import backbone_frames, backbone_molecule
from tests.coarse.free_chains import (
    KT,
    angle_energy,
    bond_energy,
    dihedral_energy,
    free_chains,
)
from tests.coarse.priors.test_distributions import SPECIES, chain_terms
from tests.coarse.priors.test_form_fits import deviation


def counted(x: np.ndarray, species: list[str] | None = None) -> Distributions:
    found = Distributions()
    found.add(x, typed_rows(chain_terms(x.shape[1]), species or SPECIES[: x.shape[1]]))
    return found


def entries(fit: PriorFit, kind: str) -> dict:
    return {f.types: f for f in fit.fitted if f.kind == kind}


@pytest.mark.parametrize("form", ["parametric", "spline"])
def test_known_energies_come_back_from_chains(form: str) -> None:
    """All the way through Cartesian coordinates; no term is known to another."""
    fit = fit_prior(counted(free_chains(20_000, 9)), KT, form=form)
    truth = {"bond": bond_energy, "angle": angle_energy, "dihedral": dihedral_energy}
    for f in fit.fitted:
        if f.kind in truth and f.histogram is not None:
            q, p = f.histogram.kind.centres, f.histogram.counts / f.histogram.n
            found = energy(f.entry.parameters, q, f.entry.wall)
            limit = 0.05 if f.label == "pooled" else 0.1
            assert deviation(found, truth[f.kind](q), p) < limit, (f.kind, f.label)
            assert f.overlap is not None
            assert f.overlap > 0.95
    pooled = entries(fit, "bond")[("*", "*")].entry.parameters
    if form == "parametric":
        assert pooled.k == pytest.approx(120.0, rel=0.05)
        assert pooled.r0 == pytest.approx(3.8, rel=1e-3)


def test_types_are_told_apart() -> None:
    one = free_chains(3000, 3)
    other = free_chains(3000, 3, 5, bond=lambda r: 0.5 * 60.0 * (r - 5.0) ** 2)
    found = Distributions()
    found.add(one, typed_rows(chain_terms(3), ["A", "A", "A"]))
    found.add(other, typed_rows(chain_terms(3), ["B", "B", "B"]))
    fit = fit_prior(found, KT)
    bonds = entries(fit, "bond")
    assert bonds[("A", "A")].entry.parameters.r0 == pytest.approx(3.8, rel=0.01)
    assert bonds[("B", "B")].entry.parameters.r0 == pytest.approx(5.0, rel=0.01)
    assert bonds[("B", "B")].entry.parameters.k == pytest.approx(60.0, rel=0.05)
    # together they are no spring, and that is said
    assert bonds[("*", "*")].overlap < 0.85
    assert any("bond pooled" in note for note in fit.notes)


def test_types_with_few_samples_are_left_to_the_pooled_entry() -> None:
    fit = fit_prior(counted(free_chains(400, 9)), KT, min_samples=1000)
    assert ("ALA", "GLY") in entries(fit, "bond")
    typed = {f.label for f in fit.fitted if f.kind == "bond"} - {"pooled"}
    assert typed.isdisjoint(fit.few["bond"])
    assert typed | set(fit.few["bond"]) == {
        "-".join(h.types) for h in counted(free_chains(4, 9)).of("bond")
    }


def test_without_types_there_is_one_entry_per_kind() -> None:
    fit = fit_prior(counted(free_chains(400, 9)), KT, by_type=False)
    assert {f.kind for f in fit.fitted} == set(fit.terms())
    assert all(f.label == "pooled" for f in fit.fitted)


def test_entries_make_a_prior_file_that_finds_them() -> None:
    fit = fit_prior(counted(free_chains(2000, 9)), KT, form="spline")
    prior = PriorFile(species=("ALA", "GLY", "SER"), terms=fit.terms(), temperature=300.0)
    again = prior_from_plain(prior_to_plain(prior))
    assert again == prior
    angle = prior.terms["angle"]
    assert angle.entries[angle.find(("GLY", "ALA", "SER"))].types == ("*", "ALA", "*")
    dihedral = prior.terms["dihedral"]
    row = dihedral.find(("ALA", "SER", "ALA", "GLY"))
    assert dihedral.entries[row].types == ("*", "ALA", "SER", "*")
    pair = prior.terms["excluded_volume"]
    assert pair.entries[pair.find(("SER", "ALA"))].types == ("ALA", "SER")


def test_angles_are_walled_before_they_are_straight() -> None:
    """Even where the data go on."""
    fit = fit_prior(counted(free_chains(2000, 6, angle=lambda t: 2.0 * np.cos(t))), KT)
    wall = entries(fit, "angle")[("*",) * 3].entry.wall
    assert wall.high == pytest.approx(LAST_ANGLE)
    assert wall.high < np.pi - 0.2
    assert any("behind the wall" in note for note in fit.notes)
    for f in entries(fit, "angle").values():
        at = energy(f.entry.parameters, np.array([f.entry.wall.high, np.pi]))
        climb = 0.5 * f.entry.wall.k * (np.pi - f.entry.wall.high) ** 2
        assert climb >= 10.0 * KT - 1e-9
        assert np.isfinite(at).all()


@pytest.mark.parametrize("form", ["parametric", "spline"])
def test_energy_rises_beyond_the_walls(form: str) -> None:
    fit = fit_prior(counted(free_chains(3000, 9)), KT, form=form)
    for f in fit.fitted:
        wall = f.entry.wall
        if wall is None:
            continue
        reach = 0.3 * (wall.high - wall.low)
        up = energy(f.entry.parameters, wall.high + np.linspace(0, reach, 50), wall)
        down = energy(f.entry.parameters, wall.low - np.linspace(0, reach, 50), wall)
        assert up[-1] > up[0] + KT, (f.kind, f.label)
        assert down[-1] > down[0] + KT, (f.kind, f.label)
        if form == "spline":
            assert (np.diff(up) > 0).all()
            assert (np.diff(down) > 0).all()


def test_torn_bonds_are_left_out_and_counted() -> None:
    x = free_chains(500, 9)
    x[17, 5:] += [60.0, 0.0, 0.0]
    x[18, 5:] += [9.0, 0.0, 0.0]
    fit = fit_prior(counted(x), KT)
    assert sum(fit.broken.values()) == 2
    clean = fit_prior(counted(free_chains(500, 9)), KT)
    torn = entries(fit, "bond")[("*", "*")].entry.parameters
    assert torn.k == pytest.approx(entries(clean, "bond")[("*", "*")].entry.parameters.k, rel=0.01)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(DataError, match="bonds together have 16"):
        fit_prior(counted(free_chains(2, 9)), KT)


def test_repulsion_without_contacts_takes_the_excluded_volume() -> None:
    """A short stretched peptide has no pair six bonds apart within ten angstrom."""
    x = free_chains(300, 8, angle=lambda t: 200.0 * (t - 2.5) ** 2,
                    dihedral=lambda p: -20.0 * np.cos(p - np.pi))  # fmt: skip
    fit = fit_prior(counted(x), KT)
    own, local = entries(fit, "repulsion"), entries(fit, "excluded_volume")
    assert own[("*", "*")].entry.parameters == local[("*", "*")].entry.parameters
    assert any("repulsion: 0 distances" in note for note in fit.notes)


def test_a_dimer_has_bonds_only() -> None:
    fit = fit_prior(counted(free_chains(500, 2), ["A", "B"]), KT)
    assert set(fit.terms()) == {"bond"}
    assert isinstance(fit.fitted[0].entry.parameters, Harmonic)


def test_temperature_scales_every_energy() -> None:
    data = counted(free_chains(1500, 9))
    one, two = fit_prior(data, KT), fit_prior(data, 2.0 * KT)
    for a, b in zip(one.fitted, two.fitted, strict=True):
        x = a.histogram.kind.centres if a.histogram else np.linspace(1.0, 9.0, 50)
        if a.kind in ("bond", "angle", "dihedral"):
            ua = energy(a.entry.parameters, x, a.entry.wall)
            ub = energy(b.entry.parameters, x, b.entry.wall)
            np.testing.assert_allclose(ub, 2.0 * ua, rtol=1e-8, atol=1e-9)


def test_rows_are_typed_in_their_order() -> None:
    rows = typed_rows(chain_terms(4), ["B", "A", "C", "A"])
    assert [r.kind.name for r in rows] == ["bond", "angle", "dihedral", "excluded_volume"]
    bond = rows[0]
    assert isinstance(bond, TypedRows)
    assert [bond.types[i] for i in bond.of] == [("A", "B"), ("A", "C"), ("A", "C")]


def bridged(n: int, both: bool) -> Distributions:
    """Chains A-C-A and disulfides C-C of 5.5 angstrom; with `both`, neighbours C-C as well."""
    found = Distributions()
    found.add(free_chains(n, 3), typed_rows(chain_terms(3), ["A", "C", "A"]))
    if both:
        found.add(free_chains(n, 2), typed_rows(chain_terms(2), ["C", "C"]))
    bridge = free_chains(n // 10, 2, bond=lambda r: 0.5 * 80.0 * (r - 5.5) ** 2)
    found.add(bridge, typed_rows(chain_terms(2), ["C", "C"], np.array([True])))
    return found


@pytest.mark.parametrize("by_type", [True, False])
def test_disulfides_have_their_own_term_and_leave_the_pooled_one(by_type: bool) -> None:
    fit = fit_prior(bridged(3000, both=False), KT, by_type=by_type, min_samples=5000)
    bonds = entries(fit, "bond")
    assert bonds[("*", "*")].entry.parameters.k == pytest.approx(120.0, rel=0.05)
    assert bonds[("C", "C")].entry.parameters.r0 == pytest.approx(5.5, rel=0.01)
    assert bonds[("C", "C")].entry.parameters.k == pytest.approx(80.0, rel=0.2)
    assert set(fit.terms()) == {"bond", "angle", "excluded_volume"}


def test_disulfides_among_neighbours_of_their_types_are_told() -> None:
    fit = fit_prior(bridged(3000, both=True), KT)
    assert any("share one term" in note for note in fit.notes)
    assert entries(fit, "bond")[("C", "C")].entry.samples == 3300


def test_pairs_of_several_beads_a_residue_cost_little() -> None:
    """Excluded volume and repulsion of five beads a residue: about what they are of one."""
    x, n = backbone_frames(300, 8), 8
    molecule = backbone_molecule(n)
    types = molecule.bead_name.tolist()

    def per_bead(one: BeadMolecule, x: np.ndarray, types: list[str]) -> float:
        rows = topology_terms(one)
        found = Distributions()
        found.add(x, typed_rows(rows, types))
        fit, total = fit_prior(found, KT, by_type=False), 0.0
        for kind, pairs in (("excluded_volume", rows.pairs_between(2, 5)),
                            ("repulsion", rows.pairs_between(6))):  # fmt: skip
            sphere = entries(fit, kind)[("*", "*")].entry.parameters
            total += energy(sphere, distances(x, pairs)).sum() / len(x)
        return total / x.shape[1]

    five = per_bead(molecule, x, types)
    one = per_bead(plain_chain("ca", np.zeros(n, np.int32)), x[:, 1::5], ["ALA"] * n)
    as_bonds = replace(molecule, residue=np.arange(5 * n, dtype=np.int32))
    assert five < KT
    assert five < 2.0 * one
    assert five < 0.6 * per_bead(as_bonds, x, types)
