"""Constraint groups from a file: which atoms of a molecule a simulation kept rigid together.

Atoms are counted from 0, as in the mapping matrix. Three ways to write the same:

    # plain text: a group a line        # YAML or JSON: a list of groups, or one list per molecule
    0 1                                 [[0, 1], [4, 5, 6]]
    4, 5, 6                             {alanine: [[0, 1], [4, 5, 6]], water: []}

Groups that share an atom are one group. A molecule that the file does not name is an error; one
with an empty list has no constraints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.errors import DataError


def read_constraints(path: Path | str, atoms: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Pairs of atoms that are rigid, for every molecule.

    Args:
        path: the file.
        atoms: number of atoms of every molecule, by name; one molecule takes a bare list.

    Returns:
        (m, 2) int64 pairs for every molecule; a group of k atoms gives the k - 1 pairs of its first
        atom.

    Raises:
        DataError: the file cannot be read, names another molecule or lacks one, or a group has
            fewer than two atoms, the same atom twice, or an atom that is not there.
        StorageError: the file cannot be opened.
    """
    where = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise storage_error(error, path) from error
    except UnicodeDecodeError as error:
        raise DataError("a list of atoms must be text, this is not", where=where) from error
    found = _parse(text, where)
    if not isinstance(found, Mapping):
        if len(atoms) > 1:
            raise DataError(
                f"a set of {len(atoms)} molecules needs a list for each, found one list",
                where=where,
                remedy=f"write YAML with the keys {', '.join(atoms)}",
            )
        found = dict.fromkeys(atoms, found)
    surplus = [str(name) for name in found if name not in atoms]
    missing = [name for name in atoms if name not in found]
    if surplus or missing:
        raise DataError(
            f"a list for each of {', '.join(atoms)} is needed, found "
            f"{', '.join(map(str, found)) or 'none'}",
            where=where,
            remedy="name the molecules as the set does; [] stands for no constraints",
        )
    return {name: _pairs(found[name], n, f"{where}: {name}") for name, n in atoms.items()}


def _parse(text: str, where: str) -> Any:
    """A list of groups or a mapping of such lists."""
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    filled = [line for line in lines if line]
    if not filled:
        raise DataError(
            "a file of constraints must name a group, this one is empty",
            where=where,
            remedy="use --constraints none where there are none",
        )
    if all(re.fullmatch(r"[-+.\w\s,]+", line) for line in filled) and not filled[0].startswith("-"):
        return [re.split(r"[\s,]+", line.strip(", ")) for line in filled]
    try:
        found = yaml.safe_load(text)  # JSON is YAML too
    except yaml.YAMLError as error:
        raise DataError(f"neither a plain list nor YAML: {error}", where=where) from error
    if not isinstance(found, (list, Mapping)):
        raise DataError(
            f"a list of groups is needed, found {type(found).__name__}",
            where=where,
            remedy="write a group of atoms a line, or [[0, 1], [4, 5, 6]]",
        )
    return found


def _pairs(groups: Any, n_atoms: int, where: str) -> np.ndarray:
    if not isinstance(groups, Sequence) or isinstance(groups, str):
        raise DataError(f"a list of groups is needed, found {groups!r}", where=where)
    pairs: list[tuple[int, int]] = []
    for k, group in enumerate(groups):
        first, *others = _atoms(group, n_atoms, f"{where}, group {k}")
        pairs += [(first, other) for other in others]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _atoms(group: Any, n_atoms: int, where: str) -> list[int]:
    if not isinstance(group, Sequence) or isinstance(group, str):
        raise DataError(f"a group is a list of atoms, found {group!r}", where=where)
    atoms = [int(a) if isinstance(a, str) and a.isdecimal() else a for a in group]
    for atom in atoms:
        if not isinstance(atom, int) or isinstance(atom, bool) or not 0 <= atom < n_atoms:
            raise DataError(
                f"an atom is a whole number from 0 to {n_atoms - 1}, found {atom!r}",
                where=where,
                remedy="count atoms from 0, in the order of the topology",
            )
    if len(atoms) < 2 or len(set(atoms)) < len(atoms):
        raise DataError(f"a group has two or more different atoms, found {group}", where=where)
    return atoms
