"""Topologies from any file that mdtraj reads, with bonds made where the file leaves them out.

mdtraj knows the bonds of standard residues by their atom names. A residue whose atoms do not hang
together (a modified amino acid, hydrogens of another naming) gets the missing bonds by distance,

    d_ij < r_i + r_j + 0.45 angstrom

(covalent radii of Cordero et al., Dalton Trans. 2832, 2008; never between two hydrogens), inside
the residue and to its neighbours in the chain. A note tells which; without coordinates in the file
a note tells what is missing.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from ase.data import covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from mlff_cli.core.errors import DataError, StorageError

TOLERANCE = 0.45  # angstrom, on top of two covalent radii
LONGEST = 3.2  # angstrom: no two covalent radii of biomolecules sum to more with the tolerance
NM = 10.0  # angstrom
SEQUENTIAL = (".gro",)  # mdtraj cannot take one frame out of them
BONDS_ONLY = (".prmtop", ".parm7", ".prm7", ".psf")  # topologies without coordinates


@dataclass(frozen=True)
class TopologyFile:
    """What a topology file holds.

    Attributes:
        path: the file.
        topology: atoms, residues, chains and bonds.
        positions: (N, 3) of its first frame in angstrom, where it has coordinates.
        notes: what a user must be told.
    """

    path: Path
    topology: mdtraj.Topology
    positions: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def read_topology(path: Path | str) -> TopologyFile:
    """Read a topology: PDB, mmCIF, GRO, prmtop, PSF, MOL2, mdtraj's HDF5, ...

    Raises:
        StorageError: the file does not exist.
        DataError: mdtraj cannot read it, or it has no atoms.
    """
    path = Path(path)
    if not path.is_file():
        what = "the file does not exist" if not path.exists() else "a topology must be a file"
        raise StorageError(what, where=str(path), remedy="check the path")
    topology, positions = _load(path)
    return TopologyFile(path, topology, positions, complete_bonds(topology, positions, str(path)))


def _load(path: Path) -> tuple[mdtraj.Topology, np.ndarray | None]:
    """Topology and positions (N, 3) in angstrom as mdtraj reads them."""
    positions: np.ndarray | None = None
    try:
        with warnings.catch_warnings():  # of odd unit cells, which are not used
            warnings.simplefilter("ignore")
            if path.suffix.lower() in BONDS_ONLY:
                topology = mdtraj.load_topology(str(path))
            else:
                whole = path.suffix.lower() in SEQUENTIAL
                frame = mdtraj.load(str(path)) if whole else mdtraj.load_frame(str(path), 0)
                topology, positions = frame.topology, frame.xyz[0] * NM
    except Exception as error:  # mdtraj's parsers raise whatever they meet
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"mdtraj cannot read a topology here: {reason[:200]}",
            where=str(path),
            remedy="give a PDB, mmCIF, GRO, prmtop, PSF or MOL2 file of the same atoms",
        ) from error
    if not topology.n_atoms:
        raise DataError(
            "a topology needs atoms, found none", where=str(path), remedy="check the file"
        )
    return topology, positions


def topology_from_pdb(text: str, where: str, bonds: np.ndarray | None = None) -> TopologyFile:
    """The topology of a PDB file's text, as trajectories carry it.

    Args:
        text: of the PDB file.
        where: what carries it, for messages.
        bonds: (b, 2) bonded atoms that are known beside it.

    Raises:
        DataError: it cannot be read.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".pdb") as stream:
        stream.write(text)
        stream.flush()
        try:
            topology, positions = _load(Path(stream.name))
        except DataError as error:
            raise DataError(
                f"the PDB text that the file carries is no topology: {error.message}",
                where=where,
                remedy="copy the file again",
            ) from error
    if bonds is not None and bonds.max(initial=-1) < topology.n_atoms:
        known = {tuple(pair) for pair in bonded_pairs(topology).tolist()}
        atoms = list(topology.atoms)
        for i, j in bonds.tolist():
            if (min(i, j), max(i, j)) not in known:
                topology.add_bond(atoms[i], atoms[j])
    notes = complete_bonds(topology, positions, where)
    return TopologyFile(Path(where), topology, positions, notes)


