"""Writing extended XYZ without losing a bit.

    N
    Properties=species:S:1:pos:R:3[:REF_forces:R:3][:REF_charges:R:1]... [REF_energy=E] charge=Q ...
    C  x y z  fx fy fz  q

Labels go under MACE's keys (`REF_energy`, `REF_forces`, ...). Numbers are written with as many
digits as tell them from their neighbours, where fixed columns would round them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import atomic_path
from mlff_cli.core.elements import SYMBOLS
from mlff_cli.core.fields import FIELDS, LABELS

PER_ATOM = tuple(n for n in LABELS if FIELDS[n].dims and FIELDS[n].dims[0] == "N")
PER_MOLECULE = tuple(n for n in LABELS if n not in PER_ATOM)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9]*-[A-Za-z0-9-]*")  # an InChIKey: no reader takes it apart


def write_extxyz(
    path: Path | str,
    molecules: Iterable[Mapping[str, Any]],
    *,
    level_of_theory: str | None = None,
    force: bool = False,
) -> int:
    """Write molecules one by one.

    Args:
        path: the output.
        molecules: as in `grouped_writer.write_grouped`; labels that are all NaN are left out; of
            periodic ones "cell" (3, 3) holds the edge vectors in rows, angstrom.
        level_of_theory: kept with every frame.
        force: replace an existing file.

    Returns:
        How many frames were written.

    Raises:
        UsageError: the output exists and `force` is off.
        StorageError: the disk is full.
    """
    count = 0
    with atomic_path(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as out:
        for molecule in molecules:
            out.write(frame(molecule, level_of_theory))
            count += 1
    return count


def frame(molecule: Mapping[str, Any], level_of_theory: str | None = None) -> str:
    """One frame as text, its final newline included."""
    present = {
        n: np.asarray(molecule[n], FIELDS[n].dtype)
        for n in LABELS
        if molecule.get(n) is not None and not np.isnan(molecule[n]).all()
    }
    columns = [np.asarray(molecule["coord"], FIELDS["coord"].dtype)]  # each [N, width]
    properties = "species:S:1:pos:R:3"
    for name in PER_ATOM:
        if name in present:
            values = present[name].reshape(len(columns[0]), -1)
            properties += f":REF_{name}:R:{values.shape[1]}"
            columns.append(values)
    cell = molecule.get("cell")
    words = [] if cell is None else [f"Lattice={_array(np.asarray(cell))}"]
    words.append(f"Properties={properties}")
    words += [f"REF_{n}={_array(present[n])}" for n in PER_MOLECULE if n in present]
    words += [f"{n}={_number(molecule.get(n, d))}" for n, d in (("charge", 0), ("mult", 1))]
    texts = {"molecule": molecule.get("molecule"), "level_of_theory": level_of_theory}
    words += [f"{n}={_text(str(t))}" for n, t in texts.items() if t]
    words.append('pbc="F F F"' if cell is None else 'pbc="T T T"')
    lines = [str(len(columns[0])), " ".join(words)]
    for row, z in enumerate(molecule["numbers"]):
        lines.append(" ".join([SYMBOLS[int(z)], *(str(x) for c in columns for x in c[row])]))
    return "\n".join(lines) + "\n"


def _array(values: np.ndarray) -> str:
    text = " ".join(str(x) for x in values.ravel())
    return f'"{text}"' if values.ndim else text


def _number(value: Any) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() else str(number)


def _text(value: str) -> str:
    """A string that comes back as itself: readers turn '1', 'T' or 'a b' into other types."""
    if _PLAIN.fullmatch(value):
        return value
    inner = json.dumps(value)
    return '"_JSON ' + inner.replace("\\", "\\\\").replace('"', '\\"') + '"'
