"""Beads of peptides: which there are, what they are called, and what joins them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlff_cli.coarse.mapping.bead_bonds import contracted
from mlff_cli.coarse.mapping.chains import find_chains
from mlff_cli.coarse.mapping.molecule import Made, Recipe, make_molecule
from mlff_cli.coarse.mapping.topology import disulfides, terms
from mlff_cli.core.errors import DataError
from mlff_cli.data.trajectories.topology_file import read_topology
from tests.coarse.peptides import Peptide, peptide


def made(p: Peptide, mapping: str = "ca", **how: object) -> Made:
    return make_molecule("test", p.topology, p.positions, Recipe(mapping, **how))  # type: ignore[arg-type]


def named(found: Made) -> list[str]:
    return [found.species_table[s] for s in found.molecule.species]


def pairs(found: Made) -> list[tuple[str, str]]:
    """Bonds as residue number and bead name."""
    m = found.molecule
    label = [f"{r}{b}" for r, b in zip(m.residue, m.bead_name, strict=True)]
    return [(label[i], label[j]) for i, j in m.bonds]


CAPPED = ("ACE", "ALA", "GLY", "NME")
SCHEMES = {
    "ca": (["ALA", "GLY"], [("2CA", "3CA")]),
    "cacb": (["CA", "ALA", "GLY"], [("2CA", "2CB"), ("2CA", "3CA")]),
    "com": (["ALA", "GLY"], [("2COM", "3COM")]),
    "heavy-backbone": (
        ["N", "CA", "C", "O", "ALA", "N", "GLY", "C", "O"],
        [
            ("2N", "2CA"), ("2CA", "2C"), ("2CA", "2CB"), ("2C", "2O"),
            ("2C", "3N"), ("3N", "3CA"), ("3CA", "3C"), ("3C", "3O"),
        ],
    ),
    "N,CA,CB,C": (
        ["C", "N", "CA", "ALA", "C", "N", "GLY", "C", "N"],
        [
            ("1C", "2N"), ("2N", "2CA"), ("2CA", "2CB"), ("2CA", "2C"),
            ("2C", "3N"), ("3N", "3CA"), ("3CA", "3C"), ("3C", "4N"),
        ],
    ),
    "N,CA,C": (
        ["C", "N", "ALA", "C", "N", "GLY", "C", "N"],
        [
            ("1C", "2N"), ("2N", "2CA"), ("2CA", "2C"),
            ("2C", "3N"), ("3N", "3CA"), ("3CA", "3C"), ("3C", "4N"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mapping", SCHEMES)
def test_schemes_of_a_capped_peptide(mapping: str) -> None:
    species, bonds = SCHEMES[mapping]
    found = made(peptide(CAPPED), mapping)
    assert named(found) == species
    assert sorted(pairs(found)) == sorted(bonds)
    M = found.molecule.mapping
    assert M is not None
    np.testing.assert_allclose(M.sum(1), 1.0, atol=1e-14)
    assert ((M > 0).sum(0) <= 1).all()
    assert (M > 0).any(0).sum() == (len(species) if mapping != "com" else 6 + 5)


def test_species_by_class_and_termini() -> None:
    p = peptide(("LYS", "ASP", "SER", "ALA"))
    assert named(made(p, by="class")) == ["positive", "negative", "polar", "nonpolar"]
    assert named(made(p, termini=True)) == ["LYS-N", "ASP", "SER", "ALA-C"]
    assert named(made(peptide(CAPPED), termini=True)) == ["ALA", "GLY"]
    assert named(made(peptide(("ALA",)), termini=True)) == ["ALA-N-C"]


def test_a_centre_is_weighted_by_mass() -> None:
    p = peptide(("ALA", "ALA"))
    found = made(p, "com").molecule
    atoms = list(p.topology.residue(1).atoms)
    mass = np.array([a.element.mass for a in atoms])
    x = p.positions[[a.index for a in atoms]]
    np.testing.assert_allclose((found.mapping @ p.positions)[1], mass @ x / mass.sum())


def test_water_is_left_out() -> None:
    wet, dry = peptide(CAPPED, water=3), peptide(CAPPED)
    a, b = made(wet), made(dry)
    assert (a.remarks, a.notes) == (["left out: 3 HOH"], [])  # nothing to worry about
    np.testing.assert_array_equal(a.molecule.mapping, b.molecule.mapping)
    np.testing.assert_array_equal(a.molecule.atom_bonds, b.molecule.atom_bonds)
    np.testing.assert_array_equal(a.molecule.atom_index, np.arange(dry.topology.n_atoms))


def test_atoms_are_found_behind_what_is_left_out() -> None:
    """Water first: columns of the map are the protein's atoms, and say where these stand."""
    wet = peptide(("ALA", "ALA"), water=2)
    n = wet.topology.n_atoms - 6
    topology = wet.topology.subset(range(n, n + 6)).join(wet.topology.subset(range(n)))
    x = np.concatenate([wet.positions[n:], wet.positions[:n]])
    found = make_molecule("test", topology, x, Recipe("com")).molecule
    np.testing.assert_array_equal(found.atom_index, np.arange(6, n + 6))
    plain = made(peptide(("ALA", "ALA")), "com").molecule
    np.testing.assert_array_equal(found.mapping, plain.mapping)
    np.testing.assert_array_equal(found.atom_bonds, plain.atom_bonds)


