"""Structures from the formats that chemists have: extxyz and whatever ASE reads, SDF, SMILES.

| suffix               | reader | a frame becomes                                              |
|----------------------|--------|--------------------------------------------------------------|
| .smi .smiles .txt    | RDKit  | `conformers` ETKDG geometries per line, relaxed with MMFF94   |
| .sdf .mol            | RDKit  | its geometry, its formal charge                              |
| .xyz .extxyz, others | ASE    | its geometry, charge, multiplicity and labels                |

Labels of an extxyz frame are taken from MACE's keys (`REF_energy`, `REF_forces`, `REF_charges`)
when they are there, else from the plain ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mlff_cli.core.elements import MAX_Z
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.core.fields import FIELDS, LABELS
from mlff_cli.core.runtime import require

EMBEDDING_ATTEMPTS = 20  # seeds to try per SMILES: strained rings need a few
CHARGE_KEYS = ("charge", "total_charge", "REF_charge")
MULT_KEYS = ("mult", "multiplicity", "spin_multiplicity", "spin")
SMILES_SUFFIXES = (".smi", ".smiles", ".txt")


@dataclasses.dataclass(frozen=True)
class Structure:
    """One geometry.

    Attributes:
        coord: positions (N, 3), angstrom, float64.
        numbers: atomic numbers (N,).
        charge: total charge, e.
        mult: spin multiplicity 2S+1.
        molecule: name shared by the conformers of a molecule (InChIKey where RDKit read it), or "".
        where: file and line or frame, for messages.
        labels: labels it came with, by the vocabulary's names.
        level_of_theory: of these labels, or "".
    """

    coord: np.ndarray
    numbers: np.ndarray
    charge: int
    mult: int
    molecule: str
    where: str
    labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    level_of_theory: str = ""


def read_structures(
    path: Path | str, *, conformers: int = 1, seed: int = 0
) -> Iterator[Structure | DataError]:
    """Read a file of structures, one by one.

    Args:
        path: the file; its suffix decides the reader.
        conformers: geometries per line of a SMILES file.
        seed: seed of their embedding; every molecule's geometries depend on it and on the molecule
            only, not on the other lines.

    Yields:
        Structures; for a molecule that no geometry was found for, the DataError that says so, as
        the reader can go on after it.

    Raises:
        StorageError: the file does not exist or cannot be read.
        DataError: a line or frame is malformed, or the file holds no structure.
        MissingDependencyError: RDKit is needed and not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise StorageError("the file does not exist", where=str(path), remedy="check the path")
    if path.suffix.lower() in SMILES_SUFFIXES:
        found: Iterator[Structure | DataError] = _read_smiles(path, conformers, seed)
    else:
        found = _READERS.get(path.suffix.lower(), _read_ase)(path)
    empty = True
    for structure in found:
        empty = False
        yield structure
    if empty:
        raise DataError(
            "the file holds no structures",
            where=str(path),
            remedy="check the file, or its suffix (the suffix decides the format)",
        )


def has_geometry(path: Path | str) -> bool:
    """Whether the file's format carries positions (a SMILES file does not)."""
    return Path(path).suffix.lower() not in SMILES_SUFFIXES


def _read_smiles(path: Path, conformers: int, seed: int) -> Iterator[Structure | DataError]:
    """Lines `SMILES [name]`; '#' at the start of a line or after a blank begins a comment."""
    chem, rdkit_log = require("rdkit.Chem", "label"), require("rdkit.rdBase", "label")
    require("rdkit.Chem.inchi", "label")
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        comment = next((i for i, w in enumerate(words) if w.startswith("#")), len(words))
        if not words[:comment]:
            continue
        where = f"{path}:{number}"
        with rdkit_log.BlockLogs():
            mol = chem.MolFromSmiles(words[0])
        if mol is None:
            raise DataError(
                f"{words[0]!r} is not a valid SMILES",
                where=where,
                remedy="one `SMILES [name]` per line; comments start with '#'",
            )
        if len(chem.GetMolFrags(mol)) > 1:
            raise DataError(
                f"{words[0]!r} holds several molecules", where=where, remedy="one per line"
            )
        yield from _embed(chem.AddHs(mol), words[0], conformers, seed, where)


def _embed(
    mol: Any, smiles: str, conformers: int, seed: int, where: str
) -> Iterator[Structure | DataError]:
    """ETKDG geometries, relaxed with MMFF94 (UFF where MMFF94 has no parameters)."""
    all_chem, rdkit_log = require("rdkit.Chem.AllChem", "label"), require("rdkit.rdBase", "label")
    identity = _identity(mol)
    digest = hashlib.sha256(f"{seed} {identity}".encode()).digest()
    start = int.from_bytes(digest[:4], "big") % (2**31 - EMBEDDING_ATTEMPTS)
    with rdkit_log.BlockLogs():
        for attempt in range(EMBEDDING_ATTEMPTS):
            found = list(all_chem.EmbedMultipleConfs(mol, conformers, randomSeed=start + attempt))
            if len(found) == conformers:
                break
        else:
            yield DataError(
                f"RDKit found {len(found)} of {conformers} geometries for {smiles!r}",
                where=where,
                remedy="give the geometry itself in an SDF or extxyz file",
            )
            return
        relax = (
            all_chem.MMFFOptimizeMoleculeConfs
            if all_chem.MMFFHasAllMoleculeParams(mol)
            else all_chem.UFFOptimizeMoleculeConfs
        )
        relax(mol, numThreads=1, maxIters=2000)
    for index in found:
        yield _from_rdkit(mol, index, identity, where)


