"""GROMACS TRR: positions, and forces where `nstfout` asked for them, through MDAnalysis.

    nm -> angstrom,   kJ mol-1 nm-1 -> kcal/mol/angstrom

A frame has positions, velocities and forces as the run's `nstxout`, `nstvout` and `nstfout` fell
together; the lengths in its header say which. Rows are the frames with positions and, if any frame
has both, those with forces too. Headers are read here, all of them before the decoder sees the
file: it trusts the lengths, and one that is damaged ends the process. Places of frames are kept in
memory: MDAnalysis' own reader would write them beside the user's file, its decoder does not.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.core.runtime import require
from mlff_cli.data.trajectories.frames import Frames
from mlff_cli.data.trajectories.reader import DAMAGE, TrajectoryReader
from mlff_cli.data.trajectories.units import KJ_MOL_NM, NM

# magic, length of the version string twice, the string, then 13 numbers: bytes of ir, e, box,
# virial, pressure, topology, symbols, x, v, f; atoms, step, nre
START, TEXT = [1993, 13, 12], b"GMX_trn_file"
HEADER = struct.Struct(">iii12s13i")
PER_ATOM, PER_BOX = (7, 8, 9), (2, 3, 4)  # among the 13: x, v, f; box, virial, pressure
X, F, ATOMS = 7, 9, 10
WIDTHS = (4, 8)  # bytes of a number


class TRRTrajectory(TrajectoryReader):
    """An opened TRR file.

    Raises:
        DataError: it is damaged, cut, or no frame has positions.
        MissingDependencyError: MDAnalysis is not installed.
    """

    format = "trr"
    no_forces = "set `nstfout` in the .mdp file; `mdrun -rerun` adds forces to stored positions"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        library = require("MDAnalysis.lib.formats.libmdaxdr", "coarse")
        offsets, found = self._headers()
        self._rows(*found.T)
        try:
            self._file = library.TRRFile(str(path))
            self._file.set_offsets(offsets)
        except DAMAGE as error:
            raise self.damaged(error) from error

    def _rows(self, has_x: np.ndarray, has_f: np.ndarray) -> None:
        """Choose the frames that are rows; has_x, has_f (frames,)."""
        if not has_x.any():
            raise DataError(
                f"none of the {len(has_x)} frames has positions",
                where=str(self.path),
                remedy="set `nstxout` in the .mdp file",
            )
        self.has_forces = bool((has_x & has_f).any())
        self._frames = np.flatnonzero(has_x & has_f if self.has_forces else has_x)
        self.n_frames = len(self._frames)
        left_out = len(has_x) - self.n_frames
        if left_out:
            lack = "lack positions or forces" if self.has_forces else "lack positions"
            self.notes.append(
                f"{self.path}: {left_out} of {len(has_x)} frames {lack} and are left out"
            )
        if has_f.any() and not self.has_forces:
            self.notes.append(f"{self.path}: no frame has both positions and forces")

    def _headers(self) -> tuple[np.ndarray, np.ndarray]:
        """Where frames begin, and whether each has positions and forces; they fill the file."""
        offsets, found = (
            array("q"),
            bytearray(),
        )  # lists would take ten times as much
        length = self.path.stat().st_size
        end = 0
        with self.path.open("rb") as stream:
            while end < length:
                stream.seek(end)
                head = stream.read(HEADER.size)
                row = np.array([len(offsets)])
                if len(head) < HEADER.size:
                    raise self._cut(len(offsets), end, length)
                *start, text = HEADER.unpack(head)[:4]
                numbers = HEADER.unpack(head)[4:]
                if start != START or text != TEXT:
                    raise self.damaged(f"no frame begins at byte {end}", row)
                if not _sound(numbers):
                    raise self.damaged(f"the header at byte {end} contradicts itself", row)
                if offsets and numbers[ATOMS] != self.n_atoms:
                    what = f"{numbers[ATOMS]} atoms after frames of {self.n_atoms}"
                    raise self.damaged(what, row)
                self.n_atoms = numbers[ATOMS]
                size = HEADER.size + 2 * _precision(numbers) + sum(numbers[:ATOMS])
                if end + size > length:
                    raise self._cut(len(offsets), end, length)
                offsets.append(end)
                found += bytes((numbers[X] > 0, numbers[F] > 0))
                end += size
        if not offsets:
            raise self.no_frames()
        return np.array(offsets, dtype="int64"), np.frombuffer(found, dtype=bool).reshape(-1, 2)

    def _cut(self, n_frames: int, end: int, length: int) -> DataError:
        return DataError(
            f"the TRR file is cut short: the last whole frame ends at byte {end}, the file has "
            f"{length} bytes",
            where=f"{self.path}, frame {n_frames} (counted from 0)",
            remedy="copy it again, or cut the broken end with `gmx trjconv -trunc`",
        )

    def _read(self, rows: np.ndarray, positions: bool, forces: bool) -> Frames:
        x = np.empty((len(rows), self.n_atoms, 3), "float32") if positions else None
        f = np.empty((len(rows), self.n_atoms, 3), "float32") if forces else None
        box, time = np.empty((len(rows), 3, 3), "float32"), np.empty(len(rows))
        for i, frame in enumerate(self._frames[rows].tolist()):
            if self._file.tell() != frame:
                self._file.seek(frame)
            data = self._file.read()
            box[i], time[i] = data.box, data.time
            if x is not None:
                x[i] = data.x
            if f is not None:
                f[i] = data.f
        if x is not None:
            x *= np.float32(NM)
        if f is not None:
            f *= np.float32(KJ_MOL_NM)
        return Frames(rows, x, f, box * np.float32(NM) if box.any() else None, time=time)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _precision(numbers: Sequence[int]) -> int:
    """Bytes of one number: 4 or 8 in a sound header."""
    values = next((numbers[k] for k in PER_ATOM if numbers[k]), 0)
    if values and numbers[ATOMS] > 0:
        return values // (3 * numbers[ATOMS])
    return numbers[PER_BOX[0]] // 9 or 4


def _sound(numbers: Sequence[int]) -> bool:
    """Whether the lengths are those of whole arrays of as many atoms as the header says."""
    width, n = _precision(numbers), numbers[ATOMS]
    arrays = [numbers[k] in (0, 3 * n * width) for k in PER_ATOM]
    boxes = [numbers[k] in (0, 9 * width) for k in PER_BOX]
    return width in WIDTHS and n > 0 and all(arrays + boxes) and min(numbers[:ATOMS]) >= 0