def test_chains_are_apart() -> None:
    found = made(peptide(("ALA", "GLY", "ALA"), ("GLY", "GLY")), termini=True)
    assert found.molecule.chain.tolist() == [0, 0, 0, 1, 1]
    assert found.molecule.bonds.tolist() == [[0, 1], [1, 2], [3, 4]]
    assert named(found) == ["ALA-N", "GLY", "ALA-C", "GLY-N", "GLY-C"]
    assert not found.notes


@pytest.mark.parametrize("mapping", ["ca", "com", "heavy-backbone"])
def test_a_bond_over_a_gap_is_none(mapping: str) -> None:
    """Programs join neighbours in a chain whatever their distance; the beads are not."""
    whole, gap = peptide(("ALA",) * 6), peptide(("ALA",) * 6, cut=[3])
    a, b = made(whole, mapping), made(gap, mapping)
    assert len(b.molecule.bonds) == len(a.molecule.bonds) - 1
    assert len(b.molecule.atom_bonds) == len(a.molecule.atom_bonds) - 1
    assert len(b.notes) == 1
    assert "chain break between ALA 3 (chain 0) and ALA 9" in b.notes[0]
    assert "numbers leave a gap too" in b.notes[0]
    assert b.molecule.residue[-1] == 11


def test_a_missing_bond_is_told_and_numbers_alone_are_no_break() -> None:
    p = peptide(("ALA", "ALA", "ALA"))
    p.topology._bonds = [b for b in p.topology.bonds if b[0].residue is b[1].residue]
    found = made(p)
    assert not len(found.molecule.bonds)
    assert len(found.notes) == 2
    assert "the topology has no bond" in found.notes[0]
    p = peptide(("ALA", "ALA", "ALA"))
    p.topology.residue(2).resSeq = 30
    found = made(p)
    assert len(found.molecule.bonds) == 2
    assert "bonded over a gap of their numbers" in found.notes[0]


def test_a_ring_has_no_ends() -> None:
    p = peptide(("ALA",) * 5)
    first, last = p.topology.residue(0), p.topology.residue(4)
    atoms = {(a.residue.index, a.name): a for a in p.topology.atoms}
    p.positions[atoms[0, "N"].index] = p.positions[atoms[4, "C"].index] + [0, 0, 1.33]
    p.topology.add_bond(atoms[last.index, "C"], atoms[first.index, "N"])
    found = made(p, termini=True)
    assert [0, 4] in found.molecule.bonds.tolist()
    assert named(found) == ["ALA"] * 5
    assert len(terms(found.molecule).dihedrals) == 5


@pytest.mark.parametrize("mapping", ["ca", "cacb", "com"])
def test_disulfides_are_bonds_unless_told(mapping: str) -> None:
    p = peptide(("CYS", "ALA", "ALA", "CYX"), bridges=[(0, 3)])
    found, without = made(p, mapping), made(p, mapping, disulfides=False)
    carrier = {"ca": "CA", "cacb": "CB", "com": "COM"}[mapping]
    assert (f"1{carrier}", f"4{carrier}") in pairs(found)
    assert disulfides(found.molecule).sum() == 1
    assert len(without.molecule.bonds) == len(found.molecule.bonds) - 1
    assert "CYS 1 (chain 0) - CYX 4 (chain 0)" in found.remarks[0]
    np.testing.assert_array_equal(found.molecule.atom_bonds, without.molecule.atom_bonds)


