"""NPZ files {R, F, Z}: positions and forces of one molecule.

    R (T, N, 3)   F (T, N, 3) optional   Z (N,) atomic numbers, optional
    E (T,), box (T, 3, 3), temperature (T,) K, time (T,) ps   optional
    metadata   optional, JSON in a string

Units are those of `metadata` ({"units": {"R": ..., "F": ...}}) or, as in sGDML's files, of `r_unit`
and `e_unit`; without either kcal/mol and angstrom, which a note says. `write_trajectory_npz` writes
the same layout with its units. Rows are read where they lie (`npz_members`): never a whole array.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import atomic_path
from mlff_cli.core.errors import DataError
from mlff_cli.data.npz_members import NpzReader, NpzWriter
from mlff_cli.data.trajectories.frames import Frames
from mlff_cli.data.trajectories.reader import TrajectoryReader
from mlff_cli.data.trajectories.units import scale

FORMAT = "mlff-trajectory-1"
UNITS = {"R": "angstrom", "F": "kcal/mol/angstrom", "E": "kcal/mol", "box": "angstrom"}
QUANTITY = {"R": "length", "F": "force", "E": "energy", "box": "length"}
_FIELD = {
    "positions": "R",
    "forces": "F",
    "energy": "E",
    "box": "box",
    "temperature": "temperature",
    "time": "time",
}
_PLAIN = ("temperature", "time")  # without a choice of units


class NPZTrajectory(TrajectoryReader):
    """An opened NPZ file.

    Raises:
        DataError: it is damaged, or its arrays do not fit together.
        StorageError: it cannot be read.
    """

    format = "npz"
    no_forces = "add them as 'F' (T, N, 3) in kcal/mol/angstrom"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._npz = NpzReader(path)
        try:
            self._open()
        except BaseException:
            self._npz.__exit__(None, None, None)
            raise

    def _open(self) -> None:
        shape = self._shape("R", (None, None, 3))
        self.n_frames, self.n_atoms = shape[:2]
        if not self.n_frames or not self.n_atoms:
            raise self.no_frames()
        per_frame = {"F": shape, "E": shape[:1], "box": (shape[0], 3, 3)}
        per_frame |= dict.fromkeys(_PLAIN, shape[:1])
        self._names = {"R"} | {name for name in per_frame if name in self._npz}
        for name in self._names - {"R"}:
            self._shape(name, per_frame[name])
        self.has_forces = "F" in self._names
        atoms = next((name for name in ("Z", "z") if name in self._npz), None)
        if atoms is not None:
            self._shape(atoms, (self.n_atoms,))
            self.numbers = self._npz.read(atoms).reshape(-1).astype("int32")
        units = self._units()
        self._scales = {
            n: scale(QUANTITY[n], units[n], f"{self.path}, unit of {n!r}") for n in units
        }

    def _shape(self, name: str, wanted: tuple[int | None, ...]) -> tuple[int, ...]:
        if name not in self._npz:
            raise DataError(
                f"a trajectory needs {name!r}, found {', '.join(self._npz.names) or 'none'}",
                where=str(self.path),
                remedy="save positions as 'R' (frames, atoms, 3)",
            )
        found, dtype = self._npz.shape(name), self._npz.dtype(name)
        fits = [w in (None, s) for w, s in zip(wanted, found, strict=False)]
        if len(found) < len(wanted) or not all(fits) or any(s != 1 for s in found[len(wanted) :]):
            raise DataError(
                f"{name!r} must have shape {_text(wanted)}, found {found}",
                where=str(self.path),
                remedy="R and F are (frames, atoms, 3), Z is (atoms,)",
            )
        if dtype.kind not in "fiu":
            raise DataError(f"{name!r} must hold numbers, found {dtype}", where=str(self.path))
        return found

    def _units(self) -> dict[str, str]:
        """Unit of every array that has one."""
        names = self._names & set(UNITS)
        told: dict[str, str] = {}
        if "metadata" in self._npz:
            told = self._metadata()
        elif "r_unit" in self._npz and "e_unit" in self._npz:
            length, energy = self._npz.text("r_unit"), self._npz.text("e_unit")
            told = {"R": length, "box": length, "E": energy, "F": f"{energy}/{length}"}
        silent = sorted(names - set(told))
        if silent:
            units = " and ".join(UNITS[n] for n in silent if n in ("R", "F")) or UNITS[silent[0]]
            self.notes.append(f"{self.path}: names no units, read as {units}")
        return {n: str(told.get(n, UNITS[n])) for n in names}

    def _metadata(self) -> dict[str, str]:
        try:
            record = json.loads(self._npz.text("metadata"))
            units = record.pop("units", {})
            told = {str(k): str(v) for k, v in units.items()}
        except (ValueError, AttributeError) as error:
            raise DataError(
                f"'metadata' must be a JSON object, with an object 'units' ({error})",
                where=str(self.path),
                remedy='as {"units": {"R": "angstrom", "F": "kcal/mol/angstrom"}}, or leave it out',
            ) from error
        self.facts = record
        return told

    def _read(self, rows: np.ndarray, positions: bool, forces: bool) -> Frames:
        asked = {"R": positions, "F": forces}
        found = {
            field: self._values(name, rows)
            for field, name in _FIELD.items()
            if name in self._names and asked.get(name, True)
        }
        return Frames(rows, **found)

    def _values(self, name: str, rows: np.ndarray) -> np.ndarray:
        values = self._npz.rows(name, rows)
        if values.dtype.kind != "f":
            values = values.astype("float64")
        factor = self._scales.get(name, 1.0)
        values = values if factor == 1.0 else values * values.dtype.type(factor)
        return values.reshape(len(rows)) if name in ("E", *_PLAIN) else values

    def close(self) -> None:
        """Close the file."""
        self._npz.__exit__(None, None, None)


def write_trajectory_npz(
    path: Path | str,
    frames: Iterable[Frames],
    numbers: np.ndarray,
    facts: Mapping[str, Any],
    *,
    force: bool = False,
) -> int:
    """Write a trajectory as a stream.

    Args:
        path: the output.
        frames: pieces of the trajectory, all with the same fields.
        numbers: (N,) atomic numbers.
        facts: plain values kept in `metadata`.
        force: replace an existing file.

    Returns:
        Frames written.

    Raises:
        UsageError: the output exists and `force` is off.
        StorageError: the disk is full.
    """
    count = 0
    with atomic_path(path, force=force) as temporary, NpzWriter(temporary) as writer:
        for piece in frames:
            for field, name in _FIELD.items():
                values = getattr(piece, field)
                if values is not None:
                    single = name in ("R", "F") and values.dtype.itemsize < 8
                    writer.extend(name, values.astype("float32" if single else "float64"))
            count += len(piece.rows)
        record = {**facts, "format": FORMAT, "units": UNITS}
        text = json.dumps(record, sort_keys=True)
        writer.close([("Z", numbers.astype("int32")), ("metadata", np.array(text))], ("metadata",))
    return count


def _text(shape: tuple[int | None, ...]) -> str:
    """A shape in words, as '(any, 22, 3)'."""
    return f"({', '.join('any' if s is None else str(s) for s in shape)})"
