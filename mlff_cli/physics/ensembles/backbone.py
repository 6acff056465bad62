"""Dihedrals of a backbone, recognised by the names of beads or atoms.

    phi(r)    C of the residue before, N, CA, C        psi(r)  N, CA, C, N of the residue behind
    omega(r)  CA, C, N and CA of the residue behind

A residue before or behind is the one that a bond C - N leads to, a cap's too: six beads C, N, CA,
CB, C, N make phi and psi of alanine dipeptide. Where there are none of these names, as with one
bead per residue, virtual dihedrals of four residues in a row tell the shape of the chain:

    gamma(r)  CA (or the only bead) of residues r-1, r, r+1, r+2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlff_cli.core.errors import DataError

Kind = Literal["phi", "psi", "omega", "gamma"]


@dataclass(frozen=True, eq=False)
class Sites:
    """Beads or atoms of a molecule, by what they are called.

    Attributes:
        names: (n,) as "CA".
        residue_names: (n,) as "ALA".
        residues: (n,) number of each one's residue in its chain.
        chains: (n,) number of its chain.
        bonds: (b, 2) int64.

    Raises:
        DataError: lengths differ, or a bond leads to a site there is not.
    """

    names: tuple[str, ...]
    residue_names: tuple[str, ...]
    residues: np.ndarray
    chains: np.ndarray
    bonds: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.names)
        object.__setattr__(self, "bonds", np.asarray(self.bonds, np.int64).reshape(-1, 2))
        sizes = [len(self.residue_names), len(self.residues), len(self.chains)]
        if sizes != [n, n, n]:
            raise DataError(f"{n} names need as many residues and chains, found {sizes}")
        if self.bonds.size and not 0 <= self.bonds.min() <= self.bonds.max() < n:
            raise DataError(
                f"bonds join sites 0 to {n - 1}, found {self.bonds.min()} to {self.bonds.max()}"
            )

    @property
    def residue_of(self) -> np.ndarray:
        """(n,) residues counted from 0 in the order in which they first occur."""
        seen: dict[tuple[int, int, str], int] = {}
        keys = zip(self.chains, self.residues, self.residue_names, strict=True)
        return np.array([seen.setdefault((int(c), int(r), n), len(seen)) for c, r, n in keys], int)


@dataclass(frozen=True)
class Dihedral:
    """A dihedral with a name.

    Attributes:
        kind: as the module says.
        sites: the four.
        residue: counted from 0, of `Sites.residue_of`.
        label: of the residue, as "ALA2".
    """

    kind: Kind
    sites: tuple[int, int, int, int]
    residue: int
    label: str

    @property
    def name(self) -> str:
        """As "phi ALA2"."""
        return f"{self.kind} {self.label}"


def backbone_dihedrals(sites: Sites) -> list[Dihedral]:
    """phi, psi and omega, residue by residue; gamma where there are neither phi nor psi."""
    by_name = _peptide(sites)
    return by_name if any(d.kind in ("phi", "psi") for d in by_name) else _virtual(sites)


def ramachandran_pairs(dihedrals: Sequence[Dihedral]) -> list[tuple[int, int]]:
    """Rows of phi and psi of one residue; of gamma in a row where there are none."""
    row = {(d.kind, d.residue): k for k, d in enumerate(dihedrals)}
    of = sorted({d.residue for d in dihedrals})
    pairs = [(row["phi", r], row["psi", r]) for r in of if {("phi", r), ("psi", r)} <= row.keys()]
    if pairs:
        return pairs
    virtual = [k for k, d in enumerate(dihedrals) if d.kind == "gamma"]
    return [
        (i, j)
        for i, j in zip(virtual, virtual[1:], strict=False)
        if dihedrals[i].sites[1:] == dihedrals[j].sites[:3]
    ]


def trace(sites: Sites) -> np.ndarray:
    """One site of every residue, in order: CA, or the only one; int64."""
    of = sites.residue_of
    found = []
    for r in range(of.max(initial=-1) + 1):
        mine = np.flatnonzero(of == r)
        named = [i for i in mine if sites.names[i] == "CA"]
        found += named[:1] if named else (list(mine) if len(mine) == 1 else [])
    return np.array(found, np.int64)


def _peptide(sites: Sites) -> list[Dihedral]:
    of = sites.residue_of
    at = {(int(r), name): k for k, (r, name) in enumerate(zip(of, sites.names, strict=True))}
    before: dict[int, int] = {}
    behind: dict[int, int] = {}
    for pair in sites.bonds.tolist():
        for c, n in (pair, pair[::-1]):
            if (sites.names[c], sites.names[n]) == ("C", "N") and of[c] != of[n]:
                before[int(of[n])], behind[int(of[c])] = int(of[c]), int(of[n])
    found = []
    for r in range(of.max(initial=-1) + 1):
        own = [(r, "N"), (r, "CA"), (r, "C")]
        last, following = (before.get(r, -1), "C"), behind.get(r, -1)
        wanted: dict[Kind, list[tuple[int, str]]] = {
            "phi": [last, *own],
            "psi": [*own, (following, "N")],
            "omega": [*own[1:], (following, "N"), (following, "CA")],
        }
        for kind, keys in wanted.items():
            if all(key in at for key in keys):
                a, b, c, d = (at[key] for key in keys)
                found.append(Dihedral(kind, (a, b, c, d), r, _label(sites, at[keys[1]])))
    return found


def _virtual(sites: Sites) -> list[Dihedral]:
    of, chain = sites.residue_of, trace(sites)
    joined = {tuple(sorted((int(of[i]), int(of[j])))) for i, j in sites.bonds.tolist()}
    found = []
    for k in range(len(chain) - 3):
        four = chain[k : k + 4].tolist()
        steps = [(int(of[a]), int(of[b])) for a, b in zip(four, four[1:], strict=False)]
        if all(step in joined and step[1] == step[0] + 1 for step in steps):
            label = _label(sites, four[1])
            found.append(Dihedral("gamma", (four[0], four[1], four[2], four[3]),
                                  int(of[four[1]]), label))  # fmt: skip
    return found


def _label(sites: Sites, k: int) -> str:
    chain = f"{int(sites.chains[k])}:" if len(np.unique(sites.chains)) > 1 else ""
    return f"{chain}{sites.residue_names[k]}{int(sites.residues[k])}"
