"""Dihedrals are found by name, and have the values that a chain was built with."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles.backbone import Sites, backbone_dihedrals, ramachandran_pairs, trace
from mlff_cli.physics.internal_coordinates import dihedrals
from tests.coarse.peptides import OMEGA, PHI, PSI, Peptide, peptide

BUILT = {"phi": PHI, "psi": PSI, "omega": OMEGA}


def sites_of(made: Peptide) -> Sites:
    atoms = list(made.topology.atoms)
    return Sites(
        tuple(a.name for a in atoms),
        tuple(a.residue.name for a in atoms),
        np.array([a.residue.resSeq for a in atoms]),
        np.array([a.residue.chain.index for a in atoms]),
        np.array([(a.index, b.index) for a, b in made.topology.bonds]),
    )


def chain(n: int, *, names: str = "CA", chains: int = 1) -> Sites:
    k = np.arange(n * chains)
    inside = k[:-1][np.diff(k // n) == 0]
    bonds = np.stack([inside, inside + 1], 1)
    return Sites((names,) * len(k), ("GLY",) * len(k), k % n + 1, k // n, bonds)


def test_dihedrals_of_a_peptide_have_the_values_it_was_built_with() -> None:
    made = peptide(["ACE", "ALA", "GLY", "SER", "NME"])
    found = backbone_dihedrals(sites_of(made))
    names = [d.name for d in found]
    assert names == [
        *("phi ALA2", "psi ALA2", "omega ALA2", "phi GLY3", "psi GLY3", "omega GLY3"),
        *("phi SER4", "psi SER4"),
    ]  # the caps' methyls are not called CA
    rows = np.array([d.sites for d in found])
    values = np.degrees(dihedrals(made.positions[None], rows))[0]
    wanted = np.array([BUILT[d.kind] for d in found])
    assert np.allclose((values - wanted + 180) % 360 - 180, 0, atol=1e-6)


def test_order_of_atoms_does_not_matter() -> None:
    made = peptide(["ALA", "GLY", "SER"], ["ALA", "ALA"])
    shuffled, _ = made.reordered(3)
    plain, other = (backbone_dihedrals(sites_of(p)) for p in (made, shuffled))
    assert [d.name for d in plain] == [d.name for d in other]
    for a, b in zip(plain, other, strict=True):
        x, y = made.positions[list(a.sites)], shuffled.positions[list(b.sites)]
        assert np.array_equal(x, y)


def test_a_chain_ends_where_its_bonds_end() -> None:
    two = backbone_dihedrals(sites_of(peptide(["ALA", "ALA"], ["ALA", "ALA"])))
    assert [d.name for d in two if d.kind != "omega"] == [
        *("psi 0:ALA1", "phi 0:ALA2", "psi 1:ALA1", "phi 1:ALA2")
    ]


def test_six_beads_make_phi_and_psi_of_alanine_dipeptide() -> None:
    six = Sites(
        ("C", "N", "CA", "CB", "C", "N"),
        ("ACE", "ALA", "ALA", "ALA", "ALA", "NME"),
        np.array([1, 2, 2, 2, 2, 3]),
        np.zeros(6, int),
        np.array([[0, 1], [1, 2], [2, 3], [2, 4], [4, 5]]),
    )
    found = backbone_dihedrals(six)
    assert [(d.name, d.sites) for d in found] == [
        ("phi ALA2", (0, 1, 2, 4)),
        ("psi ALA2", (1, 2, 4, 5)),
    ]
    assert ramachandran_pairs(found) == [(0, 1)]


@pytest.mark.parametrize("names", ["CA", "COM", ""])
def test_one_bead_per_residue_has_virtual_dihedrals(names: str) -> None:
    found = backbone_dihedrals(chain(7, names=names, chains=2))
    assert len(found) == 2 * (7 - 3)
    assert {d.kind for d in found} == {"gamma"}
    assert [d.sites for d in found[:2]] == [(0, 1, 2, 3), (1, 2, 3, 4)]
    assert ramachandran_pairs(found) == [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)]


def test_side_chain_beads_are_no_backbone() -> None:
    names = ("CA", "CB") * 5
    residues = np.repeat(np.arange(1, 6), 2)
    bonds = [(2 * i, 2 * i + 1) for i in range(5)] + [(2 * i, 2 * i + 2) for i in range(4)]
    found = backbone_dihedrals(Sites(names, ("ALA",) * 10, residues, np.zeros(10), np.array(bonds)))
    assert [d.sites for d in found] == [(0, 2, 4, 6), (2, 4, 6, 8)]


def test_disulfides_and_breaks_do_not_join() -> None:
    one = chain(8)
    broken = one.bonds[one.bonds[:, 0] != 3]
    bridged = np.concatenate([broken, [[1, 6]]])
    found = backbone_dihedrals(
        Sites(one.names, one.residue_names, one.residues, one.chains, bridged)
    )
    assert [d.sites for d in found] == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_short_chains_have_none() -> None:
    assert backbone_dihedrals(chain(3)) == []
    assert ramachandran_pairs([]) == []
    assert trace(chain(3)).tolist() == [0, 1, 2]


def test_faulty_sites_are_refused() -> None:
    with pytest.raises(DataError, match="sites 0 to 1, found 0 to 2"):
        Sites(("CA", "CA"), ("A", "A"), np.arange(2), np.zeros(2), np.array([[0, 2]]))
    with pytest.raises(DataError, match="as many residues"):
        Sites(("CA",), ("A", "A"), np.arange(2), np.zeros(2), np.zeros((0, 2)))
