"""GROMACS XTC: rounded positions without forces, through mdtraj; nm -> angstrom.

The step of rounding stands in the file (0.01 angstrom by default) and is the trajectory's
`precision`. mdtraj keeps the places of frames in memory.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from mdtraj.formats import XTCTrajectoryFile

from mlff_cli.core.errors import DataError
from mlff_cli.data.frames import Frames
from mlff_cli.data.trajectory_reader import DAMAGE, TrajectoryReader, runs
from mlff_cli.data.trajectory_units import NM

MAGICS = (1995, 2023)  # 2023: GROMACS, for more than 2^28 atoms
SMALL = 9  # up to so many atoms positions are stored as floats


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
        try:
            self._file = XTCTrajectoryFile(str(path))
            self.n_frames = len(self._file)
            offsets = np.asarray(self._file.offsets, dtype="int64")
        except (*DAMAGE, AssertionError) as error:  # of mdtraj, for few atoms
            raise self.damaged(error) from error
        try:
            if not self.n_frames:
                raise self.no_frames()
            self._open(int(offsets[-1]))
        except BaseException:
            self.close()
            raise

    def _open(self, last: int) -> None:
        """Read the last frame's header: its end must be the file's."""
        length = self.path.stat().st_size
        with self.path.open("rb") as stream:
            stream.seek(last)
            head = stream.read(96)
        try:
            magic, self.n_atoms = struct.unpack_from(">ii", head)
            if magic not in MAGICS:
                raise self.damaged(f"no frame begins at byte {last}")
            if self.n_atoms > SMALL:
                steps_per_nm = struct.unpack_from(">f", head, 56)[0]
                self.precision = round(NM / steps_per_nm, 9) if steps_per_nm > 0 else 0.0
                wide = magic == MAGICS[1]
                n_bytes = struct.unpack_from(">q" if wide else ">i", head, 88)[0]
                end = last + (96 if wide else 92) + -(-n_bytes // 4) * 4
            else:
                end = last + 56 + 12 * self.n_atoms
        except struct.error:
            end = length + 1
        if end != length:
            raise DataError(
                f"the XTC file is cut short or damaged: its last frame begins at byte {last} and "
                f"does not end with the file ({length} bytes)",
                where=f"{self.path}, frame {self.n_frames - (end > length)} (counted from 0)",
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
