"""Arrays inside an NPZ file, read by rows and written as streams: memory does not grow with frames.

A stored (uncompressed) member is mapped where it lies in the zip file, for the time of one read. A
compressed one, or one in Fortran order, is unpacked into a nameless temporary file when it is first
asked for, on the disk that it lies on. Pickled objects are never loaded.
"""

from __future__ import annotations

import math
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy

from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.errors import DataError

COPIED = 1 << 20  # bytes copied at a time
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError,
    tokenize.TokenError, SyntaxError,  # numpy parses headers as Python, in two ways
)  # fmt: skip


@dataclass(frozen=True)
class _Member:
    """One array: where its numbers begin, and in which file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    plain: bool  # stored and in C order, so that rows can be mapped
    offset: int
    handle: IO[bytes]


class NpzReader:
    """An opened NPZ file; use it as a context manager.

    Args:
        path: the file.

    Attributes:
        names: of the arrays.

    Raises:
        DataError: it is no NPZ file, is damaged, or holds pickled objects.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with ExitStack() as stack:
            try:
                self._handle = stack.enter_context(self.path.open("rb"))
                with self._damage():
                    self._zip = stack.enter_context(zipfile.ZipFile(self._handle))
                    infos = [i for i in self._zip.infolist() if i.filename.endswith(".npy")]
                    self._infos = {i.filename.removesuffix(".npy"): i for i in infos}
                    self._members = {name: self._header(name) for name in self._infos}
            except OSError as error:
                raise storage_error(error, self.path) from error
            self._stack = stack.pop_all()
        self.names: tuple[str, ...] = tuple(self._members)

    def __enter__(self) -> NpzReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextmanager
    def _damage(self, name: str | None = None) -> Iterator[None]:
        place = f"{self.path}, array {name!r}" if name else str(self.path)
        try:
            yield
        except _DAMAGED as error:
            raise DataError(
                f"not a readable NPZ file, or a damaged one: {error}",
                where=place,
                remedy="write or copy it again",
            ) from error

    def _header(self, name: str) -> _Member:
        info = self._infos[name]
        with self._damage(name), self._zip.open(info) as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            length = stream.tell()
        if dtype.hasobject:
            raise DataError(
                "arrays of plain values are read, this one holds pickled objects",
                where=f"{self.path}, array {name!r}",
                remedy="pickles can run code: save it again as numbers or text",
            )
        size = math.prod(shape) * dtype.itemsize
        if info.file_size != length + size:
            raise DataError(
                f"{size} bytes must follow the header of shape {shape} and type {dtype}, "
                f"found {info.file_size - length}",
                where=f"{self.path}, array {name!r}",
                remedy="write or copy the file again",
            )
        plain = info.compress_type == zipfile.ZIP_STORED and (not fortran or len(shape) < 2)
        start = self._data_start(info) + length if plain else 0
        return _Member(tuple(shape), dtype, plain, start, self._handle)

    def _data_start(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: behind its local header, whose extra field is its own."""
        self._handle.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", self._handle.read(4))
        return int(info.header_offset) + 30 + int(name_length) + int(extra_length)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array."""
        return self._members[name].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Type of an array."""
        return self._members[name].dtype

    def read(self, name: str) -> np.ndarray:
        """A whole array, checked against its checksum.

        Raises:
            DataError: it is damaged.
        """
        with self._damage(name), self._zip.open(self._infos[name]) as stream:
            return np.asarray(npy.read_array(stream, allow_pickle=False), order="C")

    def rows(self, name: str, rows: slice | np.ndarray) -> np.ndarray:
        """Some rows of an array: a copy.

        Raises:
            DataError: the array is damaged.
        """
        member = self._members[name]
        if not member.plain:
            member = self._members[name] = self._unpacked(name, member)
        if 0 in member.shape:
            return np.zeros(member.shape, member.dtype)[rows]
        with self._damage(name):  # mapped anew each time: what was read is given back at once
            mapped = np.memmap(
                cast(Any, member.handle), member.dtype, "r", member.offset, member.shape
            )
            return np.array(mapped[rows])

    def verify(self) -> None:
        """Compare every array with its checksum, which reading by rows does not look at.

        Raises:
            DataError: one is damaged.
        """
        for name, member in self._members.items():
            if member.handle is not self._handle:  # was compared when it was unpacked
                continue
            with self._damage(name), self._zip.open(self._infos[name]) as stream:
                while stream.read(COPIED):
                    pass

    def _unpacked(self, name: str, member: _Member) -> _Member:
        """The array in C order in a file of its own."""
        handle = self._stack.enter_context(_nameless(self.path.parent))
        with self._damage(name), self._zip.open(self._infos[name]) as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            if read(stream)[1]:
                handle.write(self.read(name).tobytes())
            else:
                shutil.copyfileobj(stream, handle, COPIED)
        handle.flush()
        return _Member(member.shape, member.dtype, True, 0, handle)

    def text(self, name: str) -> str:
        """A string.

        Raises:
            DataError: the array is not one string.
        """
        if self.shape(name) != () or self.dtype(name).kind not in "US":
            raise DataError(
                f"one string is needed, found shape {self.shape(name)} of {self.dtype(name)}",
                where=f"{self.path}, array {name!r}",
            )
        return str(self.read(name).astype(np.str_).item())


def _nameless(folder: Path) -> IO[bytes]:
    """A temporary file on the disk of a folder; the system's place for them is often memory."""
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError:  # a folder that is read only
        return tempfile.TemporaryFile()


class NpzWriter:
    """Arrays whose rows come bit by bit, zipped into an NPZ file when all are there.

    The same arrays give the same bytes: entries carry a fixed date.

    Args:
        path: the file; written by `close`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._spools: dict[str, tuple[IO[bytes], np.dtype[Any], tuple[int, ...], int]] = {}

    def __enter__(self) -> NpzWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def extend(self, name: str, values: np.ndarray) -> None:
        """Add rows to an array; they wait in a nameless file beside the output."""
        if name not in self._spools:
            made = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 - entered below
            self._stack.enter_context(made)
            self._spools[name] = (made, values.dtype, values.shape[1:], 0)
        spool, dtype, shape, n = self._spools[name]
        if (values.dtype, values.shape[1:]) != (dtype, shape):
            raise ValueError(f"{name}: {values.dtype} {values.shape[1:]} after {dtype} {shape}")
        spool.write(values.tobytes())
        self._spools[name] = (spool, dtype, shape, n + len(values))

    def close(self, whole: Iterable[tuple[str, np.ndarray]], compressed: tuple[str, ...]) -> None:
        """Write the file: streamed arrays first, then whole ones.

        Args:
            whole: (name, array) pairs, taken one by one.
            compressed: beginnings of the names of whole arrays worth compressing.
        """
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED) as archive:
            for name, (spool, dtype, shape, n) in self._spools.items():
                header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False}
                size = n * math.prod(shape) * dtype.itemsize
                with archive.open(_entry(name, size), "w") as stream:
                    npy.write_array_header_1_0(stream, {**header, "shape": (n, *shape)})
                    spool.seek(0)
                    shutil.copyfileobj(spool, stream, COPIED)
            for name, values in whole:
                entry = _entry(name, values.nbytes, compressed=name.startswith(compressed))
                with archive.open(entry, "w") as stream:
                    npy.write_array(stream, np.asarray(values, order="C"), allow_pickle=False)


def _entry(name: str, size: int, *, compressed: bool = False) -> zipfile.ZipInfo:
    """A zip entry of a fixed date and of permissions that do not depend on the user."""
    info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    info.create_system = 3
    info.external_attr = 0o644 << 16
    info.file_size = size + 4096  # at least: decides whether the entry needs 64-bit sizes
    return info
