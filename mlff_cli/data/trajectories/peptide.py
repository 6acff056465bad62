"""Peptides from their sequence: heavy atoms in an extended chain, with names and bonds.

    ACE-ALA-NME          three-letter codes, from N to C; ACE, NME and NH2 cap the ends
    GYDPETGTWG           one-letter codes
    ACE-GYDPETGTWG-NME   both
    GLY-DAL-GLY          D residues by their three-letter codes of the Protein Data Bank

RDKit knows the residues and gives every stereocentre its hand. The backbone is then turned to
phi = -120, psi = 140, omega = 180 degrees (phi and psi with the other sign for D residues), where
side chains of neighbours point away from one another. Hydrogens are the force field's matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from mlff_cli.core.errors import NumericalError, UsageError
from mlff_cli.core.residues import D_AMINO_ACIDS, LETTERS
from mlff_cli.core.runtime import require

PHI, PSI, OMEGA = -120.0, 140.0, 180.0  # degrees
# equal branches: seen from, at, their names, and what makes them others (isoleucine, rings)
BRANCHES = (
    ("CA", "CB", "CG1", "CG2", frozenset({"CD1"})),
    ("CB", "CG", "CD1", "CD2", frozenset({"CE1", "CE2", "NE1"})),
)
ATTEMPTS = 20  # seeds to try: prolines need a few
_LETTER_OF = {name: letter for letter, name in LETTERS.items()}
_HELM = {
    **{name: letter for letter, name in LETTERS.items()},
    **{d: f"[d{_LETTER_OF[name]}]" for d, name in D_AMINO_ACIDS.items()},
}
N_CAPS, C_CAPS = ("ACE",), ("NME", "NH2")
ISOLEUCINE, GAMMA = ("ILE", "DIL"), ("CG1", "CG2")


@dataclass(frozen=True)
class Peptide:
    """Heavy atoms of a peptide, residue by residue.

    Attributes:
        residues: three-letter codes, caps included.
        names: (N,) atom names.
        numbers: (N,) atomic numbers.
        residue: (N,) index of the residue of every atom.
        bonds: (b, 2) bonded atoms.
        positions: (N, 3) in angstrom.
    """

    residues: tuple[str, ...]
    names: tuple[str, ...]
    numbers: np.ndarray
    residue: np.ndarray
    bonds: np.ndarray
    positions: np.ndarray


def parse_sequence(text: str) -> tuple[str, ...]:
    """Three-letter codes of a sequence, caps included.

    Raises:
        UsageError: a code is unknown, a cap is not at its end, there is no residue, or a word can
            be read in two ways: ALA as one residue or as three.

    >>> parse_sequence("ACE-ALA-NME")
    ('ACE', 'ALA', 'NME')
    >>> parse_sequence("GYD")
    ('GLY', 'TYR', 'ASP')
    """
    known = {*_HELM, *N_CAPS, *C_CAPS}
    if text in known and all(letter in LETTERS for letter in text):
        raise UsageError(
            f"--peptide: {text!r} is a three-letter code, and three one-letter codes as well",
            where=text,
            remedy=f"write ACE-{text if text in _HELM else 'ALA'}-NME for one residue between caps,"
            f" or {text[0]}-{text[1:]} for {'-'.join(LETTERS[letter] for letter in text)}",
        )
    parts = text.split("-")
    codes: list[str] = []
    for part in parts:
        if part in known:
            codes.append(part)
        elif part and all(letter in LETTERS for letter in part):
            codes += [LETTERS[letter] for letter in part]
        else:
            near = get_close_matches(part.upper(), known, n=3)
            odd = next((c for c in part if c not in LETTERS), "an empty part")
            raise UsageError(
                f"--peptide: {part!r} is neither a residue's three-letter code nor one-letter "
                f"codes ({odd!r} is none)",
                where=text,
                remedy=(f"did you mean {', '.join(near)}? " if near else "")
                + "write ACE-ALA-NME or GYDPETGTWG in capitals; D residues as DAL",
            )
    inner = [c for c in codes if c in _HELM]
    misplaced = [c for c in codes[1:] if c in N_CAPS] + [c for c in codes[:-1] if c in C_CAPS]
    if misplaced or not inner:
        what = f"found {misplaced[0]} elsewhere" if misplaced else "found no residue"
        raise UsageError(
            f"--peptide: {'/'.join(N_CAPS)} begins and {'/'.join(C_CAPS)} ends a chain of "
            f"residues, {what}",
            where=text,
            remedy="write for instance ACE-ALA-NME",
        )
    return tuple(codes)


def build_peptide(text: str, seed: int = 0) -> Peptide:
    """An extended chain of the sequence.

    Args:
        text: see the module.
        seed: of the embedding.

    Raises:
        UsageError: see `parse_sequence`.
        MissingDependencyError: RDKit is not installed.
        NumericalError: RDKit finds no geometry.
    """
    codes = parse_sequence(text)
    chem, all_chem = require("rdkit.Chem", "coarse"), require("rdkit.Chem.AllChem", "coarse")
    molecule = _molecule(codes, chem)
    settings = all_chem.EmbedParameters()  # distance geometry alone: hydrogens come later
    settings.useRandomCoords, settings.enforceChirality = True, True
    with require("rdkit.rdBase", "coarse").BlockLogs():
        for attempt in range(ATTEMPTS):
            settings.randomSeed = (seed * ATTEMPTS + attempt) % 2**31
            if all_chem.EmbedMolecule(molecule, settings) == 0 and _right_hands(molecule, chem):
                break
        else:
            raise NumericalError(
                f"RDKit found no geometry in {ATTEMPTS} attempts",
                where=f"--peptide {text}",
                remedy="give the structure in a PDB file",
            )
    _extend(molecule, codes)
    index = np.array([a.GetIdx() for a in molecule.GetAtoms()])
    order = sorted(index.tolist(), key=lambda i: (_residue(molecule, i), i))
    rank = {i: k for k, i in enumerate(order)}
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()]
    found = Peptide(
        residues=codes,
        names=tuple(_name(molecule, i) for i in order),
        numbers=np.array([molecule.GetAtomWithIdx(i).GetAtomicNum() for i in order]),
        residue=np.array([_residue(molecule, i) for i in order]),
        bonds=np.array(sorted(tuple(sorted((rank[i], rank[j]))) for i, j in bonds)),
        positions=np.asarray(molecule.GetConformer().GetPositions())[order],
    )
    _order_branches(found)
    return found


def _order_branches(peptide: Peptide) -> None:
    """Put the methyl groups of valine and leucine where their names belong, in place.

    Clockwise before the hydrogen, seen from the main chain (IUPAC-IUB, Biochemistry 9, 3471, 1970):
    CG1 of valine and CD1 of leucine are pro-R. An embedding takes either.
    """
    x = peptide.positions
    for k in range(len(peptide.residues)):
        mine = np.flatnonzero(peptide.residue == k)
        at = {peptide.names[i]: int(i) for i in mine}
        for parent, centre, first, second, further in BRANCHES:
            if not {parent, centre, first, second} <= at.keys() or further & at.keys():
                continue
            axis, a, b = (x[at[name]] - x[at[centre]] for name in (parent, first, second))
            if np.cross(a, b) @ axis > 0:
                x[[at[first], at[second]]] = x[[at[second], at[first]]]


def _molecule(codes: tuple[str, ...], chem: Any) -> Any:
    """The heavy atoms; residues are counted from 0 in `GetResidueNumber`."""
    ends = {"ACE": "[ac]", "NME": "[am]", "NH2": "[am]"}
    helm = ".".join(ends.get(code) or _HELM[code] for code in codes)
    molecule = chem.RWMol(chem.MolFromHELM(f"PEPTIDE1{{{helm}}}$$$$"))
    infos = [atom.GetPDBResidueInfo() for atom in molecule.GetAtoms()]
    numbers = sorted({info.GetResidueNumber() for info in infos})
    for atom, info in zip(molecule.GetAtoms(), infos, strict=True):
        info.SetResidueNumber(numbers.index(info.GetResidueNumber()))
        if codes[info.GetResidueNumber()] in ISOLEUCINE and info.GetName().strip() in GAMMA:
            # CG1 carries CD1 (IUPAC-IUB 1983, and every template); RDKit has it the other way
            info.SetName(f" {GAMMA[0] if atom.GetDegree() == 2 else GAMMA[1]}")
        atom.SetMonomerInfo(info)
    if codes[-1] == "NME":
        nitrogen = next(
            a.GetIdx()
            for a in molecule.GetAtoms()
            if _residue(molecule, a.GetIdx()) + 1 == len(codes)
        )
        carbon = molecule.AddAtom(chem.Atom(6))
        info = chem.AtomPDBResidueInfo(" C  ", residueName="NME", residueNumber=len(codes) - 1)
        molecule.GetAtomWithIdx(carbon).SetMonomerInfo(info)
        molecule.AddBond(nitrogen, carbon, chem.BondType.SINGLE)
    plain = molecule.GetMol()
    chem.SanitizeMol(plain)
    return plain


def _right_hands(molecule: Any, chem: Any) -> bool:
    """Whether every stereocentre of the geometry is as the sequence says."""
    found = chem.Mol(molecule)
    chem.AssignStereochemistryFrom3D(found)
    wanted = dict(chem.FindMolChiralCenters(molecule, useLegacyImplementation=False))
    return wanted == dict(chem.FindMolChiralCenters(found, useLegacyImplementation=False))


def _extend(molecule: Any, codes: tuple[str, ...]) -> None:
    """Turn the backbone of an embedded chain."""
    turn = require("rdkit.Chem.rdMolTransforms", "coarse").SetDihedralDeg
    places = {
        (_residue(molecule, a.GetIdx()), _name(molecule, a.GetIdx())): a.GetIdx()
        for a in molecule.GetAtoms()
        if a.GetPDBResidueInfo() is not None
    }
    conformer = molecule.GetConformer()
    for k, code in enumerate(codes):
        sign = -1.0 if code in D_AMINO_ACIDS else 1.0
        alpha = "CH3" if code == "ACE" else "CA"
        after = "C" if k + 1 < len(codes) and codes[k + 1] == "NME" else "CA"
        for names, angle in (
            (((k - 1, "C"), (k, "N"), (k, "CA"), (k, "C")), sign * PHI),
            (((k, "N"), (k, "CA"), (k, "C"), (k + 1, "N")), sign * PSI),
            (((k, alpha), (k, "C"), (k + 1, "N"), (k + 1, after)), OMEGA),
        ):
            atoms = [places.get(name) for name in names]
            if None in atoms or molecule.GetBondBetweenAtoms(*atoms[1:3]).IsInRing():
                continue  # at an end, or held by proline's ring
            turn(conformer, *atoms, angle)


def _residue(molecule: Any, index: int) -> int:
    return int(molecule.GetAtomWithIdx(index).GetPDBResidueInfo().GetResidueNumber())


def _name(molecule: Any, index: int) -> str:
    return str(molecule.GetAtomWithIdx(index).GetPDBResidueInfo().GetName().strip())
