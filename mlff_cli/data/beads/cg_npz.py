"""Coarse-grained data sets: one NPZ file of frames, beads, and the maps that made them.

Frames (T of them, n beads of the largest molecule), in the units of `UNITS`:

    R (T, n, 3) float32, F (T, n, 3) float32 (after project-forces), species (T, n) int32,
    mask (T, n) float32, source (T,) int32, frame (T,) int64, temperature (T,) float32,
    molecule (T,) int32,   and Z (n,) int32, which the seed's layout has and which says nothing here

and U (T,) float64 kcal/mol in sets that others made: potential energies, read and never written.

Per molecule, with the suffix `_k` where the set holds several: the attributes of `BeadMolecule`,
its species as `bead_species`. Texts of JSON: `sources`, `species_table`, `metadata`.

Padding: our own stands behind the real beads of a frame, with R, F, species and mask all 0. What
is read may have its padding in any column and at any position: `mask` alone decides.
A seed's set has only R, F, species, mask and Z: frames are told apart by their species and mask.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.data.beads.cg_beads import BeadMolecule, CGBlock, CGFrames
from mlff_cli.data.beads.plausible import check_values
from mlff_cli.data.lazy_sequence import LazySequence
from mlff_cli.data.npz_members import NpzReader

__all__ = ["FORMAT", "UNITS", "BeadMolecule", "CGBlock", "CGFrames", "CGSet", "is_cg_npz"]

FORMAT = "mlff-cg"
FORMAT_VERSION = 1
UNITS = MappingProxyType({"R": "angstrom", "F": "kcal/mol/angstrom", "temperature": "K"})
ENERGY_UNIT = "kcal/mol"  # of U
CHUNK_BYTES = 16 << 20  # of positions and forces held at a time
# attribute of BeadMolecule -> (name in the file, type); the rest are read as they are
PER_MOLECULE = MappingProxyType(
    {
        "species": ("bead_species", np.int32),
        "residue": ("residue", np.int32),
        "residue_name": ("residue_name", np.str_),
        "bead_name": ("bead_name", np.str_),
        "chain": ("chain", np.int32),
        "bonds": ("bonds", np.int32),
        "mapping": ("mapping", np.float64),
        "elements": ("elements", np.int32),
        "atom_bonds": ("atom_bonds", np.int32),
        "atom_index": ("atom_index", np.int32),
        "force_map": ("force_map", np.float64),
    }
)
MAPS = ("mapping", "force_map")
OPTIONAL = (*MAPS, "atom_index")
PER_FRAME = MappingProxyType(
    {"source": np.int32, "frame": np.int64, "temperature": np.float32, "molecule": np.int32}
)


@dataclass(frozen=True)
class Layout:
    """Which columns of a padded frame are a molecule's beads.

    Attributes:
        columns: (n_k,) int64.
        species: (n_k,) int32 of these beads.
    """

    columns: np.ndarray
    species: np.ndarray


def is_cg_npz(path: Path | str) -> bool:
    """Whether an NPZ file is a coarse-grained set: it has `R` and `species`.

    Raises:
        DataError: it is no NPZ file.
    """
    with NpzReader(path) as file:
        return {"R", "species"} <= set(file.names)


class CGSet:
    """An opened coarse-grained data set, ours or a seed's; use it as a context manager.

    Frames are read as they are asked for; memory does not grow with their number.

    Args:
        path: the file.

    Attributes:
        n_frames: T.
        n_beads: n, padding included.
        has_forces: whether F is stored.
        has_energies: whether U is stored.
        molecules: a sequence of `BeadMolecule`, each read when it is asked for; empty for a seed's.
        species_table: names by species number; empty for a seed's.
        sources: what the frames were made from: {path, sha256, format, n_frames, molecule}.
        metadata: what the file says of itself.
        notes: what a user must be told.

    Raises:
        DataError: it is damaged, not such a set, in other units, of a newer format, or empty.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = NpzReader(path)
        try:
            self._check_frames()
            self.metadata: dict[str, Any] = self._json("metadata", {})
            self.notes: list[str] = []
            self._check_metadata()
            self.species_table: list[str] = self._json("species_table", [])
            self.sources: list[dict[str, Any]] = self._json("sources", [])
            self.molecules = _Molecules(self._file, self.n_beads)
        except BaseException:
            self._file.__exit__()
            raise

    def __enter__(self) -> CGSet:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def _wrong(self, message: str, remedy: str | None = None) -> DataError:
        return DataError(message, where=str(self.path), remedy=remedy)

    def _check_frames(self) -> None:
        absent = [name for name in ("R", "species") if name not in self._file]
        if absent:
            raise self._wrong(
                f"a coarse-grained set has arrays R and species, found {sorted(self._file.names)}",
                "make it with `mlff cg-map`",
            )
        shape = self._file.shape("R")
        if len(shape) != 3 or shape[2] != 3 or self._file.dtype("R").kind != "f":
            raise self._wrong(
                f"R must hold floats of shape (frames, beads, 3), found {self._file.dtype('R')} "
                f"of {shape}"
            )
        self.n_frames, self.n_beads = shape[:2]
        if 0 in shape:
            raise self._wrong(f"frames and beads are needed, found R of shape {shape}")
        for name, want in (("F", shape), ("species", shape[:2]), ("mask", shape[:2])):
            if name in self._file and self._file.shape(name) != want:
                raise self._wrong(
                    f"{name} must have shape {want} as R does, found {self._file.shape(name)}"
                )
        for name in (*PER_FRAME, "U"):
            if name in self._file and self._file.shape(name) != (self.n_frames,):
                raise self._wrong(
                    f"{name} must have one value for each of {self.n_frames} frames, found shape "
                    f"{self._file.shape(name)}"
                )
        self.has_forces = "F" in self._file
        self.has_energies = "U" in self._file

    def _json(self, name: str, default: Any) -> Any:
        if name not in self._file:
            return default
        try:
            value = json.loads(self._file.text(name))
        except ValueError as error:
            raise self._wrong(f"{name} must be JSON: {error}") from error
        if type(value) is not type(default):
            raise self._wrong(f"{name} must be a JSON {type(default).__name__}, found {value!r}")
        return value

    def mappings(self) -> set[str]:
        """Names of the mappings that the file tells, of itself or of its molecules."""
        told = self.metadata.get("molecules", [])
        each = [self.metadata, *(m for m in told if isinstance(m, dict))]
        return {str(m["mapping"]) for m in each if isinstance(m.get("mapping"), str)} - {
            "unknown",
            "",
        }

    def _check_metadata(self) -> None:
        version = self.metadata.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise self._wrong(
                f"format version {FORMAT_VERSION} is read, found {version!r}",
                "update mlff, or make the file again with this one",
            )
        units = self.metadata.get("units")
        if units is None:
            self.notes.append(f"{self.path} names no units: read as angstrom and kcal/mol/angstrom")
        ours = {**UNITS, "U": ENERGY_UNIT}
        other = {k: v for k, v in (units or {}).items() if k in ours and v != ours[k]}
        if other:
            raise self._wrong(
                f"units must be {ours}, found {other}", "convert the arrays and say so"
            )

    def per_frame(self, name: str) -> np.ndarray:
        """One value per frame: "source", "frame", "temperature" or "molecule", (T,).

        Where a set does not say: source -1, frame the row, temperature NaN, and molecule the
        number of its layout.
        """
        kind = PER_FRAME[name]
        if name in self._file:
            values = self._file.rows(name, slice(None)).astype(kind)
            kelvin = values if name == "temperature" else np.ones(1)
            odd = np.flatnonzero((kelvin <= 0) | np.isinf(kelvin))
            if len(odd):
                raise self._wrong(
                    f"frame {odd[0]}: temperature must be above 0 K, found {values[odd[0]]:g}",
                    "write NaN where it is not known",
                )
            return values
        if name == "molecule" and len(self.layouts) > 1:
            return self._surveyed[1]
        if name == "frame":
            return np.arange(self.n_frames, dtype=kind)
        missing = {"source": -1, "temperature": np.nan, "molecule": 0}[name]
        return np.full(self.n_frames, missing, kind)

    @cached_property
    def layouts(self) -> list[Layout]:
        """Of every molecule; those of a seed's set in the order in which they first occur."""
        if not len(self.molecules):
            return self._surveyed[0]
        return [Layout(np.arange(len(s)), s) for s in self.molecules.species]

    @cached_property
    def _surveyed(self) -> tuple[list[Layout], np.ndarray]:
        """Layouts of a seed's set, and the number of each frame's."""
        found: dict[bytes, int] = {}
        layouts: list[Layout] = []
        molecule = np.empty(self.n_frames, np.int32)
        for rows in self._pieces(np.arange(self.n_frames), 8):
            species, mask = self._species_and_mask(slice(int(rows[0]), int(rows[-1]) + 1))
            kinds, inverse = np.unique(
                np.where(mask, species, np.iinfo(np.int32).min), axis=0, return_inverse=True
            )
            numbers = np.empty(len(kinds), np.int32)
            first = np.full(len(kinds), len(rows))
            np.minimum.at(first, inverse, np.arange(len(rows)))
            for k in np.argsort(first):
                row = first[k]
                key = kinds[k].tobytes()
                if key not in found:
                    found[key] = len(layouts)
                    columns = np.flatnonzero(mask[row])
                    if not len(columns):
                        raise self._wrong(f"frame {rows[row]}: the mask leaves no real bead")
                    layouts.append(Layout(columns, species[row, columns]))
                numbers[k] = found[key]
            molecule[rows] = numbers[inverse]
        return layouts, molecule

    def _species_and_mask(self, rows: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        species = self._file.rows("species", rows).astype(np.int32)
        if "mask" not in self._file:
            return species, np.ones(species.shape, bool)
        return species, self._file.rows("mask", rows) > 0

    def energies(self, rows: np.ndarray) -> np.ndarray:
        """Potential energies (m,) float64 of rows, kcal/mol; NaN where there are none."""
        if not self.has_energies:
            return np.full(len(rows), np.nan)
        return self._file.rows("U", rows).astype(np.float64)

    def frames(self, rows: slice | np.ndarray, *, forces: bool = True) -> CGFrames:
        """Frames as they are stored, padded, values unchecked.

        Args:
            rows: any rows, in any order.
            forces: read F, where there is one.
        """
        species, mask = self._species_and_mask(rows)
        F = self._file.rows("F", rows) if forces and self.has_forces else None
        return CGFrames(
            np.arange(self.n_frames)[rows], self._file.rows("R", rows), F, species, mask
        )

    def chunks(self, rows: np.ndarray | None = None, *, forces: bool = True) -> Iterator[CGFrames]:
        """Padded frames in pieces of about `CHUNK_BYTES`; all rows unless told."""
        rows = np.arange(self.n_frames) if rows is None else rows
        for piece in self._pieces(rows, 48):
            yield self.frames(piece, forces=forces)

    def blocks(self, rows: np.ndarray | None = None, *, forces: bool = True) -> Iterator[CGBlock]:
        """Frames without padding, in the order of `rows`, values checked.

        A block ends where the molecule changes: of a shuffled set, rows that are sorted by molecule
        come in few large blocks, others in as many as there are changes.

        Raises:
            DataError: a value of a real bead is one that no molecule has, or its species is not
                its molecule's; names frame and bead.
        """
        rows = np.arange(self.n_frames) if rows is None else rows
        values = {name: self.per_frame(name) for name in PER_FRAME}
        n_known = len(self.layouts)
        unknown = ~np.isin(values["molecule"], np.arange(n_known))
        if unknown.any():
            row = int(np.flatnonzero(unknown)[0])
            raise self._wrong(
                f"frame {row}: molecule must be 0 to {n_known - 1}, found {values['molecule'][row]}"
            )
        for piece in self._pieces(rows, 48):
            frames = self.frames(piece, forces=forces)
            for run in np.split(
                np.arange(len(piece)), np.flatnonzero(np.diff(values["molecule"][piece])) + 1
            ):
                k = int(values["molecule"][piece[run[0]]])
                columns = self.layouts[k].columns
                parts = {
                    name: array[run][:, columns]
                    for name, array in (("R", frames.R), ("F", frames.F))
                    if array is not None
                }
                for name, array in parts.items():
                    check_values(name, array, piece[run], str(self.path))
                self._check_species(frames.species[run][:, columns], k, piece[run])
                told = {n: values[n][piece[run]] for n in ("source", "frame", "temperature")}
                yield CGBlock(k, R=parts["R"], F=parts.get("F"), rows=piece[run], **told)

    def _check_species(self, species: np.ndarray, k: int, rows: np.ndarray) -> None:
        """A file that says of a bead two things is damaged, or was put together wrongly."""
        odd = np.argwhere(species != self.layouts[k].species)
        if len(odd):
            t, bead = odd[0]
            raise self._wrong(
                f"species of frame {rows[t]}, bead {bead} is {species[t, bead]}, its molecule's "
                f"table has {self.layouts[k].species[bead]}",
                "leave that frame out, or make the set again",
            )

    def verify(self) -> None:
        """Compare all arrays with their checksums: one pass over the file.

        Raises:
            DataError: one is damaged.
        """
        self._file.verify()

    def _pieces(self, rows: np.ndarray, bytes_per_bead: int) -> Iterator[np.ndarray]:
        step = max(1, CHUNK_BYTES // (bytes_per_bead * self.n_beads))
        for start in range(0, len(rows), step):
            yield np.asarray(rows[start : start + step])


class _Molecules(LazySequence[BeadMolecule]):
    """The molecules of a file, read one by one: maps of many molecules would not fit in memory."""

    def __init__(self, file: NpzReader, n_beads: int) -> None:
        self._file = file
        count = sum(name.startswith("bead_species_") for name in file.names)
        self._suffixes = [""] if "bead_species" in file else [f"_{k}" for k in range(count)]
        for suffix in self._suffixes:
            for name in ("name", *(PER_MOLECULE[a][0] for a in PER_MOLECULE if a not in OPTIONAL)):
                if f"{name}{suffix}" not in file:
                    raise DataError(
                        f"a molecule of this set has no array {name}{suffix}",
                        where=str(file.path),
                        remedy="make the file again with `mlff cg-map`",
                    )
            found = file.shape(f"bead_species{suffix}")
            if len(found) != 1 or not 1 <= found[0] <= n_beads:
                raise DataError(
                    f"bead_species{suffix} must have 1 to {n_beads} beads, found shape {found}",
                    where=str(file.path),
                )

    @property
    def species(self) -> Iterator[np.ndarray]:
        """(n_k,) int32 of every molecule, without its maps."""
        for suffix in self._suffixes:
            yield self._file.read(f"bead_species{suffix}").astype(np.int32, copy=False)

    def __len__(self) -> int:
        return len(self._suffixes)

    def bare(self, k: int) -> BeadMolecule:
        """Molecule k without its maps, which are most of its bytes."""
        return self._make(k, MAPS)

    def _make(self, k: int, leave_out: Sequence[str] = ()) -> BeadMolecule:
        suffix = self._suffixes[k]
        values: dict[str, Any] = {"name": self._file.text(f"name{suffix}")}
        for attribute, (name, kind) in PER_MOLECULE.items():
            if attribute not in leave_out and f"{name}{suffix}" in self._file:
                values[attribute] = self._file.read(f"{name}{suffix}").astype(kind, copy=False)
        try:
            return BeadMolecule(**values)
        except DataError as error:
            raise DataError(error.message, where=str(self._file.path)) from error
