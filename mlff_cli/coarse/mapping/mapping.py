"""Beads: which atoms each is made of, and with which weights.

    R_I = sum_i M_Ii r_i,   sum_i M_Ii = 1 for every bead I,   an atom in one bead at most

| scheme         | beads of a residue                     | of a cap (ACE, NME, ...) |
|----------------|----------------------------------------|--------------------------|
| ca             | CA                                     | none                     |
| cacb           | CA, CB (glycine: CA)                   | none                     |
| heavy-backbone | N, CA, C, O, CB (glycine: without CB)  | none                     |
| com            | its centre of mass                     | none                     |
| N,CA,C,...     | atoms of these names, in this order    | atoms of these names     |
| FILE.yaml      | selections of mdtraj, see `mapping_file` | as selected            |

Names of the fifth kind: N CA C O CB, and CH3 of caps. `C,N,CA,CB` makes the six beads that alanine
dipeptide is usually given (C of ACE; N, CA, C, CB; N of NME), `N,CA,C` its five.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from mlff_cli.coarse.mapping.chains import SHOWN, Chains, canonical, told
from mlff_cli.coarse.mapping.residues import ResidueKind
from mlff_cli.coarse.mapping.species import carried, end_suffix
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.residues import STANDARD

if TYPE_CHECKING:
    from mdtraj.core.topology import Atom, Residue

SCHEMES = MappingProxyType(
    {
        "ca": ("CA",),
        "cacb": ("CA", "CB"),
        "heavy-backbone": ("N", "CA", "C", "O", "CB"),
    }
)
CENTRE = "com"
BACKBONE = ("N", "CA", "C", "O", "CB", "CH3")


@dataclass(frozen=True)
class Bead:
    """One bead.

    Attributes:
        name: as "CA".
        species: its name.
        atoms: (k,) int64, as a frame of the trajectory counts them.
        weights: (k,) float64, their sum is 1.
        residue: index of its residue in the topology.
        number: of its residue, where a mapping file gives another than the topology's.
    """

    name: str
    species: str
    atoms: np.ndarray
    weights: np.ndarray
    residue: int
    number: int | None = None


def atom_names(mapping: str) -> tuple[str, ...]:
    """Atoms that a scheme of single atoms takes; the fifth kind of the table included.

    Raises:
        UsageError: no such scheme.
    """
    if mapping in SCHEMES:
        return SCHEMES[mapping]
    names = tuple(name.strip() for name in mapping.split(","))
    if not set(names) <= set(BACKBONE) or len(set(names)) < len(names):
        raise UsageError(
            f"unknown mapping {mapping!r}",
            remedy=f"choose {', '.join(SCHEMES)}, {CENTRE}, names out of {','.join(BACKBONE)}, or "
            "a YAML file of selections",
        )
    return names


def own_species(names: tuple[str, ...]) -> list[str]:
    """Bead names of a scheme that are species of their own: all but the type's carrier."""
    carrier = "CB" if "CB" in names else "CA"
    return [name for name in names if name not in (carrier, "CH3")]


def atom_beads(chains: Chains, mapping: str, by: str, *, termini: bool) -> list[Bead]:
    """Beads at single atoms, residue by residue.

    Args:
        chains: of the topology.
        mapping: a row of `SCHEMES`, or names.
        by: "residue" or "class".
        termini: ends of chains are species of their own.

    Raises:
        UsageError: no such scheme.
        DataError: a residue lacks an atom that the scheme needs (all are listed), or has it twice.
    """
    names = atom_names(mapping)
    starts, stops = chains.ends
    beads, lacking = [], []
    for index, kind in chains.kinds.items():
        residue = chains.topology.residue(index)
        if kind.kind == "cap" and mapping in SCHEMES:
            continue
        at = _by_name(residue, names)
        carrier = "CB" if {"CB"} <= set(names) & set(at) else "CA"
        end = end_suffix(index in starts, index in stops) if termini else ""
        for name in names:
            if name not in at:
                if kind.kind == "amino" and _needed(name, kind):
                    lacking.append(f"{name} of {told(residue)}")
                continue
            own = (
                name if name != carrier or kind.kind == "cap" else carried(kind, by, told(residue))
            )
            one = np.array([at[name].index]), np.ones(1)
            beads.append(Bead(name, own + end, *one, index))
    if lacking:
        raise DataError(
            f"the mapping {mapping} needs atoms that are missing: {', '.join(lacking[:SHOWN])}"
            + (" ..." if len(lacking) > SHOWN else ""),
            remedy="complete the structure, or leave the residue out (`NAME: skip` in the table "
            "for --residues)",
        )
    return checked(chains, beads)


