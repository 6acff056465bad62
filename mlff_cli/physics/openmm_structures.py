"""Structures as OpenMM has them: read from files, made from arrays, written as PDB text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from openmm import app, unit

from mlff_cli.core.errors import DataError, StorageError


@dataclass(frozen=True)
class Molecule:
    """A topology and where its atoms are.

    Attributes:
        topology: OpenMM's.
        positions: (N, 3) in nm.
    """

    topology: app.Topology
    positions: np.ndarray


def read_structure(path: Path) -> Molecule:
    """The first model of a PDB or mmCIF file.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is malformed or holds no atoms.
    """
    if not path.is_file():
        raise StorageError("the file does not exist", where=str(path), remedy="check the path")
    reader = app.PDBxFile if path.suffix.lower() in (".cif", ".mmcif") else app.PDBFile
    try:
        with path.open(encoding="utf-8") as stream:  # OpenMM leaves a malformed file open
            found = reader(stream)
        positions = np.asarray(found.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    except Exception as error:  # its parsers raise whatever they meet
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"OpenMM cannot read it: {reason}", where=str(path), remedy="give a PDB or mmCIF file"
        ) from error
    if not len(positions):
        raise DataError("the file holds no atoms", where=str(path), remedy="give a PDB file")
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise DataError("a position is not finite", where=f"{path}, atom {atom}")
    return Molecule(found.topology, positions)


def chain_molecule(
    residues: Sequence[str],
    names: Sequence[str],
    numbers: np.ndarray,
    residue: np.ndarray,
    bonds: np.ndarray,
    positions: np.ndarray,
) -> Molecule:
    """One chain from arrays.

    Args:
        residues: names of the residues.
        names: (N,) names of the atoms.
        numbers: (N,) atomic numbers.
        residue: (N,) residue of every atom, ascending.
        bonds: (b, 2) bonded atoms.
        positions: (N, 3) in angstrom.
    """
    topology = app.Topology()
    chain = topology.addChain("A")
    made = [topology.addResidue(name, chain, id=str(k + 1)) for k, name in enumerate(residues)]
    atoms = [
        topology.addAtom(name, app.Element.getByAtomicNumber(int(z)), made[k])
        for name, z, k in zip(names, numbers, residue, strict=True)
    ]
    for i, j in bonds.tolist():
        topology.addBond(atoms[i], atoms[j])
    return Molecule(topology, positions / 10)


def rename_residues(topology: app.Topology, names: Sequence[str]) -> None:
    """Give the first residues of a topology other names (D residues simulated as their L forms)."""
    for residue, name in zip(topology.residues(), names, strict=False):
        residue.name = name


def topology_pdb(molecule: Molecule) -> str:
    """The topology as PDB text; positions as they are now."""
    stream = StringIO()
    app.PDBFile.writeFile(
        molecule.topology, molecule.positions * unit.nanometer, stream, keepIds=True
    )
    return _undated(stream.getvalue())


def _undated(text: str) -> str:
    """Without the first remark, which tells the date."""
    return "".join(line for line in text.splitlines(True) if not line.startswith("REMARK   1 CREA"))
