"""DCD of CHARMM, NAMD and OpenMM: positions in angstrom, through MDAnalysis.

mdtraj reads DCD too, but its decoder prints to stdout, where results belong. The cell is stored as
lengths with angles or their cosines, or as CHARMM's symmetric matrix; MDAnalysis tells them apart.
"""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.core.runtime import require
from mlff_cli.data.trajectories.frames import Frames
from mlff_cli.data.trajectories.reader import DAMAGE, TrajectoryReader


class DCDTrajectory(TrajectoryReader):
    """An opened DCD file.

    Raises:
        DataError: it is damaged, cut or has no frames.
        MissingDependencyError: MDAnalysis is not installed.
    """

    format = "dcd"
    no_forces = "DCD has none: write H5MD (`mlff sample`), TRR or NPZ {R,F,Z}"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        library = require("MDAnalysis.coordinates.DCD", "coarse")
        self._triclinic = require("MDAnalysis.lib.mdamath", "coarse").triclinic_vectors
        self._check_length()
        try:
            with library.DCDFile(str(path)):  # fails more quietly than the reader below
                pass
            with warnings.catch_warnings():  # it will copy less in its next version
                warnings.simplefilter("ignore", DeprecationWarning)
                self._file = library.DCDReader(str(path))
        except DAMAGE as error:
            raise self.damaged(error) from error
        self.n_frames, self.n_atoms = int(self._file.n_frames), int(self._file.n_atoms)

    def _check_length(self) -> None:
        """Compare the file's length with the frames that its header announces.

        A header is a record of 84 bytes (CORD, 20 numbers), one of titles, one of the number of
        atoms; a frame is an optional cell (48 bytes) and x, y, z: each between two length marks.
        """
        length = self.path.stat().st_size
        with self.path.open("rb") as stream:
            head = stream.read(92)
            order = "<" if head[:4] == b"T\0\0\0" else ">"
            if head[4:8] != b"CORD":
                return  # length marks of 8 bytes: left to the library
            try:
                control = struct.unpack(order + "20i", head[8:88])
                titles = struct.unpack(order + "i", stream.read(4))[0]
                stream.seek(titles + 4, os.SEEK_CUR)
                _, n_atoms, _ = struct.unpack(order + "3i", stream.read(12))
            except (struct.error, OSError) as error:  # a place before the file's beginning
                raise self.damaged("its header is cut") from error
            begin = stream.tell()
        announced, fixed = control[0], control[8]
        if not 0 <= fixed <= n_atoms:
            raise self.damaged(f"{n_atoms} atoms, {fixed} of them fixed")
        cell = 56 if control[19] and control[10] else 0
        dims = 4 if control[19] and control[11] else 3
        first, others = (cell + dims * (4 * n + 8) for n in (n_atoms, n_atoms - fixed))
        whole, rest = divmod(length - begin - first, others)
        n_frames = 0 if length - begin < first else whole + 1
        if not n_frames and announced == 0:
            raise self.no_frames()
        if n_frames < announced or rest:
            raise DataError(
                f"the DCD file is cut short: its header announces {announced} frames, "
                f"{n_frames} are whole",
                where=str(self.path),
                remedy="copy it again; a run that was killed leaves a last frame to cut off",
            )

    def _read(self, rows: np.ndarray, positions: bool, forces: bool) -> Frames:
        x = np.empty((len(rows), self.n_atoms, 3), "float32")
        box, time = np.zeros((len(rows), 3, 3)), np.empty(len(rows))
        for i, row in enumerate(rows.tolist()):
            frame = self._file[row]
            x[i], time[i] = frame.positions, frame.time
            box[i] = 0.0 if frame.dimensions is None else self._triclinic(frame.dimensions)
        some_box = box if box.any() else None
        return Frames(rows, x if positions else None, box=some_box, time=time)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
