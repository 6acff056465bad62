"""Writes H5MD (see `h5md_layout`) so that a killed run loses nothing but its last frames.

Every array has its final size from the start and lies in one piece: a frame is written to its place
by plain system calls, in any order, twice if need be, and the library's own structures are never
touched again. So the file is always readable, continues after a kill -9, and ends with the same
bytes however often it was interrupted. The space is reserved at the start: a disk that is too
small is an error before the work, not after it.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlff_cli.core.artifacts import atomic_path, storage_error, version
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.data.trajectories.h5md_layout import ELEMENTS, FORMAT, TABLES

SLACK = 1 << 16  # bytes of the file beside arrays and texts


def create_h5md(
    path: Path | str,
    elements: Iterable[str],
    n_frames: int,
    numbers: np.ndarray,
    *,
    bonds: np.ndarray | None = None,
    attrs: Mapping[str, Any] | None = None,
    tables: Mapping[str, np.ndarray] | None = None,
    dtype: str = "float32",
) -> None:
    """Make a file with room for every frame; what is not written later reads as zeros.

    Args:
        path: the file; replaced if it exists (`atomic_path` is the caller's).
        elements: names of `h5md_layout.ELEMENTS` beside step and time, which are always there.
        n_frames: frames there will be.
        numbers: (N,) atomic numbers.
        bonds: (b, 2) bonded atoms.
        attrs: root attributes: plain values; lists and dicts become JSON.
        tables: arrays beside the frames, by name below `/parameters`; their values may be replaced.
        dtype: of positions and forces.

    Raises:
        DataError: no frames or no atoms.
        StorageError: the disk is full, or the folder is not writable.
    """
    names = ("step", "time", *(n for n in ELEMENTS if n in set(elements) - {"step", "time"}))
    n_atoms = len(numbers)
    if n_frames < 1 or n_atoms < 1:
        raise DataError(
            f"a trajectory needs frames and atoms, found {n_frames} frames of {n_atoms} atoms",
            where=str(path),
        )
    plain = {k: _plain(v) for k, v in {"format": FORMAT, **(attrs or {})}.items()}
    shapes = {n: (n_frames, *ELEMENTS[n].shape(n_atoms)) for n in names}
    size = sum(np.dtype(ELEMENTS[n].type(dtype)).itemsize * int(np.prod(shapes[n])) for n in names)
    size += sum(len(v.encode()) for v in plain.values() if isinstance(v, str))
    try:
        _reserve(Path(path), size + SLACK)
        with h5py.File(path, "w") as file:
            for key, value in plain.items():
                file.attrs[key] = value
            _describe(file, numbers, bonds)
            for name in names[2:]:
                _element(file, name, shapes, dtype)
            if not names[2:]:
                raise DataError("a trajectory needs at least positions", where=str(path))
            for name, table in (tables or {}).items():
                file[f"{TABLES}/{name}"] = table
        _reserve(Path(path), Path(path).stat().st_size)
    except (OSError, RuntimeError) as error:
        raise _disk_error(error, path) from error


class H5MDWriter:
    """Writes frames into a file of `create_h5md`; use it as a context manager.

    Args:
        path: the file.

    Raises:
        DataError: it is not such a file.
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._places: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        try:
            with h5py.File(path, "r") as file:
                groups = {n: e.group for n, e in ELEMENTS.items() if n not in ("step", "time")}
                found = {n: file[f"{g}/value"] for n, g in groups.items() if f"{g}/value" in file}
                first = groups[next(iter(found))]
                found |= {n: file[f"{first}/{n}"] for n in ("step", "time")}
                for name, data in found.items():
                    self._places[name] = (data.id.get_offset(), data.dtype, data.shape)
                if TABLES in file:
                    file[TABLES].visititems(self._table)
            self._handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (OSError, RuntimeError, KeyError, StopIteration) as error:
            if isinstance(error, OSError) and error.errno:
                raise storage_error(error, path) from error
            raise DataError(f"the file is damaged: {error}", where=str(path)) from error

    def _table(self, name: str, data: h5py.Dataset | h5py.Group) -> None:
        if isinstance(data, h5py.Dataset):
            self._places[f"{TABLES}/{name}"] = (data.id.get_offset(), data.dtype, data.shape)

    def write(self, row: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write consecutive frames, in the file's units.

        Args:
            row: of the first frame.
            arrays: element -> (T, *shape), step and time included.

        Raises:
            DataError: a shape is not the file's, or a value is not finite.
            StorageError: the disk is full.
        """
        for name, values in arrays.items():
            offset, dtype, shape = self._places[name]
            found = np.ascontiguousarray(values, dtype=dtype)
            if found.shape[1:] != shape[1:] or row + len(found) > shape[0]:
                raise DataError(
                    f"{name!r} must have shape {shape} in all, found {found.shape} at row {row}",
                    where=str(self.path),
                )
            if not np.isfinite(found).all():
                bad = row + int(np.argwhere(~np.isfinite(found))[0, 0])
                raise DataError(
                    f"{name!r} must be finite, found NaN or infinity",
                    where=f"{self.path}, frame {bad}",
                    remedy="remove the frame, or mend its source",
                )
            self._put(found, offset + row * dtype.itemsize * int(np.prod(shape[1:])))

    def has(self, name: str) -> bool:
        """Whether the file has an element."""
        return name in self._places

    def write_table(self, name: str, values: np.ndarray) -> None:
        """Replace the values of a table.

        Raises:
            StorageError: the disk is full.
        """
        offset, dtype, shape = self._places[f"{TABLES}/{name}"]
        self._put(np.ascontiguousarray(np.broadcast_to(values, shape), dtype=dtype), offset)

    def _put(self, values: np.ndarray, place: int) -> None:
        rest = values.reshape(-1).view("uint8").data
        try:
            while rest:
                written = os.pwrite(self._handle, rest, place)
                rest, place = rest[written:], place + written
        except OSError as error:
            raise storage_error(error, self.path) from error

    def sync(self) -> None:
        """Wait until what was written is on the disk.

        Raises:
            StorageError: the disk failed.
        """
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def __enter__(self) -> H5MDWriter:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._handle)


def write_h5md(
    path: Path | str,
    elements: Iterable[str],
    n_frames: int,
    numbers: np.ndarray,
    frames: Iterable[Mapping[str, np.ndarray]],
    *,
    bonds: np.ndarray | None = None,
    attrs: Mapping[str, Any] | None = None,
    tables: Mapping[str, np.ndarray] | None = None,
    dtype: str = "float32",
    force: bool = False,
) -> None:
    """Write a whole trajectory as a stream; the file appears when it is complete.

    Args:
        path: the output.
        elements: see `create_h5md`, as are the arguments not named here.
        n_frames: frames that `frames` will give.
        numbers: (N,) atomic numbers.
        frames: pieces of the trajectory, element -> (T, *shape) in the file's units.
        bonds: (b, 2) bonded atoms.
        attrs: root attributes.
        tables: arrays beside the frames.
        dtype: of positions and forces.
        force: replace an existing file.

    Raises:
        UsageError: the output exists and `force` is off.
        DataError: the frames are more or fewer than promised, or malformed.
        StorageError: the disk is full.
    """
    with atomic_path(path, force=force) as temporary:
        create_h5md(
            temporary,
            elements,
            n_frames,
            numbers,
            bonds=bonds,
            attrs=attrs,
            tables=tables,
            dtype=dtype,
        )
        row = 0
        with H5MDWriter(temporary) as writer:
            for piece in frames:
                writer.write(row, piece)
                row += len(next(iter(piece.values())))
        if row != n_frames:
            raise DataError(f"{n_frames} frames were promised, found {row}", where=str(path))


def _describe(file: h5py.File, numbers: np.ndarray, bonds: np.ndarray | None) -> None:
    """What the standard wants beside the frames."""
    h5md = file.create_group("h5md")
    h5md.attrs["version"] = np.array([1, 1], dtype="int32")
    h5md.create_group("author").attrs["name"] = "unknown"
    creator = h5md.create_group("creator")
    creator.attrs["name"], creator.attrs["version"] = "mlff", version("mlff-cli")
    units = h5md.create_group("modules/units")
    units.attrs["version"], units.attrs["system"] = np.array([1, 0], dtype="int32"), "SI"
    particles = file.create_group("particles/all")
    particles["species"] = np.asarray(numbers, dtype="int32")
    box = particles.create_group("box")
    box.attrs["dimension"] = 3
    box.attrs["boundary"] = ["none"] * 3
    if bonds is not None:
        bonded = file.create_dataset("connectivity/bonds", data=np.asarray(bonds, dtype="int32"))
        bonded.attrs["particles_group"] = particles.ref


def _element(file: h5py.File, name: str, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> None:
    element = ELEMENTS[name]
    group = file.create_group(element.group)
    first = file.get("particles/all/position")
    for own, key in ((name, "value"), ("step", "step"), ("time", "time")):
        if key != "value" and first is not None and first != group:
            group[key] = first[key]  # a hard link: one array serves all elements
            continue
        data = _contiguous(group, key, shapes[own], ELEMENTS[own].type(dtype))
        if ELEMENTS[own].unit:
            data.attrs["unit"] = ELEMENTS[own].unit
    if name == "edges":
        file["particles/all/box"].attrs["boundary"] = ["periodic"] * 3


def _contiguous(group: h5py.Group, key: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
    """An array whose place in the file is fixed now."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)
    h5py.h5d.create(
        group.id,
        key.encode(),
        h5py.h5t.py_create(np.dtype(dtype), logical=True),
        h5py.h5s.create_simple(shape),
        settings,
    )
    return group[key]


def _plain(value: Any) -> Any:
    """A value as an attribute."""
    return value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)


def _reserve(path: Path, size: int) -> None:
    """Take `size` bytes of the disk."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # some file systems cannot
            raise
    except OverflowError as error:  # more than the system can count
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path)) from error
    finally:
        os.close(handle)


def _disk_error(error: Exception, path: Path | str) -> StorageError:
    """h5py tells a full disk in its own words, and not always as an OSError."""
    told = re.search(r"errno = (\d+)", str(error))
    number = int(told[1]) if told else getattr(error, "errno", None)
    reason = OSError(number, os.strerror(number)) if number else OSError(str(error))
    return storage_error(reason, path)
