"""Terms of beads: what a chain has, and what breaks, rings and disulfides change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mlff_cli.coarse.mapping.topology import disulfides, terms
from mlff_cli.data.beads.cg_npz import BeadMolecule
from mlff_cli.physics.terms import APART
from tests.data.cg_sets import chain


def with_bonds(
    n: int, bonds: list[tuple[int, int]], names: list[str] | None = None
) -> BeadMolecule:
    named = np.array(names or ["ALA"] * n)
    return dataclasses.replace(
        chain(n), bonds=np.array(bonds, np.int32).reshape(-1, 2), residue_name=named
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_a_chain_has_its_neighbours(n: int) -> None:
    found = terms(chain(n))
    k = np.arange(n)
    np.testing.assert_array_equal(found.bonds, np.stack([k[:-1], k[1:]], 1))
    np.testing.assert_array_equal(
        found.angles, [(i, i + 1, i + 2) for i in k[:-2]] or np.zeros((0, 3))
    )
    np.testing.assert_array_equal(
        found.dihedrals, [(i, i + 1, i + 2, i + 3) for i in k[:-3]] or np.zeros((0, 4))
    )
    assert len(found.pairs) == n * (n - 1) // 2 - (n - 1)
    np.testing.assert_array_equal(found.separation, found.pairs[:, 1] - found.pairs[:, 0])


def test_a_break_separates() -> None:
    found = terms(with_bonds(6, [(0, 1), (1, 2), (3, 4), (4, 5)]))
    np.testing.assert_array_equal(found.angles, [(0, 1, 2), (3, 4, 5)])
    assert not len(found.dihedrals)
    across = (found.pairs[:, 0] < 3) & (found.pairs[:, 1] >= 3)
    assert across.sum() == 9
    assert (found.separation[across] == APART).all()


def test_branches_and_rings() -> None:
    star = terms(with_bonds(4, [(0, 1), (0, 2), (0, 3)]))
    assert len(star.angles) == 3
    assert not len(star.dihedrals)
    triangle = terms(with_bonds(3, [(0, 1), (1, 2), (0, 2)]))
    assert len(triangle.angles) == 3
    assert not len(triangle.dihedrals)
    ring = terms(with_bonds(5, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)]))
    assert (len(ring.angles), len(ring.dihedrals)) == (5, 5)
    assert set(ring.separation) == {2}


def test_a_disulfide_is_a_bond_without_angles() -> None:
    names = ["CYS", "ALA", "ALA", "ALA", "CYX", "ALA"]
    line = [(i, i + 1) for i in range(5)]
    molecule = with_bonds(6, [*line, (0, 4)], names)
    np.testing.assert_array_equal(disulfides(molecule), [False] * 5 + [True])
    found, plain = terms(molecule), terms(with_bonds(6, line, names))
    np.testing.assert_array_equal(found.angles, plain.angles)
    np.testing.assert_array_equal(found.dihedrals, plain.dihedrals)
    assert len(found.bonds) == len(plain.bonds) + 1
    between = dict(zip(map(tuple, found.pairs.tolist()), found.separation.tolist(), strict=True))
    assert between[0, 5] == 2
    assert (0, 4) not in between


def test_neighbouring_cysteines_are_a_chain() -> None:
    molecule = with_bonds(3, [(0, 1), (1, 2)], ["CYS", "CYS", "CYS"])
    assert not disulfides(molecule).any()
    assert len(terms(molecule).angles) == 1


def backbone(n: int, names: list[str] | None = None) -> BeadMolecule:
    """Residues of three beads N-CA-CB, bonded CA to the next N."""
    bonds = [(3 * k + i, 3 * k + i + 1) for k in range(n) for i in (0, 1)]
    bonds += [(3 * k + 1, 3 * k + 3) for k in range(n - 1)]
    named = [name for name in names or ["ALA"] * n for _ in range(3)]
    residue = np.repeat(np.arange(n, dtype=np.int32), 3)
    return dataclasses.replace(with_bonds(3 * n, bonds, named), residue=residue)


def test_separation_counts_residues() -> None:
    """As with one bead a residue; neighbours are held by what is bonded."""
    found, plain = terms(backbone(6)), terms(chain(6))
    between = dict(zip(map(tuple, plain.pairs.tolist()), plain.separation.tolist(), strict=True))
    of_residues = [tuple(p) for p in (found.pairs // 3).tolist()]
    assert len(of_residues) == 9 * len(between)
    assert [between[p] for p in of_residues] == found.separation.tolist()


def test_residues_of_a_disulfide_repel_where_they_are_not_bonded() -> None:
    names = ["CYS", "ALA", "ALA", "ALA", "CYS", "ALA"]
    plain = backbone(6, names)
    molecule = dataclasses.replace(plain, bonds=np.append(plain.bonds, [[2, 14]], 0))
    np.testing.assert_array_equal(np.flatnonzero(disulfides(molecule)), [len(plain.bonds)])
    found = terms(molecule)
    between = dict(zip(map(tuple, found.pairs.tolist()), found.separation.tolist(), strict=True))
    assert (2, 14) not in between
    assert between[1, 13] == between[0, 17] == 2
