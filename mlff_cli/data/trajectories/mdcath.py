"""mdCATH (Mirarchi, Giorgino, De Fabritiis, Sci. Data 11, 1299, 2024): one HDF5 file per domain.

    /DOMAIN/z (N,)   pdbProteinAtoms   the N atoms, as a PDB file
    /DOMAIN/320/0/coords (T, N, 3) angstrom   forces (T, N, 3) kcal/mol/angstrom   box (3, 3) nm

Temperatures (320, 348, 379, 413, 450 K) hold replicas 0 to 4, with one frame per ns. A trajectory
is all of them, by temperature, then replica, or what a selection names: `320`, `320/1`, and in a
file of several domains `DOMAIN`, `DOMAIN/320`, `DOMAIN/320/1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.data.row_reader import ChunkCache, RowReader
from mlff_cli.data.trajectories.frames import Frames
from mlff_cli.data.trajectories.reader import DAMAGE, TrajectoryReader
from mlff_cli.data.trajectories.topology_file import topology_from_pdb
from mlff_cli.data.trajectories.units import NM, scale

PS_PER_FRAME = 1000.0
UNITS = {"coords": ("length", "Angstrom"), "forces": ("force", "kcal/mol/Angstrom")}


@dataclass(frozen=True)
class _Replica:
    """One run: where its frames begin among all, and how its arrays are read."""

    name: str
    temperature: float
    first: int
    n_frames: int
    readers: dict[str, RowReader]
    scales: dict[str, float]
    box: np.ndarray | None  # (3, 3) in angstrom


class MDCathTrajectory(TrajectoryReader):
    """An opened mdCATH file, or a part of it.

    Args:
        path: the file.
        selection: see the module.

    Raises:
        DataError: it is damaged, breaks the layout, or the selection names nothing.
    """

    format = "mdcath"
    no_forces = "take the data set's own files, which have them"

    def __init__(self, path: Path, selection: str | None = None) -> None:
        super().__init__(path)
        try:
            self._file = h5py.File(path, "r", rdcc_nbytes=0)
        except OSError as error:
            raise self.damaged(error) from error
        self._cache = ChunkCache()
        try:
            self._open(selection)
        except DAMAGE as error:
            self.close()
            raise self.damaged(error) from error
        except BaseException:
            self.close()
            raise

    def _open(self, selection: str | None) -> None:
        domain, parts = self._domain(selection)
        group = self._file[domain]
        self.numbers = np.asarray(group["z"][:], "int32").reshape(-1) if "z" in group else None
        self._replicas: list[_Replica] = []
        for temperature in sorted(filter(_is_temperature, group), key=float):
            for replica in sorted(group[temperature]):
                if parts in ([], [temperature], [temperature, replica]):
                    self._add(f"{domain}/{temperature}/{replica}", float(temperature))
        if not self._replicas:
            there = [f"{t}/{r}" for t in filter(_is_temperature, group) for r in group[t]]
            raise DataError(
                f"the selection {selection!r} names no frames" if selection else "no frames",
                where=str(self.path),
                remedy=f"this file has {', '.join(there)}" if there else "copy the file again",
            )
        self.n_frames = sum(r.n_frames for r in self._replicas)
        self.has_forces = all("forces" in r.readers for r in self._replicas)
        if not self.n_frames:
            raise self.no_frames()
        if "pdbProteinAtoms" in group:
            found = topology_from_pdb(_text(group["pdbProteinAtoms"][()]), str(self.path))
            if found.topology.n_atoms != self.n_atoms:
                raise DataError(
                    f"'pdbProteinAtoms' and 'coords' must have the same atoms, found "
                    f"{found.topology.n_atoms} and {self.n_atoms}",
                    where=f"{self.path}, {domain}",
                    remedy="copy the file again",
                )
            self.topology = found.topology
            self.notes += found.notes
        self.facts = {
            "domain": domain,
            "selection": selection,
            "replicas": {r.name: r.n_frames for r in self._replicas},
            "temperatures": sorted({r.temperature for r in self._replicas}),
        }

    def _domain(self, selection: str | None) -> tuple[str, list[str]]:
        """The domain's group, and what the selection says below it."""
        parts = [p for p in (selection or "").split("/") if p]
        domains = [n for n in self._file if isinstance(self._file.get(n), h5py.Group)]
        if parts and parts[0] in domains:
            return parts[0], parts[1:]
        if len(domains) != 1:
            raise DataError(
                f"one domain is needed, found {', '.join(domains) or 'none'}",
                where=str(self.path),
                remedy=f"choose one: {self.path}@{domains[0] if domains else 'DOMAIN'}",
            )
        return domains[0], parts

    def _add(self, name: str, temperature: float) -> None:
        """Take in one replica, its arrays checked."""
        group = self._file[name]
        where = f"{self.path}, {name}"
        readers, scales = {}, {}
        n_frames = 0
        for array, (quantity, unit) in UNITS.items():
            data = group.get(array)
            if not isinstance(data, h5py.Dataset):
                if array == "forces":
                    continue
                raise DataError("a replica needs 'coords'", where=where, remedy="copy it again")
            first = array == "coords"
            self.n_atoms = self.n_atoms or (data.shape[1] if data.ndim == 3 else 0)
            n_frames = data.shape[0] if first and data.ndim else n_frames
            if data.shape != (n_frames, self.n_atoms, 3) or data.dtype.kind != "f":
                raise DataError(
                    f"{array!r} must be {(n_frames, self.n_atoms, 3)} floats, "
                    f"found {data.shape} {data.dtype}",
                    where=where,
                    remedy="coordinates and forces need the same frames and atoms: copy it again",
                )
            told = data.attrs.get("unit", data.attrs.get("units"))
            if told is None:
                note = f"{self.path}: {array!r} names no unit, read as {unit}"
                self.notes += [note] if note not in self.notes else []
            scales[array] = scale(quantity, _text(unit if told is None else told), where)
            readers[array] = RowReader(data, self._cache)
        if self.numbers is not None and len(self.numbers) != self.n_atoms:
            raise DataError(
                f"'z' and 'coords' must have the same atoms, found {len(self.numbers)} and "
                f"{self.n_atoms}",
                where=where,
                remedy="copy the file again",
            )
        box = group.get("box")
        edges = np.asarray(box[()], "float64").reshape(3, 3) * NM if box is not None else None
        first_row = sum(r.n_frames for r in self._replicas)
        self._replicas.append(
            _Replica(name, temperature, first_row, n_frames, readers, scales, edges)
        )

    def _read(self, rows: np.ndarray, positions: bool, forces: bool) -> Frames:
        pieces: dict[str, list[np.ndarray]] = {
            "coords": [],
            "forces": [],
            "box": [],
            "T": [],
            "time": [],
        }
        for replica in self._replicas:
            here = rows[(rows >= replica.first) & (rows < replica.first + replica.n_frames)]
            for array, asked in (("coords", positions), ("forces", forces)):
                if asked:
                    values = replica.readers[array](here - replica.first)
                    factor = replica.scales[array]
                    pieces[array].append(values if factor == 1.0 else values * factor)
            edges = np.zeros((3, 3)) if replica.box is None else replica.box
            pieces["box"].append(np.broadcast_to(edges, (len(here), 3, 3)))
            pieces["T"].append(np.full(len(here), replica.temperature))
            pieces["time"].append((here - replica.first + 1) * PS_PER_FRAME)
        found: dict[str, Any] = {k: np.concatenate(v) if v else None for k, v in pieces.items()}
        box = found["box"] if found["box"] is not None and found["box"].any() else None
        return Frames(rows, found["coords"], found["forces"], box, found["T"], time=found["time"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _is_temperature(name: str) -> bool:
    try:
        return float(name) > 0
    except ValueError:
        return False


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
