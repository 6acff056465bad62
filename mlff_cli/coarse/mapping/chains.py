"""What a topology holds for coarse-graining: amino acids, their bonds, and what is left out.

A peptide bond is a bond of the topology from a C to an N of another residue, no longer than
`LONGEST_PEPTIDE_BOND` in the first frame: programs that make bonds from residue names alone join
residues across a gap. Handedness of a residue is the sign of

    chi = (N - CA) . [(C - CA) x (CB - CA)],   positive for L
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlff_cli.coarse.mapping.residues import ResidueKind, classify
from mlff_cli.core.errors import DataError

if TYPE_CHECKING:
    import mdtraj
    from mdtraj.core.topology import Atom, Residue

LONGEST_PEPTIDE_BOND = 2.0  # angstrom; at rest 1.33
PLAIN = 0.5  # angstrom^3: |chi| of a tetrahedral carbon is 2.6, below this the geometry is none
METHYL_CAPS = ("NME", "NMA")
SHOWN = 20  # residues that a message lists


@dataclass(frozen=True)
class Chains:
    """The part of a topology that beads are made of.

    Attributes:
        topology: all of it.
        kinds: what each residue is, by its index; those left out are not in it.
        atoms: (N,) int64 atoms of these residues, as a frame of the trajectory counts them.
        peptide: (p, 2) residues by index: C of the first is bonded to N of the second.
        disulfides: (s, 2) residues by index.
        bonds: (m, 2) int64 bonds of the atoms, as the trajectory counts them, gaps not bridged.
        notes: what a user must be told.
        remarks: what is as it should be, and worth a line.
    """

    topology: mdtraj.Topology
    kinds: Mapping[int, ResidueKind]
    atoms: np.ndarray
    peptide: np.ndarray
    disulfides: np.ndarray
    bonds: np.ndarray
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def ends(self) -> tuple[frozenset[int], frozenset[int]]:
        """Amino acids that no peptide bond precedes, and those that none follows."""
        amino = {r for r, kind in self.kinds.items() if kind.kind == "amino"}
        follows, precedes = set(self.peptide[:, 1].tolist()), set(self.peptide[:, 0].tolist())
        return frozenset(amino - follows), frozenset(amino - precedes)


def find_chains(
    topology: mdtraj.Topology,
    positions: np.ndarray,
    table: Mapping[str, ResidueKind],
    *,
    any_residue: bool = False,
) -> Chains:
    """Sort a topology's residues and bonds.

    Args:
        topology: with bonds.
        positions: (N, 3) of the first frame in angstrom, molecules whole.
        table: of non-standard residues.
        any_residue: keep residues that nobody knows, as a mapping of selections may use them.

    Raises:
        DataError: residues that nobody knows, all of them listed; no residue is left.
    """
    kinds, unknown, skipped = {}, [], Counter[str]()
    for residue in topology.residues:
        kind = classify(residue, table)
        if kind is None and not any_residue:
            unknown.append(residue)
        elif kind is None or kind.kind != "skip":
            kinds[residue.index] = kind or ResidueKind("amino", residue.name)
        else:
            skipped[residue.name] += 1
    if unknown:
        raise _unknown(unknown)
    if not kinds:
        raise DataError(
            f"no residue to make beads of, found {_counted(skipped) or 'an empty topology'}",
            remedy="check that the topology is a protein's",
        )
    remarks = [f"left out: {_counted(skipped)}"] if skipped else []
    bonds = np.array(
        sorted({tuple(sorted((a.index, b.index))) for a, b in topology.bonds}), np.int64
    ).reshape(-1, 2)
    peptide, gaps = _peptide_bonds(topology, positions, bonds, kinds)
    notes = gaps.notes
    bonds = bonds[~np.isin(np.arange(len(bonds)), gaps.rows)]
    atoms = np.array([a.index for a in topology.atoms if a.residue.index in kinds], np.int64)
    bonds = bonds[np.isin(bonds, atoms).all(axis=1)]
    disulfides = _disulfides(topology, bonds)
    if not any_residue:
        notes += _handedness(topology, positions, kinds)
    return Chains(topology, kinds, atoms, peptide, disulfides, bonds, notes, remarks)


def canonical(atom: Atom) -> str:
    """An atom's name as the PDB has it: force fields call last oxygens and methyls otherwise."""
    name, residue = atom.name.strip(), atom.residue
    if residue.name in METHYL_CAPS and name == "C":
        return "CH3"
    if name in ("OT1", "OC1", "O1") and not any(a.name == "O" for a in residue.atoms):
        return "O"
    return str(name)


def told(residue: Residue) -> str:
    """A residue for a person: name, number, and its chain.

    Chains count from 0, as everywhere in the files.
    """
    return f"{residue.name} {residue.resSeq} (chain {residue.chain.index})"


