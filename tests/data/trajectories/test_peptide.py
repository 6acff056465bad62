"""Peptides from sequences: names, bonds, geometry, and the hand of every stereocentre."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from openmm import app
from scipy.spatial.distance import pdist, squareform

from mlff_cli.core.errors import UsageError
from mlff_cli.core.residues import D_AMINO_ACIDS, LETTERS
from mlff_cli.data.trajectories.peptide import Peptide, build_peptide, parse_sequence

HEAVY = {  # heavy atoms of a residue in a chain
    "GLY": 4, "ALA": 5, "SER": 6, "CYS": 6, "THR": 7, "VAL": 7, "PRO": 7, "ASP": 8, "ASN": 8,
    "LEU": 8, "ILE": 8, "MET": 8, "GLU": 9, "GLN": 9, "LYS": 9, "HIS": 10, "PHE": 11, "ARG": 11,
    "TYR": 12, "TRP": 14, "ACE": 3, "NME": 2, "NH2": 1,
}  # fmt: skip


def place(peptide: Peptide, residue: int, name: str) -> np.ndarray:
    found = [
        x
        for x, r, n in zip(peptide.positions, peptide.residue, peptide.names, strict=True)
        if (r, n) == (residue, name)
    ]
    assert len(found) == 1
    return found[0]


def require_names_of_the_pdb(peptide: Peptide) -> None:
    """Bonds between names are those of OpenMM's table, which is that of the PDB's components."""
    table = ElementTree.parse(Path(app.__file__).parent / "data" / "residues.xml")
    bonds = {
        residue.attrib["name"]: {(b.attrib["from"], b.attrib["to"]) for b in residue}
        for residue in table.iter("Residue")
    }
    for index, code in enumerate(peptide.residues):
        inside = [b for b in peptide.bonds.tolist() if (peptide.residue[b] == index).all()]
        found = {frozenset(peptide.names[i] for i in bond) for bond in inside}
        names = {n for n, r in zip(peptide.names, peptide.residue, strict=True) if r == index}
        wanted = bonds[D_AMINO_ACIDS.get(code, code)]
        assert found == {frozenset(bond) for bond in wanted if set(bond) <= names}, code


def hand(peptide: Peptide, residue: int) -> float:
    """Triple product (N - CA) x (C - CA) . (CB - CA): positive for L ("CORN" read clockwise)."""
    ca = place(peptide, residue, "CA")
    n, c, cb = (place(peptide, residue, name) - ca for name in ("N", "C", "CB"))
    return float(np.cross(n, c) @ cb)


def test_all_twenty_residues_between_caps() -> None:
    peptide = build_peptide("ACE-" + "".join(LETTERS) + "-NME")
    assert peptide.residues == ("ACE", *LETTERS.values(), "NME")
    for index, name in enumerate(peptide.residues):
        assert (peptide.residue == index).sum() == HEAVY[name], name
        if name in LETTERS.values() and name != "GLY":
            assert hand(peptide, index) > 1.0, name
    assert (np.diff(peptide.residue) >= 0).all()
    require_names_of_the_pdb(peptide)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("T", {"CA": "S", "CB": "R"}),
        ("I", {"CA": "S", "CB": "S"}),
        ("GLY-DTH", {"CA": "R", "CB": "S"}),
        ("GLY-DIL", {"CA": "R", "CB": "R"}),
    ],
)
def test_side_chains_of_threonine_and_isoleucine_have_the_right_hand(
    code: str, wanted: dict[str, str]
) -> None:
    """CB of L-Thr is R and of L-Ile is S; both are (2S) at CA (IUPAC-IUB 1983)."""
    from rdkit import Chem

    peptide = build_peptide(code)
    mol = Chem.RWMol()
    conformer = Chem.Conformer(len(peptide.names))
    for i, number in enumerate(peptide.numbers.tolist()):
        mol.AddAtom(Chem.Atom(number))
        conformer.SetAtomPosition(i, peptide.positions[i].tolist())
    for i, j in peptide.bonds.tolist():
        ends = {peptide.names[i], peptide.names[j]}
        mol.AddBond(i, j, Chem.BondType.DOUBLE if ends == {"C", "O"} else Chem.BondType.SINGLE)
    Chem.SanitizeMol(mol)
    mol.AddConformer(conformer)
    Chem.AssignStereochemistryFrom3D(mol)
    centres = Chem.FindMolChiralCenters(mol, useLegacyImplementation=False)
    assert {peptide.names[i]: label for i, label in centres} == wanted


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("V", ("CB", "CA", "CG1", "CG2")),
        ("GLY-DVA", ("CB", "CA", "CG1", "CG2")),
        ("L", ("CG", "CB", "CD1", "CD2")),
    ],
)
def test_branches_of_valine_and_leucine_are_where_their_names_belong(
    code: str, names: tuple[str, ...]
) -> None:
    """CG1 and CD1 are pro-R: clockwise from the parent before the other, the hydrogen behind."""
    for seed in range(4):
        peptide = build_peptide(code, seed)
        x = [place(peptide, len(peptide.residues) - 1, name) for name in names]
        parent, first, second = (y - x[0] for y in x[1:])
        assert np.cross(first, second) @ parent < 0


def test_d_residues_are_mirrored() -> None:
    peptide = build_peptide("ACE-" + "-".join(D_AMINO_ACIDS) + "-NME", seed=4)
    for index, name in enumerate(peptide.residues):
        if name in D_AMINO_ACIDS:
            assert hand(peptide, index) < -1.0, name
    require_names_of_the_pdb(peptide)


@pytest.mark.parametrize("sequence", ["GYDPETGTWG", "ACE-ALA-NME", "ACE-AAAAAAAAAAAA-NH2", "G"])
def test_bonds_have_lengths_of_bonds_and_nothing_else_touches(sequence: str) -> None:
    peptide = build_peptide(sequence)
    distances = squareform(pdist(peptide.positions))
    i, j = peptide.bonds.T
    assert ((distances[i, j] > 1.1) & (distances[i, j] < 1.65)).all()
    np.fill_diagonal(distances, np.inf)
    distances[i, j] = distances[j, i] = np.inf
    assert distances.min() > 1.8
    n_rings = {"W": 2, "Y": 1, "P": 1}
    rings = sum(n_rings.get(letter, 0) for letter in sequence) if "-" not in sequence else 0
    assert len(peptide.bonds) == len(peptide.names) - 1 + rings


def test_the_chain_is_extended_and_its_peptide_bonds_are_trans() -> None:
    peptide = build_peptide("ACE-AAAAAAAAAA-NME")
    ends = place(peptide, 1, "CA") - place(peptide, 10, "CA")
    assert 3.0 * 9 < np.linalg.norm(ends) < 3.85 * 9
    for k in range(1, 10):
        trans = np.linalg.norm(place(peptide, k, "CA") - place(peptide, k + 1, "CA"))
        assert trans == pytest.approx(3.8, abs=0.15)


def test_the_same_seed_gives_the_same_atoms() -> None:
    first, again = build_peptide("GYD", seed=2), build_peptide("GYD", seed=2)
    np.testing.assert_array_equal(first.positions, again.positions)
    assert not np.array_equal(first.positions, build_peptide("GYD", seed=3).positions)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "an empty part"),
        ("ACE-ALX-NME", "ALX"),
        ("ACE-ALX-NME", "did you mean .*ALA"),
        ("gydp", "capitals"),
        ("GYBX", "'B'"),
        ("ALA-ACE-NME", "ACE elsewhere"),
        ("NME-ALA", "NME elsewhere"),
        ("ACE-NME", "no residue"),
        ("ACE--NME", "an empty part"),
        ("GyDPE", r"\('y' is none\)"),
        ("ACE", r"three one-letter codes as well.*\n.*ACE-ALA-NME .*A-CE for ALA-CYS-GLU"),
        ("HIS", r"three one-letter codes as well.*\n.*ACE-HIS-NME .*H-IS for HIS-ILE-SER"),
        ("DAL", r"three one-letter codes as well.*\n.*ACE-DAL-NME"),
        ("NH2", "no residue"),
    ],
)
def test_what_is_no_sequence_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_sequence(text)
