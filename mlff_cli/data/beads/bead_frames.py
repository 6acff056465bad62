"""Frames of bead molecules to train on, from one or several coarse-grained sets.

Types of beads are numbered over all files by their names; a molecule that several files hold with
the same name, beads and bonds is one molecule. Frames are numbered file by file, in the order of
their rows. They lie in memory one after the other without padding,

    R, F (sum_t n_t, 3) float32,     frame t: rows first_t to first_t + n_t

where they fit, and are read from their files when a batch asks where they do not.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlff_cli.core.errors import ConfigError, DataError, UsageError
from mlff_cli.data.beads.bead_identity import FoundMolecules, TrainingMolecule, add_molecules
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.cg_temperatures import rows_of_temperature
from mlff_cli.data.beads.few_sets import FewSets
from mlff_cli.data.temperatures import Temperatures

BYTES = 24  # of a bead's position and force


@dataclass(frozen=True, eq=False)
class PaddedFrames:
    """Some frames; what stands behind a frame's beads is zero.

    Attributes:
        index: (B,) numbers of the frames.
        molecule: (B,) int64.
        n_beads: (B,) int64.
        R: (B, N, 3) float32 angstrom, N: beads of the largest.
        F: (B, N, 3) float32 kcal/mol/angstrom.
        types: (B, N) int64.
    """

    index: np.ndarray
    molecule: np.ndarray
    n_beads: np.ndarray
    R: np.ndarray
    F: np.ndarray
    types: np.ndarray


class BeadFrames:
    """Frames of all files, which are closed with it: as a context manager, or when it is forgotten.

    Args:
        paths: coarse-grained sets with forces.
        temperature: K of the frames to take; None takes those of the only one there is.
        in_memory_bytes: for positions and forces; more is read from the files.
        tell: hears what is being read.

    Attributes:
        paths: of the files.
        type_names: of the beads, by number: those that occur.
        tables: per file the names by species number, as the file has them.
        molecules: that the frames are of.
        temperature: K of the frames; None where no file says it.
        file: (T,) int32 file of every frame.
        row: (T,) int64 row in it.
        molecule: (T,) int32 of every frame.
        energy: (T,) float64 kcal/mol, NaN where there is none.
        in_memory: whether positions and forces are.
        notes: what a user must be told.

    Raises:
        DataError: a file is damaged or has no forces, or a value is none that a molecule has.
        ConfigError: several temperatures and none chosen, or one that no frame has.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        temperature: float | None = None,
        in_memory_bytes: int = 1 << 62,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.paths = list(paths)
        self._sets = FewSets(self.paths)
        # a training has no end at which somebody would close them
        weakref.finalize(self, self._sets.__exit__)
        self._lock = threading.Lock()  # batches are made by several threads
        try:
            self._open(temperature, tell)
            self.in_memory = BYTES * int(self.n_beads.sum()) <= in_memory_bytes
            self._first = np.concatenate([[0], np.cumsum(self.n_beads)])[:-1]
            self._read(tell)
        except BaseException:
            self._sets.__exit__()
            raise

    def __enter__(self) -> BeadFrames:
        return self

    def __exit__(self, *error: object) -> None:
        self._sets.__exit__(*error)

    def __len__(self) -> int:
        return len(self.molecule)

    @property
    def n_beads(self) -> np.ndarray:
        """(T,) int64 beads of every frame."""
        sizes = np.array([len(m.types) for m in self.molecules], dtype=np.int64)
        found: np.ndarray = sizes[self.molecule]
        return found

    def set_of(self, file: int) -> CGSet:
        """An opened file; good until some others are asked for."""
        return self._sets[file]

    # -- opening ----------------------------------------------------------------------------------

    def _open(self, temperature: float | None, tell: Callable[[str], None]) -> None:
        found, rows, kelvin = FoundMolecules(), list[np.ndarray](), set[float]()
        molecule, energy = [], []
        self.notes: list[str] = []
        for path in self.paths:
            tell(f"reading {path}")
            cg = self._sets[len(rows)]
            cg.verify()
            self.notes += cg.notes
            _check_forces(cg)
            chosen, own = self._rows(cg, temperature)
            kelvin |= {own} if own is not None else set()
            add_molecules(found, cg, len(rows))
            number = cg.per_frame("molecule")[chosen]
            unknown = (number < 0) | (number >= len(found.number[-1]))
            if unknown.any():
                raise DataError(
                    f"molecule of frame {chosen[unknown][0]} must be 0 to "
                    f"{len(found.number[-1]) - 1}, found {number[unknown][0]}",
                    where=str(path),
                )
            molecule.append(found.number[-1][number])
            energy.append(cg.energies(chosen))
            rows.append(chosen)
        if len(kelvin) > 1:
            raise ConfigError(
                "the files have one temperature together, found "
                f"{' and '.join(f'{t:g}' for t in sorted(kelvin))} K",
                where=str(self.paths[0]),
                remedy="choose one with data.temperature",
            )
        self.temperature = kelvin.pop() if kelvin else None
        self.tables = found.tables
        self.file = np.repeat(np.arange(len(rows), dtype=np.int32), [len(r) for r in rows])
        self.row = np.concatenate(rows)
        number = np.concatenate(molecule)
        self.energy = np.concatenate(energy)
        self._columns = found.columns
        self._number = found.number
        self._keep(found, number)

    def _keep(self, found: FoundMolecules, number: np.ndarray) -> None:
        """Leave out molecules without frames, and types without beads."""
        used, self.molecule = np.unique(number, return_inverse=True)
        self.molecule = self.molecule.astype(np.int32)
        names = list(dict.fromkeys(name for table in found.tables for name in table))
        here = [found.molecules[k] for k in used]
        occurring = {t for m in here for t in m.types.tolist()}
        self.type_names = tuple(n for t, n in enumerate(names) if t in occurring)
        place = np.full(len(names), -1, dtype=np.int64)
        place[sorted(occurring)] = np.arange(len(occurring))
        self.molecules = [TrainingMolecule(m.name, place[m.types], m.file, m.number) for m in here]
        self._types = np.concatenate([m.types for m in self.molecules])
        sizes = [len(m.types) for m in self.molecules]
        self._types_first = np.concatenate([[0], np.cumsum(sizes)])[:-1]

    def _rows(self, cg: CGSet, wanted: float | None) -> tuple[np.ndarray, float | None]:
        """Rows of the frames to take, and their temperature."""
        known = Temperatures.of(cg.per_frame("temperature"))
        if not known.kelvin and wanted is None:
            return np.arange(cg.n_frames), None
        try:
            chosen = rows_of_temperature(cg, wanted)
        except UsageError as error:
            raise ConfigError(
                error.message,
                where=error.where,
                remedy=f"set data.temperature, as data.temperature={known.kelvin[0]:g}",
            ) from None
        if chosen.left_out:
            self.notes.append(f"{cg.path}: {chosen.left_out}")
        return chosen.rows, chosen.kelvin

    # -- reading ----------------------------------------------------------------------------------

    def _read(self, tell: Callable[[str], None]) -> None:
        """Look through every value, and keep what fits."""
        if self.in_memory:
            total = int(self.n_beads.sum())
            self._R, self._F = np.empty((2, total, 3), dtype=np.float32)
        start = 0
        for f in range(len(self.paths)):
            rows = self.row[self.file == f]
            for block in self._sets[f].blocks(rows):
                stop = start + len(block.R)
                if self.in_memory:
                    assert block.F is not None
                    a = int(self._first[start])
                    b = a + block.R.size // 3
                    self._R[a:b], self._F[a:b] = block.R.reshape(-1, 3), block.F.reshape(-1, 3)
                start = stop
        if not self.in_memory:
            size = BYTES * int(self.n_beads.sum()) >> 20
            tell(f"{size} MiB of frames stay on disk: read batch by batch")

    def padded(self, index: np.ndarray) -> PaddedFrames:
        """Frames by number, padded to the largest of them."""
        molecule = self.molecule[index].astype(np.int64)
        n = self.n_beads_of(molecule)
        places = np.arange(int(n.max(initial=0)))
        real = places < n[:, None]  # [b, i]
        R, F = np.zeros((2, *real.shape, 3), dtype=np.float32)
        types = np.zeros(real.shape, dtype=np.int64)
        types[real] = self._types[(self._types_first[molecule][:, None] + places)[real]]
        if self.in_memory:
            flat = (self._first[index][:, None] + places)[real]
            R[real], F[real] = self._R[flat], self._F[flat]
        else:
            self._from_files(index, n, R, F)
        return PaddedFrames(np.asarray(index), molecule, n, R, F, types)

    def n_beads_of(self, molecule: np.ndarray) -> np.ndarray:
        """(B,) beads of molecules (B,)."""
        sizes = np.array([len(m.types) for m in self.molecules], dtype=np.int64)
        found: np.ndarray = sizes[molecule]
        return found

    def _from_files(self, index: np.ndarray, n: np.ndarray, R: np.ndarray, F: np.ndarray) -> None:
        with self._lock:
            for f in np.unique(self.file[index]).tolist():
                here = np.flatnonzero(self.file[index] == f)
                order = here[np.argsort(self.row[index[here]], kind="stable")]  # as they lie
                rows = self.row[index[order]]
                cg = self._sets[f]
                frames = cg.frames(rows)
                numbers = self._local(cg, f)[rows]
                assert frames.F is not None
                for b, k, x, y in zip(order, numbers, frames.R, frames.F, strict=True):
                    columns = self._columns[f][k]
                    R[b, : n[b]], F[b, : n[b]] = x[columns], y[columns]

    def _local(self, cg: CGSet, file: int) -> np.ndarray:
        """Number of every row's molecule in its own file."""
        if not hasattr(self, "_locals"):
            self._locals: dict[int, np.ndarray] = {}
        if file not in self._locals:
            self._locals[file] = cg.per_frame("molecule")
        return self._locals[file]

    def number_in_file(self, index: int) -> int:
        """Number that the molecule of a frame has in the frame's own file."""
        file = int(self.file[index])
        with self._lock:
            return int(self._local(self._sets[file], file)[self.row[index]])

    def of_molecule(
        self, k: int, index: np.ndarray, at_once: int = 4096
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Frames of one molecule among some, in pieces: numbers (t,), R and F (t, n, 3)."""
        own = index[self.molecule[index] == k]
        for start in range(0, len(own), at_once):
            frames = self.padded(own[start : start + at_once])
            yield frames.index, frames.R, frames.F

    def name(self, index: int) -> str:
        """A frame in words, as messages name it."""
        own = self.molecules[int(self.molecule[index])].name
        return f"{self.paths[int(self.file[index])]} frame {int(self.row[index])} ({own})"


def _check_forces(cg: CGSet) -> None:
    if not cg.has_forces:
        raise DataError(
            "a model is trained on forces, the set has none",
            where=str(cg.path),
            remedy="run `mlff project-forces` first",
        )
    if "subtracted_prior" in cg.metadata:
        raise DataError(
            "the set's forces lack those of a prior: they would be taken off twice",
            where=str(cg.path),
            remedy="train on the set that it was made from, with model.prior set to the prior file",
        )
