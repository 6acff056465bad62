"""Trajectories of one molecule, whatever their file format.

Readers stand in modules of their own, are chosen by the file's first bytes (`open_trajectory`), and
are imported only then. What they give is in `data.trajectories.frames`.

Of a file with several runs (mdCATH) a part is named behind an `@`: `FILE.h5@320`,
`FILE.h5@320/1`. The sign means nothing to shells and make; a file whose own name has one is found
first.
"""

from __future__ import annotations

import importlib
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mlff_cli.core.artifacts import sha256, storage_error
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.data.trajectories.frames import CHUNK_BYTES, Frames, Trajectory, chunks

if TYPE_CHECKING:
    import mdtraj

__all__ = [
    "CHUNK_BYTES",
    "Frames",
    "Trajectory",
    "chunks",
    "holds_beads",
    "open_trajectory",
    "source_digest",
    "split_selection",
    "trajectory_format",
]

READERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {  # format -> module and class
        "h5md": ("mlff_cli.data.trajectories.h5md", "H5MDTrajectory"),
        "npz": ("mlff_cli.data.trajectories.npz", "NPZTrajectory"),
        "mdcath": ("mlff_cli.data.trajectories.mdcath", "MDCathTrajectory"),
        "trr": ("mlff_cli.data.trajectories.trr", "TRRTrajectory"),
        "dcd": ("mlff_cli.data.trajectories.dcd", "DCDTrajectory"),
        "xtc": ("mlff_cli.data.trajectories.xtc", "XTCTrajectory"),
    }
)
BEADS = frozenset({"species.npy", "mapping.npy", "mapping_0.npy"})
TRR_MAGIC, XTC_MAGICS = 1993, (1995, 2023)  # 2023: GROMACS for more than 2^28 atoms


def open_trajectory(
    path: Path | str,
    top: Path | str | mdtraj.Topology | None = None,
    *,
    of_beads: bool = False,
    either: bool = False,
) -> Trajectory:
    """Open a trajectory, whatever its format; use the result as a context manager.

    Args:
        path: the file; of mdCATH a part may be chosen as `FILE.h5@320` or `FILE.h5@320/1`.
        top: a file with the topology, or the topology; the trajectory must have its atoms.
        of_beads: frames hold beads, or either: lengths of bonds and sizes of forces, which are
            judged by those of atoms, are not looked at.
        either: frames hold beads where the file says so (`holds_beads`), else atoms, which are
            looked at.

    Raises:
        StorageError: a file does not exist or cannot be read.
        DataError: it is no trajectory, is damaged or has no frames, the topology is another
            molecule's, or it holds beads where atoms are needed.
        MissingDependencyError: its format needs a package that is not installed.
    """
    # here, because mdtraj takes a moment and other users of this module do without it
    from mlff_cli.data.trajectories.agreement import check

    file, selection = split_selection(path)
    kind = trajectory_format(file)
    if kind is None:
        raise _not_a_trajectory(file)
    if selection is not None and kind != "mdcath":
        raise DataError(
            f"only a part of mdCATH files can be chosen, this is {kind}, found {'@' + selection!r}",
            where=str(file),
            remedy="choose frames with --temperature, --stride or --frames",
        )
    module, name = READERS[kind]
    make = getattr(importlib.import_module(module), name)
    trajectory: Trajectory = make(file) if selection is None else make(file, selection)
    try:
        beads = holds_beads(trajectory)
        if beads and not (of_beads or either):
            raise DataError(
                "a trajectory of atoms is needed, this one holds beads",
                where=str(file),
                remedy="pass the trajectory that the beads were made from",
            )
        if beads and top is not None:
            raise DataError(
                f"the trajectory names its own {trajectory.n_atoms} beads, a topology of atoms "
                "does not fit",
                where=str(file),
                remedy="leave out --top",
            )
        if not (of_beads or beads):
            check(trajectory, top)
    except BaseException:
        trajectory.__exit__(None, None, None)
        raise
    return trajectory


def holds_beads(trajectory: Trajectory) -> bool:
    """Whether a file says that its frames hold beads: a type for each, as `mlff simulate` does."""
    beads = trajectory.facts.get("beads")
    return isinstance(beads, list) and len(beads) == trajectory.n_atoms


def split_selection(path: Path | str) -> tuple[Path, str | None]:
    """The file of `FILE@SELECTION`, and the selection.

    Raises:
        StorageError: there is no such file.
    """
    text = str(path)
    if Path(text).exists():
        return Path(text), None
    for i in [i for i, c in enumerate(text) if c == "@"]:
        if Path(text[:i]).is_file():
            return Path(text[:i]), text[i + 1 :]
    remedy = "check the path"
    if Path(text.partition(":")[0]).is_file():
        remedy = f"a part of a file is chosen with @: {text.replace(':', '@', 1)}"
    raise StorageError("the file does not exist", where=text, remedy=remedy)


def source_digest(path: Path | str) -> str:
    """SHA-256 of a trajectory's file; with a selection, `@` and the selection behind it."""
    file, selection = split_selection(path)
    return sha256(file) + (f"@{selection}" if selection is not None else "")


def trajectory_format(path: Path | str) -> str | None:
    """Format of a trajectory by its content, None where the file is none.

    Raises:
        StorageError: the file cannot be read.
    """
    path = split_selection(path)[0]
    if path.exists() and not path.is_file():
        return None  # opening a pipe would wait for its writer
    try:
        with path.open("rb") as stream:
            head = stream.read(92)
    except OSError as error:
        raise storage_error(error, path) from error
    number = struct.unpack(">i", head[:4])[0] if len(head) >= 4 else 0
    if number == TRR_MAGIC:
        return "trr"
    if number in XTC_MAGICS:
        return "xtc"
    if head[4:8] == b"CORD" or head[8:12] == b"CORD":  # 4 or 8 bytes of a record's length
        return "dcd"
    if head[:4] == b"PK\x03\x04":
        return _npz_format(path)
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return _hdf5_format(path)
    return None


def _npz_format(path: Path) -> str | None:
    """Trajectories are all archives of arrays that hold no beads (species, a mapping)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return "npz" if path.suffix == ".npz" else None  # its reader says what is wrong
    arrays = all(name.endswith(".npy") for name in names)  # torch's archives are zip files too
    return "npz" if arrays and not names & BEADS else None


def _hdf5_format(path: Path) -> str | None:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "particles" in file or "h5md" in file:
                return "h5md"
            layout = file.attrs.get("layout", "")
            if isinstance(layout, str | bytes) and str(layout).find("mdcath") >= 0:
                return "mdcath"
            groups = [g for g in map(file.get, file) if isinstance(g, h5py.Group)]
            return "mdcath" if any("pdbProteinAtoms" in g or "z" in g for g in groups) else None
    except (OSError, RuntimeError, KeyError) as error:
        raise DataError(
            f"the HDF5 file is damaged or cut short ({error})",
            where=str(path),
            remedy="copy or make it again",
        ) from error


def _not_a_trajectory(path: Path) -> DataError:
    if not path.is_file():
        return DataError(
            "a file is needed, this is a folder or device", where=str(path), remedy="check the path"
        )
    if path.stat().st_size == 0:
        return DataError("the file is empty", where=str(path), remedy="copy or make it again")
    known = "H5MD, NPZ {R,F,Z}, mdCATH HDF5, TRR, DCD, XTC"
    return DataError(
        f"not a trajectory that mlff reads ({known}), by its first bytes",
        where=str(path),
        remedy="check the path; a file cut at its beginning must be copied again; a coarse-grained "
        "set is read by `mlff project-forces` and `mlff fit-prior`",
    )
