"""Bead molecules of a coarse-grained set as models and engines know them, with masses.

    m_I = sum_a m_a p_aI      p_aI: share of atom a that bead I carries, sum_I p_aI = 1

An atom that beads are mapped from is shared as their weights in the mapping are. Any other atom
goes with the beads that are nearest along the atoms' bonds, in equal shares: its residue's, with
one bead a residue. So the masses of the beads sum to the molecule's. Where the set does not say
which atoms there are, residues have the mass of their name's, or `USUAL`, in equal shares of their
beads. Masses set the time scale of a simulation and no equilibrium average.
"""

from __future__ import annotations

import numpy as np

from mlff_cli.coarse.priors.set_terms import bare_molecule, molecule_terms
from mlff_cli.core.residues import D_AMINO_ACIDS
from mlff_cli.data.beads.cg_beads import BeadMolecule
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.lazy_sequence import LazySequence
from mlff_cli.potentials.bead_topology import BeadTopology

USUAL = 110.0  # amu, the mean mass of a residue in proteins
# fmt: off
FORMULAS = {  # of a residue within a chain, side chain neutral; caps of peptides at the end
    "ALA": "C3H5NO", "ARG": "C6H12N4O", "ASN": "C4H6N2O2", "ASP": "C4H5NO3", "CYS": "C3H5NOS",
    "GLN": "C5H8N2O2", "GLU": "C5H7NO3", "GLY": "C2H3NO", "HIS": "C6H7N3O", "ILE": "C6H11NO",
    "LEU": "C6H11NO", "LYS": "C6H12N2O", "MET": "C5H9NOS", "PHE": "C9H9NO", "PRO": "C5H7NO",
    "SER": "C3H5NO2", "THR": "C4H7NO2", "TRP": "C11H10N2O", "TYR": "C9H9NO2", "VAL": "C5H9NO",
    "ACE": "C2H3O", "NME": "CH4N", "NH2": "NH2",
}
# fmt: on


class BeadMolecules(LazySequence[BeadTopology]):
    """The molecules of a set, each made when it is asked for.

    Args:
        cg: the opened set; it must stay open.

    Attributes:
        notes: what was assumed of masses, for the user.

    Raises:
        DataError: species outside the table.
    """

    def __init__(self, cg: CGSet) -> None:
        self._cg = cg
        self._terms = molecule_terms(cg)
        molecule = cg.per_frame("molecule")
        known, first = np.unique(molecule, return_index=True)
        self._first = dict(zip(known.tolist(), first.tolist(), strict=True))
        self.notes = self._assumed()

    def __len__(self) -> int:
        return len(self._terms)

    def _make(self, k: int) -> BeadTopology:
        molecule = self._whole(k)
        known = self._terms[k]
        return BeadTopology(
            name=known.name,
            types=tuple(known.types),
            bead_names=tuple(map(str, molecule.bead_name)),
            residue_names=tuple(map(str, molecule.residue_name)),
            residues=molecule.residue.astype(np.int64),
            chains=molecule.chain.astype(np.int64),
            masses=bead_masses(molecule),
            terms=known.terms,
            start=self._start(k),
        )

    def _whole(self, k: int) -> BeadMolecule:
        return self._cg.molecules[k] if len(self._cg.molecules) else bare_molecule(self._cg, k)

    def _start(self, k: int) -> np.ndarray | None:
        """The first frame of molecule k, (n, 3) angstrom; None where it has none."""
        if k not in self._first:
            return None
        (block,) = self._cg.blocks(np.array([self._first[k]]), forces=False)
        return np.asarray(block.R[0], dtype=np.float64)

    def _assumed(self) -> list[str]:
        guessed, unknown = [], set[str]()
        for k in range(len(self)):
            molecule = bare_molecule(self._cg, k)
            if not molecule.n_atoms:
                guessed.append(molecule.name)
                unknown |= {r for r in map(str, molecule.residue_name) if _formula(r) is None}
        if not guessed:
            return []
        shown = ", ".join(guessed[:3]) + (f" and {len(guessed) - 3} more" if guessed[3:] else "")
        usual = f", {USUAL:g} amu for {', '.join(sorted(unknown)[:5])}" if unknown else ""
        return [
            f"{self._cg.path} does not say of which atoms the beads of {shown} are made: masses "
            f"are those of residues by name{usual}"
        ]


def molecules_of(cg: CGSet) -> BeadMolecules:
    """The molecules of an opened set as topologies, each made when it is asked for.

    Raises:
        DataError: species outside the table.
    """
    return BeadMolecules(cg)


def bead_masses(molecule: BeadMolecule) -> np.ndarray:
    """Masses (n,) of a molecule's beads in amu; those of its atoms are IUPAC's, from ase."""
    from ase.data import atomic_masses

    if not molecule.n_atoms or molecule.mapping is None:
        return _by_residue(molecule)
    of_atoms = np.asarray(atomic_masses, dtype=np.float64)[molecule.elements]
    return np.asarray(atom_shares(molecule).T @ of_atoms)


def atom_shares(molecule: BeadMolecule) -> np.ndarray:
    """Shares p (N, n) of every atom in the beads; rows sum to 1.

    Args:
        molecule: with its mapping.
    """
    assert molecule.mapping is not None
    share: np.ndarray = np.abs(molecule.mapping.T)  # [a, I]
    here = np.asarray((share > 0).any(axis=1))
    share[here] /= share[here].sum(axis=1, keepdims=True)
    a, b = molecule.atom_bonds.T
    while not here.all():  # outwards along bonds, one bond at a time
        reached = np.zeros_like(share)
        for i, j in ((a, b), (b, a)):
            out = here[i] & ~here[j]
            np.add.at(reached, j[out], (share[i[out]] > 0).astype(float))
        found = reached.any(axis=1)
        if not found.any():  # atoms that no bond joins to a bead, as ions
            share[~here] = 1.0 / share.shape[1]
            break
        nearest = reached[found] > 0
        share[found] = nearest / nearest.sum(axis=1, keepdims=True)
        here |= found
    return share


def _by_residue(molecule: BeadMolecule) -> np.ndarray:
    """Masses (n,) from the names of residues, shared equally by a residue's beads."""
    names = list(map(str, molecule.residue_name))
    keys = list(zip(molecule.chain.tolist(), molecule.residue.tolist(), strict=True))
    count = {key: keys.count(key) for key in set(keys)}
    each = [residue_mass(name) / count[key] for name, key in zip(names, keys, strict=True)]
    return np.array(each, dtype=np.float64)


def residue_mass(name: str) -> float:
    """Mass of a residue within a chain in amu; `USUAL` for a name that is not known."""
    from ase.data import atomic_masses, atomic_numbers
    from ase.formula import Formula

    formula = _formula(name)
    if formula is None:
        return USUAL
    count = Formula(formula).count()
    return float(sum(m * atomic_masses[atomic_numbers[e]] for e, m in count.items()))


def _formula(name: str) -> str | None:
    return FORMULAS.get(D_AMINO_ACIDS.get(name, name))
