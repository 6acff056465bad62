"""H5MD: trajectories with forces in HDF5 (de Buyl et al., Comput. Phys. Commun. 185, 1546, 2014).

    /particles/all/position/value            (T, N, 3)  nm
    /particles/all/force/value               (T, N, 3)  kJ mol-1 nm-1
    /particles/all/box/edges/value           (T, 3, 3)  nm, edge vectors in rows
    /particles/all/species                   (N,)       atomic numbers
    /connectivity/bonds                      (b, 2)     bonded atoms
    /observables/potential_energy/value      (T,)       kJ mol-1
    /observables/temperature/value           (T,)       K, of the replica's thermostat
    /observables/replica/value               (T,)       which replica was at that temperature
    /parameters/...                                     tables beside the frames

`step` and `time` (ps) of all elements are one array. Several temperatures lie in the same group,
ordered by step, then temperature. Root attributes say how the frames were made: `topology_pdb`,
`forcefield`, `constraints`, `forces`, `provenance`. This module reads, `h5md_writer` writes.

Other programs' files are read too: any one particles group, fixed boxes, other units of the table
below. Units that are not said are an error, as there is no default to trust.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.data.row_reader import ChunkCache, RowReader
from mlff_cli.data.trajectories.opening import Frames

if TYPE_CHECKING:
    import mdtraj

FORMAT = "mlff-h5md-1"
TABLES = "parameters"  # the group of arrays that are not frames
COUNTED = "frames counted from 0: the inputs tell no times"  # root attribute `time`
KCAL = 1 / 4.184  # kcal/mol in one kJ/mol


@dataclasses.dataclass(frozen=True)
class Element:
    """A time-dependent array of the file.

    Attributes:
        group: where it lies.
        dims: beside the frames; "N" is the number of atoms.
        dtype: stored type; None: as the writer is told.
        unit: as H5MD writes it, "" for none.
    """

    group: str
    dims: tuple[int | str, ...]
    dtype: str | None
    unit: str

    def shape(self, n_atoms: int) -> tuple[int, ...]:
        """Shape of one frame."""
        return tuple(n_atoms if d == "N" else int(d) for d in self.dims)

    def type(self, dtype: str) -> str:
        """Stored type, where positions and forces are `dtype`."""
        return self.dtype or dtype


ELEMENTS: Mapping[str, Element] = {
    "step": Element("", (), "int64", ""),
    "time": Element("", (), "float64", "ps"),
    "position": Element("particles/all/position", ("N", 3), None, "nm"),
    "force": Element("particles/all/force", ("N", 3), None, "kJ mol-1 nm-1"),
    "edges": Element("particles/all/box/edges", (3, 3), "float64", "nm"),
    "potential_energy": Element("observables/potential_energy", (), "float64", "kJ mol-1"),
    "temperature": Element("observables/temperature", (), "float64", "K"),
    "replica": Element("observables/replica", (), "int32", ""),
}
_LENGTHS = {"nm": 10.0, "Angstrom": 1.0, "A": 1.0, "angstrom": 1.0, "pm": 0.01}  # in angstrom
_TIMES = {"fs": 1e-3, "ps": 1.0, "ns": 1e3}  # in ps
_ENERGIES = {"kJ mol-1": KCAL, "kJ/mol": KCAL, "kcal mol-1": 1.0, "kcal/mol": 1.0}  # in kcal/mol
_FORCES = {
    **{f"{e} {length}-1": x / y for e, x in _ENERGIES.items() for length, y in _LENGTHS.items()},
    **{f"{e}/{length}": x / y for e, x in _ENERGIES.items() for length, y in _LENGTHS.items()},
}


class H5MDTrajectory:
    """An H5MD file, opened for reading (see `data.trajectories.opening.Trajectory`).

    Args:
        path: the file.

    Attributes:
        numbers: (N,) atomic numbers, or None.
        bonds: (b, 2) bonded atoms, or None.

    Raises:
        StorageError: the file is missing or not readable.
        DataError: it is not H5MD, is cut, says no units, or its arrays do not fit together.
    """

    format = "h5md"
    precision = 0.0

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._where = str(path)
        self.notes: list[str] = []
        if not self.path.is_file():
            raise StorageError("the file does not exist", where=str(path), remedy="check the path")
        try:
            self._file = h5py.File(self.path, "r", rdcc_nbytes=0)
        except OSError as error:
            if error.errno:
                raise storage_error(OSError(error.errno, os.strerror(error.errno)), path) from error
            reason = str(error) if self.path.stat().st_size else "it is empty"
            raise DataError(
                f"not a readable HDF5 file ({reason})",
                where=self._where,
                remedy="the file is damaged or cut: copy or make it again",
            ) from error
        try:
            self._open()
        except (OSError, RuntimeError, KeyError, AttributeError, UnicodeError) as error:
            self._file.close()
            raise DataError(
                f"the file is damaged: {error}", where=self._where, remedy="copy or make it again"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        self._group = self._particles()
        self._cache = ChunkCache()
        self._readers: dict[str, RowReader] = {}
        self._scales: dict[str, float] = {}
        position = self._value("position", _LENGTHS, ("N", 3))
        if position is None:
            raise DataError(
                "a trajectory needs positions, this file has none",
                where=self._where,
                remedy="H5MD keeps them as particles/<group>/position/value",
            )
        self.n_frames, self.n_atoms = int(position.shape[0]), int(position.shape[1])
        if not self.n_frames or not self.n_atoms:
            raise DataError(
                f"the file holds {self.n_frames} frames of {self.n_atoms} atoms",
                where=self._where,
                remedy="was it cut? make it again",
            )
        self.has_forces = self._value("force", _FORCES, ("N", 3)) is not None
        self._box = self._fixed_box()
        self._value("temperature", {"K": 1.0}, ())
        self._value("potential_energy", _ENERGIES, ())
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
                where=self._where,
                remedy="check the file's format",
            )
        if len(names) > 1 and "all" not in names:
            raise DataError(
                f"one particles group is needed, found {', '.join(names)}",
                where=self._where,
                remedy="keep one of them, or call it 'all'",
            )
        return groups["all" if "all" in names else names[0]]

    def _value(
        self, name: str, units: Mapping[str, float], dims: tuple[int | str, ...]
    ) -> h5py.Dataset | None:
        """An element's array, its shape and unit checked; None where the file has none."""
        parent = self._file.get("observables", {}) if dims == () else self._group
        parent = self._group.get("box", {}) if name == "edges" else parent
        data = parent.get(f"{name}/value") if isinstance(parent, h5py.Group) else None
        if data is None:
            return None
        n_frames, n_atoms = getattr(self, "n_frames", None), getattr(self, "n_atoms", None)
        wanted = (n_frames, *(n_atoms if d == "N" else d for d in dims))
        fits = len(data.shape) == len(wanted) and all(
            w is None or w == s for s, w in zip(data.shape, wanted, strict=True)
        )
        if not fits or data.dtype.kind not in "fiu":
            shown = tuple("any" if w is None else w for w in wanted)
            raise DataError(
                f"{name!r} must be numbers of shape {shown}, found {data.dtype} {data.shape}",
                where=self._where,
                remedy="every element needs the frames of the positions",
            )
        self._same_steps(name, data)
        self._scales[name] = self._scale(name, data, units)
        self._readers[name] = RowReader(data, self._cache)
        return data

    def _scale(self, name: str, data: h5py.Dataset, units: Mapping[str, float]) -> float:
        """What the array's unit is worth in ours."""
        unit = data.attrs.get("unit")
        unit = unit.decode() if isinstance(unit, bytes) else unit
        if unit not in units:
            raise DataError(
                f"{name!r} needs a unit that is known ({', '.join(units)}), "
                f"found {'none' if unit is None else repr(unit)}",
                where=self._where,
                remedy=f"set the attribute 'unit' of {data.name}, after converting if need be",
            )
        return units[unit]

    def _same_steps(self, name: str, data: h5py.Dataset) -> None:
        """Rows of two elements belong together only where their steps are the same."""
        mine, first = data.parent.get("step"), self._group.get("position/step")
        if mine is None or first is None or mine == first:
            return
        if mine.shape != first.shape or not np.array_equal(mine[()], first[()]):
            raise DataError(
                f"{name!r} is stored at other steps than the positions",
                where=self._where,
                remedy="write all elements at the same steps",
            )

    def _fixed_box(self) -> np.ndarray | None:
        """Edges (3, 3) in angstrom that hold for all frames; None: none, or one box per frame."""
        edges = self._group.get("box/edges")
        if isinstance(edges, h5py.Group):
            value = edges["value"]
            self._value("edges", _LENGTHS, (3,) if len(value.shape) == 2 else (3, 3))
            return None
        if edges is None:
            return None
        return _matrix(
            np.asarray(edges[()], dtype="float64") * self._scale("edges", edges, _LENGTHS)
        )

    def _all_times(self) -> np.ndarray | None:
        """(T,) ps of every frame; None where the file tells none that can be understood."""
        time = self._group.get("position/time")
        if not isinstance(time, h5py.Dataset) or self.facts.get("time") == COUNTED:
            return None
        unit = time.attrs.get("unit")
        scale = _TIMES.get(unit.decode() if isinstance(unit, bytes) else str(unit))
        if scale is None or time.dtype.kind not in "fiu":
            return None
        if time.shape == ():  # of one frame to the next
            start = time.attrs.get("offset", 0.0)
            known = isinstance(start, int | float | np.number)
            return (start + time[()] * np.arange(self.n_frames)) * scale if known else None
        fits = time.shape == (self.n_frames,)
        return np.asarray(time[()], dtype="float64") * scale if fits else None

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
                where=self._where,
                remedy="the file is damaged: copy or make it again",
            )
        return bonds

    def _topology(self, pdb: str) -> mdtraj.Topology:
        """The topology of a PDB text, with the bonds of the file."""
        from mdtraj.formats import PDBTrajectoryFile

        with tempfile.NamedTemporaryFile("w", suffix=".pdb") as stream:
            stream.write(pdb)
            stream.flush()
            try:
                with PDBTrajectoryFile(stream.name) as file:
                    topology = file.topology
            except Exception as error:  # its parser raises whatever it meets
                raise DataError(
                    f"the attribute 'topology_pdb' cannot be read: {error}", where=self._where
                ) from error
        if topology.n_atoms != self.n_atoms:
            raise DataError(
                f"topology and frames must agree, found {topology.n_atoms} atoms in "
                f"'topology_pdb' and {self.n_atoms} in the frames",
                where=self._where,
                remedy="make the file again",
            )
        if self.bonds is not None:
            known = {frozenset((a.index, b.index)) for a, b in topology.bonds}
            atoms = list(topology.atoms)
            for i, j in self.bonds.tolist():
                if frozenset((i, j)) not in known:
                    topology.add_bond(atoms[i], atoms[j])
        return topology

    def read(self, rows: np.ndarray, *, positions: bool = True, forces: bool = False) -> Frames:
        """Frames of ascending rows (see `Trajectory.read`).

        Raises:
            DataError: the file is damaged, a value is not finite, or it has no forces.
        """
        rows = np.asarray(rows, dtype="int64")
        if len(rows) and (rows.min() < 0 or rows.max() >= self.n_frames):
            raise IndexError(f"{self._where}: rows are 0 to {self.n_frames - 1}, found {rows}")
        if forces and not self.has_forces:
            raise DataError(
                "the file holds no forces",
                where=self._where,
                remedy="write them when the trajectory is made; `mlff sample` does",
            )
        edges = self._get("edges", rows)
        if edges is not None:
            box: np.ndarray | None = _matrix(np.asarray(edges, dtype="float64"))
        else:
            box = None if self._box is None else np.broadcast_to(self._box, (len(rows), 3, 3))
        return Frames(
            rows,
            self._get("position", rows) if positions else None,
            self._get("force", rows) if forces else None,
            box,
            self._get("temperature", rows),
            self._get("potential_energy", rows),
            None if self._times is None else self._times[rows],
        )

    def _get(self, name: str, rows: np.ndarray) -> np.ndarray | None:
        """Rows of one element in our units."""
        if name not in self._readers:
            return None
        try:
            values = self._readers[name](rows)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{name!r} cannot be read: {error}",
                where=self._where,
                remedy="the file is damaged or cut: copy or make it again",
            ) from error
        if values.dtype.kind != "f":
            values = values.astype("float64")
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            bad = int(np.argmin(finite))
            atom = (
                "" if values.ndim < 3 else f", atom {np.argwhere(~np.isfinite(values[bad]))[0, 0]}"
            )
            raise DataError(
                f"{name!r} must be finite, found NaN or infinity",
                where=f"{self._where}, frame {rows[bad]}{atom}",
                remedy="remove the frame or mend its source",
            )
        scale = self._scales[name]
        return values if scale == 1.0 else values * values.dtype.type(scale)

    def __enter__(self) -> H5MDTrajectory:
        return self

    def __exit__(self, *error: object) -> None:
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