def atomic_numbers(topology: mdtraj.Topology) -> np.ndarray:
    """(N,) int32 atomic numbers; 0 where an atom has no element (virtual sites)."""
    numbers = (a.element.atomic_number if a.element else 0 for a in topology.atoms)
    return np.fromiter(numbers, "int32", topology.n_atoms)


def bonded_pairs(topology: mdtraj.Topology) -> np.ndarray:
    """(m, 2) int32 bonded atoms, the smaller index first, sorted, none twice."""
    pairs = sorted({tuple(sorted((a.index, b.index))) for a, b in topology.bonds})
    return np.array(pairs, "int32").reshape(-1, 2)


def complete_bonds(
    topology: mdtraj.Topology, positions: np.ndarray | None, where: str
) -> list[str]:
    """Add the bonds that residues in several pieces lack; the topology is changed.

    Args:
        topology: as mdtraj read it.
        positions: (N, 3) in angstrom, or None where there are none.
        where: file, for the notes.

    Returns:
        Notes for the user.
    """
    pieces = _residues_in_pieces(topology)
    if not pieces:
        return []
    names = Counter(topology.residue(r).name for r in pieces)
    listed = ", ".join(f"{name} ({n})" for name, n in sorted(names.items()))
    if positions is None:
        return [
            f"{where}: no complete bonds in residues {listed}, and no coordinates to make them "
            "from: molecules may stay cut by the box there; give a PDB or GRO file"
        ]
    atoms = list(topology.atoms)
    new = _close_pairs(topology, atoms, positions, pieces)
    for i, j in new:
        topology.add_bond(atoms[i], atoms[j])
    notes = []
    if new:
        notes.append(f"{where}: {len(new)} bonds made by distance in residues {listed}")
    left = Counter(topology.residue(r).name for r in _residues_in_pieces(topology))
    if left:
        listed = ", ".join(f"{name} ({n})" for name, n in sorted(left.items()))
        notes.append(f"{where}: atoms without a bond to the rest of their residue: {listed}")
    return notes


def _residues_in_pieces(topology: mdtraj.Topology) -> list[int]:
    """Residues whose atoms (virtual sites aside) are not connected inside the residue."""
    residue = np.fromiter((a.residue.index for a in topology.atoms), "int64", topology.n_atoms)
    pairs = bonded_pairs(topology)
    pairs = pairs[residue[pairs[:, 0]] == residue[pairs[:, 1]]]
    shape = (topology.n_atoms, topology.n_atoms)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape)
    piece = connected_components(graph.tocsr(), directed=False)[1]
    real = atomic_numbers(topology) > 0
    found = np.unique(np.stack([residue[real], piece[real]], axis=1), axis=0)[:, 0]
    several, counts = np.unique(found, return_counts=True)
    return [int(r) for r in several[counts > 1]]


def _close_pairs(
    topology: mdtraj.Topology, atoms: list[Any], positions: np.ndarray, pieces: list[int]
) -> list[tuple[int, int]]:
    """New bonds (smaller index first) of atoms that are as close as bonded ones."""
    numbers = atomic_numbers(topology)
    known = {tuple(pair) for pair in bonded_pairs(topology).tolist()}
    incomplete = set(pieces)
    radii = covalent_radii[numbers]
    found = []
    for i, j in sorted(cKDTree(positions).query_pairs(LONGEST)):
        first, second = atoms[i].residue, atoms[j].residue
        near = first.chain is second.chain and abs(first.index - second.index) <= 1
        if not near or not ({first.index, second.index} & incomplete) or (i, j) in known:
            continue
        if numbers[i] == 0 or numbers[j] == 0 or numbers[i] == numbers[j] == 1:
            continue
        if np.linalg.norm(positions[i] - positions[j]) < radii[i] + radii[j] + TOLERANCE:
            found.append((i, j))
    return found
