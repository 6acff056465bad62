"""Mappings of a user's own: a YAML file of beads.

    beads:
      - name: CA                        # of the bead
        select: name CA and resid 1     # mdtraj's selection language
        weights: mass                   # mass (default), equal, or a list: one for each atom
        species: ALA                    # default: the name
        residue: 2                      # number; default: that of the bead's first atom
      - select: name CB and protein     # `each` makes one bead per residue that it meets
        each: residue
        name: CB
    bonds: auto                         # default; or pairs of beads: [[0, 1], [1, 2]]

Weights of a list follow the order of atoms in the topology and may have any sum but 0; they are
divided by it. Beads are numbered from 0 in the order of the file, those of `each` in the order of
residues. `bonds: auto` joins beads whose atoms are bonded, directly or through atoms that no bead
has (`bead_bonds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from mlff_cli.coarse.mapping.chains import Chains
from mlff_cli.coarse.mapping.mapping import Bead, checked, masses
from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mdtraj.core.topology import Atom

KEYS = ("name", "select", "weights", "species", "residue", "each")
LEAST, MOST = 1e-100, 1e100  # between them a weight, its square and sums of them are numbers
CANCELS = 1e-3  # share of the weights' size: a smaller sum throws the bead a thousand times as far
INT32 = np.iinfo(np.int32).max
Bonds = np.ndarray | None  # None: found from the bonds of atoms


def read_mapping(path: Path) -> dict[str, Any]:
    """The file's content, its layout checked.

    Raises:
        ConfigError: it is not laid out as above.
        StorageError: it cannot be read.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise storage_error(error, path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"a mapping must be YAML: {error}", where=str(path)) from error
    if not isinstance(value, dict) or set(value) - {"beads", "bonds"} or not value.get("beads"):
        raise ConfigError(
            f"a mapping has the keys beads and bonds, found {value!r}"[:300],
            where=str(path),
            remedy="see the guide to coarse-graining for the layout",
        )
    beads = value["beads"]
    if not isinstance(beads, list):
        raise ConfigError(f"beads must be a list, found {beads!r}"[:300], where=str(path))
    for k, bead in enumerate(beads):
        _check_entry(bead, f"{path}, bead {k}")
    return value


def _check_entry(bead: Any, where: str) -> None:
    if not isinstance(bead, dict) or not {"name", "select"} <= set(bead) <= set(KEYS):
        raise ConfigError(
            f"a bead has name and select, and may have {', '.join(KEYS[2:])}; found {bead!r}"[:300],
            where=where,
        )
    for key in ("name", "select", "species"):  # YAML reads NO as false, 2020-01-01 as a date
        if key in bead and not (isinstance(bead[key], str) and bead[key].strip()):
            raise ConfigError(
                f"{key} is text, found {bead[key]!r}"[:300],
                where=where,
                remedy=f'write it in quotes, as {key}: "NO"',
            )
    if "*" in (bead["name"], bead.get("species")):
        raise ConfigError("* means any type in a prior, and names none", where=where)
    weights = bead.get("weights", "mass")
    numbers = isinstance(weights, list) and all(type(w) in (int, float) for w in weights)
    if weights not in ("mass", "equal") and not (numbers and all(map(_usual, weights))):
        raise ConfigError(
            f"weights are mass, equal or a list of numbers, found {weights!r}"[:300], where=where
        )
    if bead.get("each", "residue") != "residue":
        raise ConfigError(f"each can only be residue, found {bead['each']!r}", where=where)
    number = bead.get("residue", 0)
    if "residue" in bead and ("each" in bead or type(number) is not int or abs(number) > INT32):
        raise ConfigError(
            f"residue is one number, and not with `each`, found {bead['residue']!r}"[:300],
            where=where,
        )


def _usual(weight: float) -> bool:
    """A finite number whose sums are finite too."""
    return weight == 0 or LEAST < abs(weight) < MOST


def file_beads(chains: Chains, content: Mapping[str, Any], path: Path) -> tuple[list[Bead], Bonds]:
    """Beads of a mapping file, and their bonds where it gives them.

    Args:
        chains: of the topology.
        content: of `read_mapping`.
        path: for messages.

    Raises:
        ConfigError: a selection that mdtraj does not understand, weights that do not fit, or bonds
            that are none.
        DataError: a selection matches nothing, or meets atoms that were left out; an atom is in two
            beads.
    """
    beads: list[Bead] = []
    for k, entry in enumerate(content["beads"]):
        where = f"{path}, bead {k} ({entry['name']})"
        try:
            selected = np.sort(chains.topology.select(entry["select"]))
        except Exception as error:  # its parser raises whatever it meets
            raise ConfigError(
                f"mdtraj does not understand the selection {entry['select']!r}: {error}",
                where=where,
                remedy="see mdtraj's guide to atom selection; resid counts from 0, resSeq is the "
                "number in the file",
            ) from error
        if not len(selected):
            raise DataError(
                f"a bead needs atoms, the selection {entry['select']!r} matches none",
                where=where,
                remedy="check names and numbers; resid counts from 0, resSeq is the number in the "
                "file",
            )
        absent = np.setdiff1d(selected, chains.atoms)
        if len(absent):
            raise DataError(
                f"the selection {entry['select']!r} meets {chains.topology.atom(absent[0])}, and "
                "water and ions are left out",
                where=where,
                remedy="select atoms of the solute",
            )
        atoms = [chains.topology.atom(i) for i in selected]
        groups = [atoms]
        if "each" in entry:
            residues = sorted({a.residue.index for a in atoms})
            groups = [[a for a in atoms if a.residue.index == r] for r in residues]
        beads += [_bead(entry, group, where) for group in groups]
    try:
        checked(chains, beads)
    except DataError as error:
        error.where = error.where or str(path)
        raise
    return beads, _bonds(content.get("bonds", "auto"), len(beads), path)


def _bead(entry: Mapping[str, Any], atoms: list[Atom], where: str) -> Bead:
    weights = entry.get("weights", "mass")
    if weights == "mass":
        try:
            shares = masses(atoms)
        except DataError as error:
            raise DataError(error.message, where=where, remedy=error.remedy) from error
    elif weights == "equal":
        shares = np.full(len(atoms), 1 / len(atoms))
    else:
        shares = np.array(weights, float)
        if len(shares) != len(atoms) or abs(shares.sum()) <= CANCELS * np.abs(shares).sum():
            raise ConfigError(
                f"weights need one number for each of {len(atoms)} atoms and a sum that is not 0, "
                f"found {len(shares)} with sum {shares.sum():g}",
                where=where,
            )
        shares = shares / shares.sum()
    name = str(entry["name"])
    at = np.array([a.index for a in atoms])
    species = str(entry.get("species", name))
    return Bead(name, species, at, shares, atoms[0].residue.index, entry.get("residue"))


def _bonds(value: Any, n_beads: int, path: Path) -> Bonds:
    if value == "auto":
        return None
    pairs = np.array(value if isinstance(value, list) else [], dtype=object)
    fits = pairs.ndim == 2 and pairs.shape[1] == 2 and all(type(i) is int for i in pairs.flat)
    if isinstance(value, list) and not value:
        return np.zeros((0, 2), np.int64)
    if (
        not fits
        or not all(0 <= i < n_beads for i in pairs.flat)
        or (pairs[:, 0] == pairs[:, 1]).any()
    ):
        raise ConfigError(
            f"bonds are auto, or a list of pairs of different beads 0 to {n_beads - 1}, found "
            f"{value!r}"[:300],
            where=str(path),
        )
    return np.unique(np.sort(pairs.astype(np.int64), axis=1), axis=0)
