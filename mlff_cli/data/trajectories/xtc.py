"""GROMACS XTC: rounded positions without forces, through mdtraj; nm -> angstrom.

The step of rounding stands in the file (0.01 angstrom by default) and is the trajectory's
`precision`. mdtraj keeps the places of frames in memory. Its decoder trusts the headers, and one
that is damaged ends the process: all of them are looked at before.

A header: magic, atoms, step, time, box (9), atoms again, then with more than 9 atoms: steps per nm,
smallest and largest coordinate (3 + 3), index of the smallest bit width, bytes that follow (8 of
them in the wide form).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from mdtraj.formats import XTCTrajectoryFile

from mlff_cli.core.errors import DataError
from mlff_cli.data.trajectories.frames import Frames
from mlff_cli.data.trajectories.reader import DAMAGE, TrajectoryReader, runs
from mlff_cli.data.trajectories.units import NM

MAGICS = (1995, 2023)  # 2023: GROMACS, for more than 2^28 atoms
SMALL = 9  # up to so many atoms positions are stored as floats
WIDTHS = (9, 72)  # rows of the format's table of bit widths
HEADER = struct.Struct(">ii44xif3i3ii")  # up to the index
START, COUNT, HEADER_BYTES = 56, 88, 96  # of floats of few atoms; of the number of bytes; at most


class XTCTrajectory(TrajectoryReader):
    """An opened XTC file.

    Raises:
        DataError: it is damaged, cut or has no frames.
    """

    format = "xtc"
    no_forces = (
        "XTC has none by design: use the TRR file of the same run (`nstfout` in the .mdp file)"
    )

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        n_frames = self._headers()
        try:
            self._file = XTCTrajectoryFile(str(path))
            self.n_frames = len(self._file)
        except (*DAMAGE, AssertionError) as error:  # of mdtraj, for few atoms
            raise self.damaged(error) from error
        if self.n_frames != n_frames:
            self.close()
            raise self.damaged(f"{n_frames} headers, and mdtraj finds {self.n_frames} frames")

    def _headers(self) -> int:
        """Number of frames; their headers must be sound, and they fill the file."""
        length = self.path.stat().st_size
        row = end = 0
        with self.path.open("rb") as stream:
            while end < length:
                stream.seek(end)
                end += self._frame(stream.read(HEADER_BYTES), row, end)
                if end > length:
                    raise self._cut(row, end, length)
                row += 1
        if not row:
            raise self.no_frames()
        return row

    def _frame(self, head: bytes, row: int, begin: int) -> int:
        """Bytes of a frame; sets the number of atoms and the precision."""
        head = head.ljust(HEADER_BYTES, b"\0")  # a cut one says a size that does not fit
        magic, n_atoms, again, steps_per_nm, *low_high, index = HEADER.unpack_from(head)
        if magic not in MAGICS:
            raise self.damaged(f"no frame begins at byte {begin}", np.array([row]))
        if row and n_atoms != self.n_atoms:
            what = f"{n_atoms} atoms after frames of {self.n_atoms}"
            raise self.damaged(what, np.array([row]))
        self.n_atoms = int(n_atoms)
        small = 0 < n_atoms <= SMALL
        low, high = low_high[:3], low_high[3:]
        n_bytes: int = struct.unpack_from(">q" if magic == MAGICS[1] else ">i", head, COUNT)[0]
        sound = n_atoms == again > 0 and (
            small
            or (steps_per_nm > 0 and n_bytes >= 0 and WIDTHS[0] <= index <= WIDTHS[1])
            and all(x <= y for x, y in zip(low, high, strict=True))
        )
        if not sound:
            raise self.damaged(f"the header at byte {begin} makes no sense", np.array([row]))
        if small:
            return START + 12 * self.n_atoms
        self.precision = round(NM / steps_per_nm, 9)
        return COUNT + (8 if magic == MAGICS[1] else 4) + -(-n_bytes // 4) * 4

    def _cut(self, row: int, end: int, length: int) -> DataError:
        return DataError(
            f"the XTC file is cut short: frame {row} needs {end} bytes, the file has {length}",
            where=f"{self.path}, frame {row} (counted from 0)",
            remedy="copy it again, or cut the broken end with `gmx trjconv -trunc`",
        )

    def _read(self, rows: np.ndarray, positions: bool, forces: bool) -> Frames:
        x = np.empty((len(rows), self.n_atoms, 3), "float32")
        box, time = np.zeros((len(rows), 3, 3), "float32"), np.empty(len(rows))
        for first, count, place in runs(rows):
            self._file.seek(first)
            xyz, times, _, edges = self._file.read(count)
            x[place], time[place] = xyz, times
            box[place] = 0.0 if edges is None else edges
        x *= np.float32(NM)
        box *= np.float32(NM)
        some_box = box if box.any() else None
        return Frames(rows, x if positions else None, box=some_box, time=time)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