def _by_name(residue: Residue, names: tuple[str, ...]) -> dict[str, Atom]:
    """Atoms of a residue by the names of the PDB; none of `names` may be there twice."""
    at: dict[str, Atom] = {}
    for atom in residue.atoms:
        name = canonical(atom)
        if name in names and name in at:
            raise DataError(
                f"a residue has one {name}, {told(residue)} has atoms {at[name].index} and "
                f"{atom.index} (counted from 0) of that name",
                remedy="alternate locations and residues of one number must be told apart: leave "
                "one of them out, or number them",
            )
        at[name] = atom
    return at


def _needed(name: str, kind: ResidueKind) -> bool:
    """Whether an amino acid must have an atom; glycine and strangers may be without CB."""
    if name == "CB":
        return kind.species in STANDARD and kind.species != "GLY" or kind.handed == "D"
    return name != "CH3"


def centre_beads(chains: Chains, by: str, *, termini: bool) -> list[Bead]:
    """A bead at each residue's centre of mass.

    Raises:
        DataError: atoms without a mass.
    """
    starts, stops = chains.ends
    beads = []
    for index, kind in chains.kinds.items():
        if kind.kind == "amino":
            residue = chains.topology.residue(index)
            atoms = list(residue.atoms)
            end = end_suffix(index in starts, index in stops) if termini else ""
            species = carried(kind, by, told(residue)) + end
            at = np.array([a.index for a in atoms])
            beads.append(Bead("COM", species, at, masses(atoms), index))
    return checked(chains, beads)


def masses(atoms: list[Atom]) -> np.ndarray:
    """Masses of atoms as shares of their sum.

    Raises:
        DataError: they have no mass, or an element is not known.
    """
    mass = np.array([a.element.mass if a.element is not None else np.nan for a in atoms])
    if not np.isfinite(mass).all() or mass.sum() <= 0:
        bad = atoms[int(np.argmin(np.isfinite(mass) & (mass > 0)))]
        raise DataError(
            f"weights by mass need the mass of every atom, {bad} has none",
            remedy="give elements in the topology, or weights: equal",
        )
    return np.asarray(mass / mass.sum())


def checked(chains: Chains, beads: list[Bead]) -> list[Bead]:
    """Beads, after a look at what every mapping must fulfil.

    Raises:
        DataError: there are none, an atom is in two beads, or a weight is not a number.
    """
    if not beads:
        raise DataError(
            "the mapping makes no bead of this topology",
            remedy="choose another mapping; caps alone make none",
        )
    owner: dict[int, Bead] = {}
    for k, bead in enumerate(beads):
        for i in bead.atoms.tolist():
            if i in owner:
                raise DataError(
                    f"an atom belongs to one bead at most, {chains.topology.atom(i)} (atom {i}, "
                    f"counted from 0) is in bead {owner[i].name!r} of "
                    f"{told(chains.topology.residue(owner[i].residue))} and in bead {k}, "
                    f"{bead.name!r} of {told(chains.topology.residue(bead.residue))}",
                    remedy="make the selections exclude one another",
                )
            owner[i] = bead
    return beads