@dataclass
class _Gaps:
    rows: list[int] = field(default_factory=list)  # of the bonds that are none
    pairs: set[tuple[int, int]] = field(default_factory=set)  # residues that they joined
    notes: list[str] = field(default_factory=list)


def _peptide_bonds(
    topology: mdtraj.Topology,
    positions: np.ndarray,
    bonds: np.ndarray,
    kinds: Mapping[int, ResidueKind],
) -> tuple[np.ndarray, _Gaps]:
    found, gaps = [], _Gaps()
    for row, (i, j) in enumerate(bonds.tolist()):
        pair = [topology.atom(i), topology.atom(j)]
        if pair[0].residue is pair[1].residue:
            continue
        pair.sort(key=lambda atom: canonical(atom))
        if [canonical(a) for a in pair] != ["C", "N"]:
            continue
        first, second = pair[0].residue, pair[1].residue
        if first.index not in kinds or second.index not in kinds:
            continue
        length = float(np.linalg.norm(positions[i] - positions[j]))
        jump = first.chain is second.chain and second.resSeq - first.resSeq not in (0, 1)
        numbers = ", their numbers leave a gap too" if jump else ""
        if length > LONGEST_PEPTIDE_BOND:
            gaps.rows.append(row)
            gaps.pairs.add((first.index, second.index))
            gaps.notes.append(
                f"chain break between {told(first)} and {told(second)}: C and N are {length:.1f} "
                f"angstrom apart{numbers}"
            )
        else:
            found.append((first.index, second.index))
            if jump and second.index == first.index + 1:
                gaps.notes.append(  # rings close over any numbers
                    f"{told(first)} and {told(second)} are bonded over a gap of their numbers"
                )
    for first, second in _neighbours(topology, kinds):
        if (first.index, second.index) not in {*found, *gaps.pairs}:
            gaps.notes.append(
                f"chain break between {told(first)} and {told(second)}: the topology has no bond"
            )
    return np.array(sorted(found), np.int64).reshape(-1, 2), gaps


def _neighbours(
    topology: mdtraj.Topology, kinds: Mapping[int, ResidueKind]
) -> list[tuple[Residue, Residue]]:
    """Residues that follow one another in the same chain and could be bonded."""
    listed = []
    for chain in topology.chains:
        kept = [r for r in chain.residues if r.index in kinds]
        names = [{canonical(a) for a in r.atoms} for r in kept]
        for k in range(len(kept) - 1):
            if "C" in names[k] and "N" in names[k + 1]:
                listed.append((kept[k], kept[k + 1]))
    return listed


def _disulfides(topology: mdtraj.Topology, bonds: np.ndarray) -> np.ndarray:
    """Pairs of residues that a bond of two sulfurs joins."""
    found = set()
    for i, j in bonds.tolist():
        a, b = topology.atom(i), topology.atom(j)
        sulfurs = all(x.element is not None and x.element.symbol == "S" for x in (a, b))
        if sulfurs and a.residue is not b.residue:
            found.add(
                (min(a.residue.index, b.residue.index), max(a.residue.index, b.residue.index))
            )
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def _handedness(
    topology: mdtraj.Topology, positions: np.ndarray, kinds: Mapping[int, ResidueKind]
) -> list[str]:
    """Notes about residues whose coordinates are the mirror image of their name."""
    wrong = []
    for index, kind in kinds.items():
        at = {canonical(a): positions[a.index] for a in topology.residue(index).atoms}
        if not kind.handed or not {"N", "CA", "C", "CB"} <= set(at):
            continue
        n, c, cb = (at[name] - at["CA"] for name in ("N", "C", "CB"))
        chi = float(n @ np.cross(c, cb))
        if abs(chi) > PLAIN and (chi > 0) != (kind.handed == "L"):
            wrong.append(topology.residue(index))
    if not wrong:
        return []
    listed = ", ".join(map(told, wrong[:SHOWN])) + (" ..." if len(wrong) > SHOWN else "")
    many = "residues are mirror images" if len(wrong) > 1 else "residue is the mirror image"
    return [
        f"{len(wrong)} {many} of their name in the first frame: {listed}; name "
        "D-amino acids as the PDB does (DAL) or in the table of residues (`ALA: DAL` where all are)"
    ]


def _unknown(residues: list[Residue]) -> DataError:
    names = Counter(r.name for r in residues)
    where = ", ".join(map(told, residues[:SHOWN])) + (" ..." if len(residues) > SHOWN else "")
    return DataError(
        f"every residue must be known, found {_counted(names)}: {where}",
        remedy="list them in a table for --residues, a YAML file with lines as `MSE: MET`, "
        "`SEP: {species: SEP, class: negative}` or `HEM: skip`",
    )


def _counted(names: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(names.items()))
