"""Reads H5MD: trajectories with forces in HDF5 (`h5md_layout`; `h5md_writer` writes them).

Other programs' files are read too: any one particles group, fixed boxes, all units of `units`.
Units that are not said are an error, as there is no default to trust.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.data.row_reader import ChunkCache, RowReader
from mlff_cli.data.trajectories.frames import Frames
from mlff_cli.data.trajectories.h5md_layout import COUNTED
from mlff_cli.data.trajectories.reader import DAMAGE, TrajectoryReader
from mlff_cli.data.trajectories.units import SCALES, scale

if TYPE_CHECKING:
    import mdtraj


class H5MDTrajectory(TrajectoryReader):
    """An opened H5MD file.

    Args:
        path: the file.

    Attributes:
        bonds: (b, 2) bonded atoms, or None.

    Raises:
        StorageError: the file is missing or not readable.
        DataError: it is not H5MD, is cut, says no units, or its arrays do not fit together.
    """

    format = "h5md"
    no_forces = "write them when the trajectory is made; `mlff sample` does"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if not path.is_file():
            raise StorageError("the file does not exist", where=str(path), remedy="check the path")
        try:
            self._file = h5py.File(path, "r", rdcc_nbytes=0)
        except OSError as error:
            if error.errno:
                raise storage_error(OSError(error.errno, os.strerror(error.errno)), path) from error
            raise self.damaged(error if path.stat().st_size else "it is empty") from error
        try:
            self._open()
        except (*DAMAGE, AttributeError) as error:
            self.close()
            raise self.damaged(error) from error
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._group = self._particles()
        self._cache = ChunkCache()
        self._readers: dict[str, RowReader] = {}
        self._scales: dict[str, float] = {}
        position = self._value("position", "length", (None, 3))
        if position is None:
            raise DataError(
                "a trajectory needs positions, this file has none",
                where=str(self.path),
                remedy="H5MD keeps them as particles/<group>/position/value",
            )
        self.n_frames, self.n_atoms = int(position.shape[0]), int(position.shape[1])
        if not self.n_frames or not self.n_atoms:
            raise self.no_frames()
        self.has_forces = self._value("force", "force", (self.n_atoms, 3)) is not None
        self._box = self._fixed_box()
        self._value("temperature", "temperature", ())
        self._value("potential_energy", "energy", ())
        self.facts = {
            _plain(k): _parsed(v) for k, v in self._file.attrs.items() if k != "topology_pdb"
        }
        self._times = self._all_times()
        self.numbers = self._numbers()
        self.bonds = self._bonds()
        pdb = self._file.attrs.get("topology_pdb")
        self.topology = None if pdb is None else self._topology(str(_parsed(pdb, json_too=False)))

    def _particles(self) -> h5py.Group:
        groups = self._file.get("particles")
        names = list(groups) if isinstance(groups, h5py.Group) else []
        if not names:
            raise DataError(
                "H5MD keeps frames below /particles, this file has "
                f"{', '.join(sorted(self._file)) or 'nothing'}",
                where=str(self.path),
                remedy="check the file's format",
            )
        if len(names) > 1 and "all" not in names:
            raise DataError(
                f"one particles group is needed, found {', '.join(names)}",
                where=str(self.path),
                remedy="keep one of them, or call it 'all'",
            )
        return groups["all" if "all" in names else names[0]]

    def _value(
        self, name: str, quantity: str, shape: tuple[int | None, ...]
    ) -> h5py.Dataset | None:
        """An element's array, its shape and unit checked; None where the file has none."""
        parent = self._file.get("observables", {}) if shape == () else self._group
        parent = self._group.get("box", {}) if name == "edges" else parent
        data = parent.get(f"{name}/value") if isinstance(parent, h5py.Group) else None
        if data is None:
            return None
        wanted = (self.n_frames or None, *shape)
        fits = len(data.shape) == len(wanted) and all(
            w is None or w == s for s, w in zip(data.shape, wanted, strict=True)
        )
        if not fits or data.dtype.kind not in "fiu":
            shown = tuple("any" if w is None else w for w in wanted)
            raise DataError(
                f"{name!r} must be numbers of shape {shown}, found {data.dtype} {data.shape}",
                where=str(self.path),
                remedy="every element needs the frames of the positions",
            )
        self._same_steps(name, data)
        self._scales[name] = self._scale(name, data, quantity)
        self._readers[name] = RowReader(data, self._cache)
        return data

    def _scale(self, name: str, data: h5py.Dataset, quantity: str) -> float:
        """What the array's unit is worth in ours."""
        unit = data.attrs.get("unit")
        if unit is None:
            raise DataError(
                f"{name!r} needs a unit, found none",
                where=str(self.path),
                remedy=f"set the attribute 'unit' of {data.name}",
            )
        return scale(quantity, str(_parsed(unit)), f"{self.path}, unit of {name!r}")

    def _same_steps(self, name: str, data: h5py.Dataset) -> None:
        """Rows of two elements belong together only where their steps are the same."""
        mine, first = data.parent.get("step"), self._group.get("position/step")
        if mine is None or first is None or mine == first:
            return
        if mine.shape != first.shape or not np.array_equal(mine[()], first[()]):
            raise DataError(
                f"{name!r} is stored at other steps than the positions",
                where=str(self.path),
                remedy="write all elements at the same steps",
            )

    def _fixed_box(self) -> np.ndarray | None:
        """Edges (3, 3) in angstrom that hold for all frames; None: none, or one box per frame."""
        edges = self._group.get("box/edges")
        if isinstance(edges, h5py.Group):
            value = edges["value"]
            self._value("edges", "length", (3,) if len(value.shape) == 2 else (3, 3))
            return None
        if edges is None:
            return None
        return _matrix(
            np.asarray(edges[()], dtype="float64") * self._scale("edges", edges, "length")
        )

    def _all_times(self) -> np.ndarray | None:
        """(T,) ps of every frame; None where the file tells none that can be understood."""
        time = self._group.get("position/time")
        if not isinstance(time, h5py.Dataset) or self.facts.get("time") == COUNTED:
            return None
        factor = SCALES["time"].get(str(_parsed(time.attrs.get("unit"))))
        if factor is None or time.dtype.kind not in "fiu":
            return None
        if time.shape == ():  # of one frame to the next
            start = time.attrs.get("offset", 0.0)
            known = isinstance(start, int | float | np.number)
            return (start + time[()] * np.arange(self.n_frames)) * factor if known else None
        fits = time.shape == (self.n_frames,)
        return np.asarray(time[()], dtype="float64") * factor if fits else None

    def _numbers(self) -> np.ndarray | None:
        species = self._group.get("species")
        if not isinstance(species, h5py.Dataset) or species.shape != (self.n_atoms,):
            return None
        return np.asarray(species[:], dtype="int32") if species.dtype.kind in "iu" else None

    def _bonds(self) -> np.ndarray | None:
        """(b, 2) bonded atoms, or None where the file names none."""
        data = self._file.get("connectivity/bonds")
        if not isinstance(data, h5py.Dataset):
            return None
        bonds = np.asarray(data[()])
        pairs = bonds.ndim == 2 and bonds.shape[1] == 2 and bonds.dtype.kind in "iu"
        if not pairs or (bonds.size and not 0 <= bonds.min() <= bonds.max() < self.n_atoms):
            raise DataError(
                f"'connectivity/bonds' must be pairs of atoms 0 to {self.n_atoms - 1}, found "
                f"{bonds.dtype} {bonds.shape}"
                + (f" from {bonds.min()} to {bonds.max()}" if pairs else ""),
                where=str(self.path),
                remedy="the file is damaged: copy or make it again",
            )
        return bonds

    def _topology(self, pdb: str) -> mdtraj.Topology:
        """The topology of a PDB text, with the bonds of the file."""
        # here, because mdtraj takes a moment, and a simulation does without it
        from mlff_cli.data.trajectories.topology_file import topology_from_pdb

        found = topology_from_pdb(pdb, f"{self.path}, attribute 'topology_pdb'", self.bonds)
        if found.topology.n_atoms != self.n_atoms:
            raise DataError(
                f"topology and frames must agree, found {found.topology.n_atoms} atoms in "
                f"'topology_pdb' and {self.n_atoms} in the frames",
                where=str(self.path),
                remedy="make the file again",
            )
        self.notes += found.notes
        return found.topology

    def _read(self, rows: np.ndarray, positions: bool, forces: bool) -> Frames:
        edges = self._get("edges", rows)
        if edges is not None:
            box: np.ndarray | None = _matrix(np.asarray(edges, dtype="float64"))
        else:
            box = None if self._box is None else np.broadcast_to(self._box, (len(rows), 3, 3))
        temperature = self._get("temperature", rows)
        self._check_finite("temperature", rows, temperature)
        return Frames(
            rows,
            self._get("position", rows) if positions else None,
            self._get("force", rows) if forces else None,
            box,
            temperature,
            self._get("potential_energy", rows),
            None if self._times is None else self._times[rows],
        )

    def _get(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """Rows of one element in our units."""
        if name not in self._readers:
            return None
        values = self._readers[name](rows)
        if values.dtype.kind != "f":
            values = values.astype("float64")
        factor = self._scales[name]
        return values if factor == 1.0 else values * values.dtype.type(factor)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _matrix(edges: np.ndarray) -> np.ndarray:
    """Edge vectors (..., 3, 3) of a box that may be given by its three lengths."""
    if edges.shape[-2:] == (3, 3):
        return edges
    return edges[..., :, None] * np.eye(3)


def _plain(text: Any) -> str:
    """Text that can be written again: bytes that are no UTF-8 become question marks."""
    raw = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "replace")


def _parsed(value: Any, *, json_too: bool = True) -> Any:
    """An attribute as a plain value; JSON is decoded."""
    if isinstance(value, bytes | str):
        value = _plain(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if json_too and isinstance(value, str) and value[:1] in "[{":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