def test_mirror_images() -> None:
    right = peptide(("ALA", "DAL", "GLY"))
    assert "DAL 2" in made(right).notes[0]  # built as L
    p = peptide(("ALA", "~DAL", "~SER", "GLY"))
    found = made(p)
    assert named(found) == ["ALA", "D-ALA", "SER", "GLY"]
    assert len(found.notes) == 1
    assert "1 residue is the mirror image of their name in the first frame: SER 3" in found.notes[0]
    assert "D-ALA" in found.species_table[20:]


def test_missing_atoms_are_listed() -> None:
    p = peptide(("ALA", "GLY", "SER"))
    keep = [a.index for a in p.topology.atoms if (a.name, a.residue.index) != ("CA", 1)]
    cut = Peptide(p.topology.subset(keep), p.positions[keep])
    with pytest.raises(DataError, match="atoms that are missing: CA of GLY 2"):
        made(cut)
    keep = [a.index for a in p.topology.atoms if a.name != "CB"]
    cut = Peptide(p.topology.subset(keep), p.positions[keep])
    with pytest.raises(DataError, match="CB of ALA 1 .*, CB of SER 3"):
        made(cut, "cacb")


@pytest.mark.parametrize("mapping", ["ca", "heavy-backbone", "N,CA,C"])
def test_an_atom_that_is_there_twice_is_named(mapping: str) -> None:
    """As alternate locations leave it: taking either would be a guess."""
    p = peptide(("ALA", "GLY", "SER"))
    twin = next(a for a in p.topology.atoms if (a.name, a.residue.index) == ("CB", 2))
    first = next(a for a in twin.residue.atoms if a.name == "CA")
    twin.name = "CA"
    with pytest.raises(DataError, match="one CA, SER 3 .* has atoms") as caught:
        made(p, mapping)
    assert f"atoms {first.index} and {twin.index}" in str(caught.value)
    assert made(p, "com").molecule.n_beads == 3


def test_nothing_to_map() -> None:
    with pytest.raises(DataError, match="no residue to make beads of, found 2 HOH"):
        made(peptide((), water=2))
    with pytest.raises(DataError, match="makes no bead"):
        made(_caps_alone())


def _caps_alone() -> Peptide:
    p = peptide(("ACE", "ALA", "NME"))
    keep = [a.index for a in p.topology.atoms if a.residue.name == "ACE"]
    return Peptide(p.topology.subset(keep), p.positions[keep])


def test_a_pdb_file_makes_the_same_beads(tmp_path: Path) -> None:
    p = peptide(("ACE", "ALA", "CYS", "GLY", "HIE", "CYS", "NME"), bridges=[(2, 5)])
    file = read_topology(p.write(tmp_path / "p.pdb"))
    assert file.positions is not None
    for mapping in SCHEMES:
        a = made(p, mapping)
        b = make_molecule("test", file.topology, file.positions, Recipe(mapping))
        assert named(a) == named(b)
        np.testing.assert_array_equal(a.molecule.bonds, b.molecule.bonds)


def test_contraction_does_not_depend_on_the_order_of_atoms() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = 14
        bonds = np.array([(i, int(rng.integers(0, i))) for i in range(1, n)] + [(0, n - 1)])
        owner = np.where(rng.random(n) < 0.4, np.cumsum(np.ones(n, int)) - 1, -1)
        order = rng.permutation(n)
        place = np.argsort(order)
        np.testing.assert_array_equal(
            contracted(owner, bonds), contracted(owner[order], place[bonds])
        )


def test_ends_of_chains() -> None:
    p = peptide(("ALA", "ALA", "ALA"), ("ACE", "ALA", "NME"), cut=[1])
    starts, stops = find_chains(p.topology, p.positions, {}).ends
    assert (starts, stops) == (frozenset({0, 1}), frozenset({0, 2}))
