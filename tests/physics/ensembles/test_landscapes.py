"""Collective variables of a peptide, and two ensembles compared along them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles.backbone import Sites
from mlff_cli.physics.ensembles.collective_variables import CollectiveVariables, Variable
from mlff_cli.physics.ensembles.landscapes import Values, landscape
from tests.coarse.backbones import backbone_frames, backbone_molecule

KT = 0.596


def variables(n: int = 6) -> tuple[CollectiveVariables, np.ndarray]:
    m = backbone_molecule(n)
    sites = Sites(tuple(m.bead_name), tuple(m.residue_name), m.residue, m.chain, m.bonds)
    x = backbone_frames(40, n)
    return CollectiveVariables(sites, x[0]), x


def test_every_variable_is_the_same_however_the_molecule_lies() -> None:
    found, x = variables()
    q = Rotation.random(len(x), random_state=0).as_matrix()
    moved = np.einsum("tij,tnj->tni", q, x) + 50.0
    assert found.values(x).shape == (40, len(found.variables))
    assert np.allclose(found.values(moved), found.values(x), atol=1e-3)
    assert np.allclose(found.features(moved), found.features(x), atol=1e-3)
    assert found.features(x).shape == (40, found.n_features)


def test_a_chain_has_the_variables_that_make_sense_for_it() -> None:
    found, x = variables()
    names = [v.name for v in found.variables]
    assert names[:3] == ["psi ALA1", "omega ALA1", "phi ALA2"]
    assert {"RMSD", "Rg", "end to end"} <= set(names)
    assert ("Q" in names) == (len(found.contacts.pairs) > 0)
    first = dict(zip(names, found.values(x)[0], strict=True))
    assert first["RMSD"] == pytest.approx(0.0, abs=1e-3)
    planes = [[names[k] for k in pair] for pair in found.surfaces]
    assert planes[0] == ["phi ALA2", "psi ALA2"]
    assert ["RMSD", "Rg"] in planes


def test_the_native_structure_must_be_of_the_molecule() -> None:
    m = backbone_molecule(3)
    sites = Sites(tuple(m.bead_name), tuple(m.residue_name), m.residue, m.chain, m.bonds)
    with pytest.raises(DataError, match="15 sites of the molecule, found coordinates of shape"):
        CollectiveVariables(sites, np.zeros((14, 3)))


ANGLES = (Variable("phi", "dihedral", "degree"), Variable("psi", "dihedral", "degree"))


def drawn(centre: float, n: int, seed: int) -> Values:
    phi = np.random.default_rng(seed).vonmises([centre, 1.0], 3.0, (n, 2))
    return Values.of(phi, (n // 4, n - n // 4), ANGLES)


def test_one_ensemble_sampled_twice_is_at_the_floor() -> None:
    a, b = drawn(-1.0, 4000, 0), drawn(-1.0, 4000, 1)
    found = landscape([0, 1], ANGLES, a, b, bins=12, kt=KT)
    assert found.reference.shape == (12, 12)
    assert found.reference.sum() == 4000
    for compared in (found.comparison, found.independent):
        assert compared is not None
        assert compared.ratio < 1.5
        assert compared.frames > 1500
    assert found.difference[1] < 0.3


def test_free_energies_and_their_errors_are_those_of_the_distribution() -> None:
    a, b = drawn(-1.0, 60_000, 0), drawn(-1.0, 60_000, 1)
    found = landscape([0], ANGLES, a, b, bins=24, kt=KT)
    f, g = found.free_energies
    s, t = found.uncertainties
    exact = -KT * 3.0 * np.cos(found.axes[0].centres + 1.0)
    near = exact < exact.min() + 2.0
    assert np.allclose((f - exact)[near], (f - exact)[near].mean(), atol=0.05)
    deviation = ((f - g) / np.hypot(s, t))[near]
    assert 0.5 < np.sqrt((deviation**2).mean()) < 2.0


def test_another_ensemble_is_above_the_floor_by_what_is_known() -> None:
    found = landscape([0], ANGLES, drawn(-1.0, 8000, 0), drawn(1.5, 8000, 1), bins=36, kt=KT)
    assert found.comparison is not None
    assert found.comparison.ratio > 20
    assert found.difference[1] > 1.0


def test_correlated_frames_count_less() -> None:
    a = drawn(-1.0, 4000, 0)
    repeated = Values.of(np.repeat(a.values, 5, axis=0), (5000, 15_000), ANGLES)
    found = landscape([0], ANGLES, repeated, drawn(-1.0, 4000, 1), bins=12, kt=KT)
    assert found.inefficiency[0] == pytest.approx(5, rel=0.1)
    assert found.independent is not None
    assert found.independent.frames == pytest.approx(2000, rel=0.1)
    plain = landscape([0], ANGLES, a, drawn(-1.0, 4000, 1), bins=12, kt=KT)
    assert np.allclose(found.uncertainties[0], plain.uncertainties[0], rtol=0.1)


def test_too_few_frames_are_told_not_compared() -> None:
    a = drawn(-1.0, 4000, 0)
    stuck = replace(a, inefficiencies=np.array([4000.0, 4000.0]))
    two_series = landscape([0], ANGLES, a, stuck, bins=12, kt=KT)
    assert two_series.independent is not None
    assert two_series.independent.frames == 2
    none = landscape([0], ANGLES, stuck, a, bins=12, kt=KT)
    assert none.comparison is None
    assert none.independent is None
    assert none.why is not None
    assert "independent frames" in none.why


def test_values_must_be_of_the_series() -> None:
    with pytest.raises(DataError, match="series of 5 frames"):
        Values.of(np.zeros((4, 2)), (2, 3), ANGLES)
