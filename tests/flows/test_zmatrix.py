"""Laws of Z-matrices, and which torsions of a peptide are soft."""

from __future__ import annotations

import numpy as np
import pytest

from mlff_cli.core.errors import DataError
from mlff_cli.flows.molecule import FlowMolecule
from mlff_cli.flows.zmatrix import zmatrix_of
from tests.flows.dipeptide import BONDS, NUMBERS, dipeptide

SEQUENCES = ("A", "GYDPETGTWG", "PWF", "CKIR", "MSHV")


def of_sequence(sequence: str) -> FlowMolecule:
    """A zwitterion of RDKit's, with hydrogens."""
    chem = pytest.importorskip("rdkit.Chem")
    made = chem.AddHs(chem.MolFromSequence(sequence))
    numbers = [atom.GetAtomicNum() for atom in made.GetAtoms()]
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in made.GetBonds()]
    return FlowMolecule(np.array(numbers), np.array(bonds), sequence)


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_every_atom_is_placed_by_atoms_before_it(sequence):
    molecule = of_sequence(sequence)
    z = molecule.zmatrix
    bonded = {frozenset(pair) for pair in molecule.bonds.tolist()}
    assert sorted(z.atom) == list(range(molecule.n_atoms))
    seen = set(z.atom[:3].tolist())
    assert frozenset((z.atom[1], z.bond[0])) in bonded
    for (i, a, b, c), improper in zip(z.torsions.tolist(), z.improper, strict=True):
        assert {a, b, c} <= seen
        assert len({i, a, b, c}) == 4
        assert frozenset((i, a)) in bonded
        assert frozenset((a, b)) in bonded
        assert frozenset((a if improper else b, c)) in bonded
        seen.add(i)


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_a_bond_has_one_torsion_and_its_level_comes_after_what_it_needs(sequence):
    z = of_sequence(sequence).zmatrix
    proper = z.torsions[~z.improper]
    about = [frozenset(row) for row in proper[:, 1:3].tolist()]
    assert len(set(about)) == len(about)
    placed = set(z.atom[:3].tolist())
    for rows in z.levels:
        assert set(z.torsions[rows, 1:].flat) <= placed
        placed |= set(z.torsions[rows, 0].tolist())
    assert len(placed) == z.n_atoms


def test_the_dipeptide_has_phi_psi_and_two_free_methyls_as_soft_torsions():
    molecule = dipeptide()
    soft = molecule.zmatrix.torsions[molecule.soft]
    assert {frozenset(row[1:3]) for row in soft.tolist()} == {
        frozenset((6, 8)),  # phi
        frozenset((8, 10)),  # psi
        frozenset((0, 2)),  # CH3 of ACE
        frozenset((16, 18)),  # CH3 of NME
    }
    assert [0, 6, 8, 10] in soft.tolist()  # phi itself: C N CA C
    assert [16, 10, 8, 6] in soft.tolist()  # psi itself: N C CA N
    threefold = molecule.zmatrix.torsions[molecule.periods == 3]
    assert [set(row[1:3]) for row in threefold.tolist()] == [{8, 12}]
    assert molecule.n_coordinates == 60


def test_rings_and_amides_are_stiff_and_side_chains_soft():
    # WHAT turns: N-CA and CA-C of both residues but for proline's ring, NH3+, and chi of tyrosine
    molecule = of_sequence("PY")
    soft = molecule.zmatrix.torsions[molecule.soft]
    z, near = molecule.numbers, {frozenset(b) for b in molecule.bonds.tolist()}
    assert all(frozenset(row[1:3]) in near for row in soft.tolist())
    # psi(P), phi(Y), psi(Y), chi1, chi2 and the hydroxyl
    assert len(soft) == 6 + int(_carboxyl_turns(molecule))
    assert sum(z[row[1]] == 8 or z[row[2]] == 8 for row in soft.tolist()) >= 1


def _carboxyl_turns(molecule: FlowMolecule) -> bool:
    """Whether RDKit made COOH, whose hydrogen turns about a bond of our 'soft' kind."""
    rows = molecule.zmatrix.torsions[molecule.soft].tolist()
    z = molecule.numbers
    near = [molecule.bonds[(molecule.bonds == i).any(1)] for i in range(molecule.n_atoms)]
    acid = [
        i
        for i in range(molecule.n_atoms)
        if z[i] == 6 and sum(z[j] == 8 for j in np.setdiff1d(near[i], i)) == 2
    ]
    return any({row[1], row[2]} & set(acid) and 8 in (z[row[1]], z[row[2]]) for row in rows)


def test_a_molecule_survives_its_plain_form():
    molecule = dipeptide()
    again = FlowMolecule.from_plain(molecule.plain())
    assert again.plain() == molecule.plain()
    assert np.array_equal(again.zmatrix.torsions, molecule.zmatrix.torsions)


def test_two_molecules_are_refused_with_the_first_atom_that_is_alone():
    with pytest.raises(DataError, match=r"one connected molecule.*1 others, the first is atom 19"):
        zmatrix_of(NUMBERS, np.array([b for b in BONDS.tolist() if b != [18, 19]]))


def test_bonds_to_atoms_that_do_not_exist_are_refused():
    with pytest.raises(DataError, match="atoms 0 to 3, found 0 to 4"):
        FlowMolecule(np.array([6, 1, 1, 1]), np.array([[0, 1], [0, 4]]))


def test_three_atoms_have_no_torsion():
    with pytest.raises(DataError, match="four atoms, found 3"):
        zmatrix_of(np.array([8, 1, 1]), np.array([[0, 1], [0, 2]]))
