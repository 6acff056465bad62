"""GROMACS TRR: positions, and forces where `nstfout` asked for them, through MDAnalysis.

    nm -> angstrom,   kJ mol-1 nm-1 -> kcal/mol/angstrom

A frame has positions, velocities and forces as the run's `nstxout`, `nstvout` and `nstfout` fell
together; the lengths in its header say which. Rows are the frames with positions and, if any frame
has both, those with forces too. Places of frames are kept in memory: MDAnalysis' own reader
would write them beside the user's file, its decoder below it does not.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.core.runtime import require
from mlff_cli.data.frames import Frames
from mlff_cli.data.trajectory_reader import DAMAGE, TrajectoryReader
from mlff_cli.data.trajectory_units import KJ_MOL_NM, NM

# magic, length of the version string twice, the string, then 13 numbers: bytes of ir, e, box,
# virial, pressure, topology, symbols, x, v, f; atoms, step, nre
MAGIC = struct.pack(">i", 1993)
HEADER = struct.Struct(">iii12s13i")
X, F, ATOMS = 7, 9, 10  # among the 13


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
        try:
            self._file = library.TRRFile(str(path))
            offsets = np.asarray(self._file.offsets, dtype="int64")
        except DAMAGE as error:
            raise self.damaged(error) from error
        try:
            self._open(offsets)
        except BaseException:
            self.close()
            raise

    def _open(self, offsets: np.ndarray) -> None:
        has_x, has_f = self._headers(offsets).T  # [frames] each
        if not has_x.any():
            raise DataError(
                f"none of the {len(offsets)} frames has positions",
                where=str(self.path),
                remedy="set `nstxout` in the .mdp file",
            )
        self.has_forces = bool((has_x & has_f).any())
        self._frames = np.flatnonzero(has_x & has_f if self.has_forces else has_x)
        self.n_frames = len(self._frames)
        left_out = len(offsets) - self.n_frames
        if left_out:
            lack = "lack positions or forces" if self.has_forces else "lack positions"
            self.notes.append(
                f"{self.path}: {left_out} of {len(offsets)} frames {lack} and are left out"
            )
        if has_f.any() and not self.has_forces:
            self.notes.append(f"{self.path}: no frame has both positions and forces")

    def _headers(self, offsets: np.ndarray) -> np.ndarray:
        """Whether each frame has positions and forces; the frames must fill the file."""
        if not len(offsets):
            raise self.no_frames()
        found = np.zeros((len(offsets), 2), dtype=bool)
        length = self.path.stat().st_size
        end = 0
        with self.path.open("rb") as stream:
            for row, offset in enumerate(map(int, offsets)):
                stream.seek(offset)
                head = stream.read(HEADER.size)
                if offset != end or len(head) < HEADER.size or head[:4] != MAGIC:
                    raise self.damaged(f"no frame begins at byte {end}", np.array([row]))
                _, _, _, _, *numbers = HEADER.unpack(head)
                if row and numbers[ATOMS] != self.n_atoms:
                    what = f"{numbers[ATOMS]} atoms after frames of {self.n_atoms}"
                    raise self.damaged(what, np.array([row]))
                self.n_atoms = numbers[ATOMS]
                found[row] = numbers[X] > 0, numbers[F] > 0
                end = offset + HEADER.size + 2 * _precision(numbers) + sum(numbers[:ATOMS])
        if end != length:
            rule = f"the last whole frame ends at byte {end}" if end < length else f"{end} needed"
            raise DataError(
                f"the TRR file is cut short: {rule}, the file has {length} bytes",
                where=f"{self.path}, frame {len(offsets) - (end > length)} (counted from 0)",
                remedy="copy it again, or cut the broken end with `gmx trjconv -trunc`",
            )
        return found

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


def _precision(numbers: list[int]) -> int:
    """Bytes of one number: 4 or 8."""
    values = next((n for n in (numbers[X], numbers[X + 1], numbers[F]) if n), 0)
    if values and numbers[ATOMS]:
        return values // (3 * numbers[ATOMS])
    return numbers[2] // 9 or 4
