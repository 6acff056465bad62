"""A coarse-grained set read once: what `mlff check` judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import BeadMolecule, plain_chain
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.trajectories.frame_survey import (
    BondLimits,
    Bonds,
    ForceStatistics,
    Overlaps,
    bond_lengths,
    fingerprints,
    sampled,
    unbonded_pairs,
)

OVERLAP = 1.0  # angstrom between the centres of two beads; no two atoms come so close
# CA - CA changes from 3.8 to 2.9 A with its peptide bond, and nothing else moves it so far. Centres
# of mass of neighbours swing to 0.7 of their median within nanoseconds, and farther in longer runs.
LIMITS = BondLimits(stiff=1.5, soft=2.0, jump=3.0, contact=OVERLAP)
STIFF = 3  # bonds between two atoms that hold them at a distance (CA - C - N - CA)
SAMPLE = 500  # frames whose median is a bond's usual length


@dataclass
class MoleculeFindings:
    """What was seen of one molecule.

    Attributes:
        name: its name in the set.
        n_frames: of the set.
        bonds: None where it has none.
        overlaps: None where every pair is bonded.
        looked: frames whose pairs were measured.
        guessed: its bonds are not in the file: consecutive beads are taken to be bonded.
    """

    name: str
    n_frames: int
    bonds: Bonds | None
    overlaps: Overlaps | None
    looked: int
    guessed: bool


@dataclass
class SetFindings:
    """What was seen of a set.

    Attributes:
        molecules: one entry per molecule.
        forces: sums and extremes; `rows` says which frame each of its values belongs to.
        rows: rows of the frames in `forces`.
        infinite: rows of frames with a value of a real bead that is not finite.
        digests: of every frame's positions and molecule, in the order of rows.
        species: beads of each species number in a frame of every molecule.
    """

    molecules: list[MoleculeFindings]
    forces: ForceStatistics = field(default_factory=ForceStatistics)
    rows: list[np.ndarray] = field(default_factory=list)
    infinite: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    species: Counter[int] = field(default_factory=Counter)


def survey_set(data: CGSet, advance: Callable[[int], None]) -> SetFindings:
    """Look at every frame of a set.

    Args:
        data: the set.
        advance: told how many frames were read since it was last called.

    Raises:
        DataError: the file is damaged.
    """
    molecule = data.per_frame("molecule")
    strange = np.flatnonzero(~np.isin(molecule, np.arange(len(data.layouts))))
    if len(strange):
        raise DataError(
            f"frame {strange[0]} is of molecule {molecule[strange[0]]}, the set has 0 to "
            f"{len(data.layouts) - 1}",
            where=str(data.path),
            remedy="make the set again",
        )
    looked = np.zeros(data.n_frames, dtype=bool)
    found = SetFindings([])
    for k in range(len(data.layouts)):
        rows = np.flatnonzero(molecule == k)
        one = _molecule(data, k, rows)
        n_pairs = len(one.overlaps.pairs) if one.overlaps else 1
        looked[rows] = sampled(rows, n_pairs)
        one.looked = int(looked[rows].sum())
        found.molecules.append(one)
        found.species.update(data.layouts[k].species.tolist())
    for block in data.chunks():
        for k in np.unique(molecule[block.rows]):
            here = np.flatnonzero(molecule[block.rows] == k)
            columns = data.layouts[k].columns
            R = block.R[here][:, columns]
            F = None if block.F is None else block.F[here][:, columns]
            good = np.isfinite(R).all((1, 2))
            if F is not None:
                good &= np.isfinite(F).all((1, 2))
            rows = block.rows[here]
            found.infinite += rows[~good].tolist()
            if good.any():
                _add(found, int(k), R[good], None if F is None else F[good], rows[good], looked)
        found.digests += fingerprints(
            np.concatenate(
                [
                    np.where(block.mask[..., None], block.R, 0).reshape(len(block.rows), -1),
                    molecule[block.rows, None].astype("float32"),
                ],
                axis=1,
            )
        )
        advance(len(block.rows))
    return found


def _molecule(data: CGSet, k: int, rows: np.ndarray) -> MoleculeFindings:
    columns = data.layouts[k].columns
    n = len(columns)
    known = len(data.molecules) > 0
    one = data.molecules[k] if known else plain_chain(f"molecule {k}", data.layouts[k].species)
    bonds = one.bonds
    few = rows[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(int))]
    R = data.frames(few, forces=False).R[:, columns]
    R = R[np.isfinite(R).all((1, 2))]
    bonded = None
    if len(bonds) and len(R):
        usual = np.median(bond_lengths(R, bonds), axis=0)
        bonded = Bonds(bonds, np.maximum(usual, 1e-6), stiff_bonds(one), LIMITS)
    pairs = unbonded_pairs(n, bonds)
    overlaps = Overlaps(pairs, OVERLAP) if len(pairs) else None
    return MoleculeFindings(one.name, len(rows), bonded, overlaps, 0, not known)


def stiff_bonds(molecule: BeadMolecule) -> np.ndarray:
    """(b,) bool, which bonds of beads join single atoms that are `STIFF` bonds apart at most.

    Of a molecule without a mapping every bead is taken for an atom, as of one bead per residue.
    """
    M = molecule.mapping
    if M is None:
        return np.ones(len(molecule.bonds), bool)
    atoms = np.where((M != 0).sum(1) == 1, (M != 0).argmax(1), -1)[molecule.bonds]  # [b, 2]
    bonded: list[set[int]] = [{i} for i in range(molecule.n_atoms)]
    for i, j in molecule.atom_bonds.tolist():
        bonded[i].add(j)
        bonded[j].add(i)
    found = (atoms >= 0).all(axis=1)
    for k in np.flatnonzero(found):
        first, last = atoms[k].tolist()
        near = {first}
        for _ in range(STIFF):
            near = set().union(*(bonded[i] for i in near))
        found[k] = last in near
    return np.asarray(found)


def _add(
    found: SetFindings,
    k: int,
    R: np.ndarray,
    F: np.ndarray | None,
    rows: np.ndarray,
    looked: np.ndarray,
) -> None:
    one = found.molecules[k]
    if one.bonds:
        one.bonds.add(R, rows)
    chosen = looked[rows]
    if one.overlaps and chosen.any():
        one.overlaps.add(R[chosen], rows[chosen])
    if F is not None:
        found.forces.add(F, np.ones(F.shape[:2], dtype=bool))
        found.rows.append(rows)
