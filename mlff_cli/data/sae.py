"""SAE files: self-atomic energies as a bare YAML mapping `{Z: eV}`, metadata in leading comments.

# self-atomic energies in eV
1: -13.600101303
6: -1002.540059438
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from mlff_cli.core.artifacts import storage_error, write_text
from mlff_cli.core.elements import MAX_Z, SYMBOLS
from mlff_cli.core.errors import DataError

DIGITS = 9  # decimals of an eV; far below what any fit determines, above what rounding disturbs
_REMEDY = "write one line 'Z: eV' per element, as in '1: -13.6', or run `mlff calc-sae`"


def write_sae(
    path: Path | str, sae: Mapping[int, float], notes: Sequence[str] = (), *, force: bool = False
) -> None:
    """Write self-atomic energies atomically.

    Args:
        path: output.
        sae: {Z: eV}.
        notes: lines of text for the leading comment.
        force: replace an existing file.

    Raises:
        UsageError: the file exists and `force` is off.
        DataError: an element or an energy is impossible.
        StorageError: the disk is full.
    """
    for z, energy in sae.items():
        if not 1 <= z <= MAX_Z or not math.isfinite(energy):
            raise DataError(f"cannot write {z}: {energy}; Z is 1 to {MAX_Z}, energies are finite")
    lines = [f"# {line}" for note in notes for line in note.splitlines()]
    lines += [f"{z}: {sae[z]:.{DIGITS}f}" for z in sorted(sae)]
    write_text(path, "\n".join(lines) + "\n", force=force)


def read_sae(path: Path | str) -> dict[int, float]:
    """Read self-atomic energies, strictly.

    Args:
        path: a YAML mapping {Z: eV}.

    Returns:
        {Z: eV}, ascending in Z.

    Raises:
        StorageError: the file cannot be read.
        DataError: it is not such a mapping; names file and line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise storage_error(error, path) from error
    except UnicodeDecodeError as error:
        raise DataError("not a text file", where=str(path), remedy=_REMEDY) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(
            f"not YAML: {error.problem}", where=f"{path}:{line}", remedy=_REMEDY
        ) from error
    except yaml.YAMLError as error:
        raise DataError(f"not YAML: {error}", where=str(path), remedy=_REMEDY) from error
    if node is None:
        raise DataError("the file holds no energies", where=str(path), remedy=_REMEDY)
    if not isinstance(node, yaml.MappingNode) or not node.value:
        line = node.start_mark.line + 1
        raise DataError("a mapping {Z: eV} is needed", where=f"{path}:{line}", remedy=_REMEDY)
    sae: dict[int, float] = {}
    for key, value in node.value:
        where = f"{path}:{key.start_mark.line + 1}"
        z = _atomic_number(key, where)
        if z in sae:
            raise DataError(f"element {z} ({SYMBOLS[z]}) occurs twice", where=where, remedy=_REMEDY)
        sae[z] = _energy(value, z, where)
    return dict(sorted(sae.items()))


def _atomic_number(node: yaml.Node, where: str) -> int:
    text = node.value if isinstance(node, yaml.ScalarNode) else "a structure"
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MAX_Z:
        raise DataError(
            f"keys are raw atomic numbers 1 to {MAX_Z}, without fidelity offset, found {text!r}",
            where=where,
            remedy=_REMEDY,
        )
    return int(text)


def _energy(node: yaml.Node, z: int, where: str) -> float:
    text = node.value if isinstance(node, yaml.ScalarNode) else "a structure"
    try:
        energy = float(text)
    except ValueError:
        energy = math.nan
    if not math.isfinite(energy):
        raise DataError(
            f"the energy of element {z} ({SYMBOLS[z]}) must be a finite number in eV, "
            f"found {text!r}",
            where=where,
            remedy=_REMEDY,
        )
    return energy