def _read_sdf(path: Path) -> Iterator[Structure]:
    chem, rdkit_log = require("rdkit.Chem", "label"), require("rdkit.rdBase", "label")
    with rdkit_log.BlockLogs():
        try:
            supplier = chem.SDMolSupplier(str(path), removeHs=False)
        except OSError as error:  # RDKit's word for an empty file, too
            raise DataError("RDKit cannot read any record", where=str(path)) from error
        for index, mol in enumerate(supplier):
            where = f"{path}, molecule {index + 1}"
            if mol is None:
                raise DataError("RDKit cannot read this record", where=where)
            if not mol.GetNumConformers() or not mol.GetConformer().Is3D():
                raise DataError(
                    "the record has no 3D geometry",
                    where=where,
                    remedy="give it one, or list its SMILES in a .smi file",
                )
            if any(atom.GetTotalNumHs(includeNeighbors=False) for atom in mol.GetAtoms()):
                raise DataError("hydrogen atoms are missing", where=where, remedy="add them in 3D")
            yield _from_rdkit(mol, -1, _identity(mol), where)


def _identity(mol: Any) -> str:
    """InChIKey, or the canonical SMILES of what InChI cannot describe."""
    inchi, rdkit_log = require("rdkit.Chem.inchi", "label"), require("rdkit.rdBase", "label")
    with rdkit_log.BlockLogs():
        return str(inchi.MolToInchiKey(mol) or require("rdkit.Chem", "label").MolToSmiles(mol))


def _from_rdkit(mol: Any, conformer: int, identity: str, where: str) -> Structure:
    chem = require("rdkit.Chem", "label")
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    return Structure(
        coord=np.array(mol.GetConformer(conformer).GetPositions(), dtype="float64"),
        numbers=np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()]),
        charge=chem.GetFormalCharge(mol),
        mult=1 + unpaired,
        molecule=identity,
        where=where,
    )


def _read_ase(path: Path) -> Iterator[Structure]:
    ase_io = importlib.import_module("ase.io")
    frames = ase_io.iread(str(path), index=":")
    index = 0
    while True:
        where = f"{path}, frame {index}"
        try:
            atoms = next(frames)
        except StopIteration:
            return
        except Exception as error:  # ASE's readers raise whatever their parsers raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"ASE cannot read it: {reason}",
                where=where,
                remedy="check the file, or its suffix (the suffix decides the format)",
            ) from error
        yield _from_ase(atoms, where)
        index += 1


def _from_ase(atoms: Any, where: str) -> Structure:
    numbers = np.asarray(atoms.numbers)
    coord = np.asarray(atoms.positions, dtype="float64")
    if not len(numbers):
        raise DataError("the frame has no atoms", where=where, remedy="remove the frame")
    if not np.isfinite(coord).all():
        raise DataError("a position is not finite", where=where, remedy="remove the frame")
    if numbers.min() < 1 or numbers.max() > MAX_Z:
        odd = numbers[(numbers < 1) | (numbers > MAX_Z)][0]
        raise DataError(
            f"atomic numbers are 1 to {MAX_Z}, found {odd}", where=where, remedy="remove the frame"
        )
    if atoms.pbc.any():  # the cell would be lost, and with it the meaning of every label
        raise DataError(
            f"molecules in vacuum are needed, found pbc = {atoms.pbc.tolist()}",
            where=where,
            remedy='for a molecule in a box write pbc="F F F" into the frame',
        )
    results = atoms.calc.results if atoms.calc is not None else {}
    labels = {}
    for name in LABELS:
        own = atoms.arrays if "N" in FIELDS[name].dims else atoms.info
        for source, key in ((own, f"REF_{name}"), (own, name), (results, name)):
            if key in source:
                labels[name] = _label(name, source[key], len(numbers), where)
                break
    return Structure(
        coord=coord,
        numbers=numbers,
        charge=_integer(atoms.info, CHARGE_KEYS, 0, where),
        mult=_integer(atoms.info, MULT_KEYS, 1, where),
        molecule=str(atoms.info.get("molecule", "")),
        where=where,
        labels=labels,
        level_of_theory=str(atoms.info.get("level_of_theory", "")),
    )


def _label(name: str, value: Any, n_atoms: int, where: str) -> np.ndarray:
    shape = FIELDS[name].shape(n_atoms)
    try:
        return np.asarray(value, dtype="float64").reshape(shape)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name!r} must have shape {shape}, found {value}",
            where=where,
            remedy="mend the frame, or remove it",
        ) from error


def _integer(info: Mapping[str, Any], keys: tuple[str, ...], default: int, where: str) -> int:
    for key in keys:
        if key in info:
            try:
                value = float(info[key])
            except (TypeError, ValueError):
                value = float("nan")
            if value != round(value, 0):
                raise DataError(
                    f"{key!r} must be a whole number, found {info[key]}",
                    where=where,
                    remedy="mend the frame, or remove it",
                )
            return int(value)
    return default


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"not a text file: {error}",
            where=str(path),
            remedy="one `SMILES [name]` per line; comments start with '#'",
        ) from error


_READERS: Mapping[str, Callable[[Path], Iterator[Structure | DataError]]] = MappingProxyType(
    {".sdf": _read_sdf, ".mol": _read_sdf}
)
