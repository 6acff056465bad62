"""Rows of an HDF5 array in any order, beside HDF5's global lock.

| layout                                     | how a row is read                              |
|--------------------------------------------|------------------------------------------------|
| contiguous                                 | at its place in the file, by the system        |
| chunks of whole rows, plain, shuffle, gzip | chunks are decoded here, the last ones are kept |
| anything else                              | by h5py                                        |

h5py selects rows one by one, and holds a lock (and mostly Python's) while HDF5 decodes. Here the
system and zlib work without any lock, so that threads read at the same time. Decoding itself costs
the same; what saves it is to draw molecules that lie together (`sampling`, `block`).
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from collections import OrderedDict
from itertools import pairwise
from typing import Any

import h5py
import numpy as np

CACHE_BYTES = 64 << 20  # decoded chunks that are kept: 64 blocks of 256 molecules need about 20 MB
_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
_DECODED = ((), (_DEFLATE,), (_SHUFFLE,), (_SHUFFLE, _DEFLATE))  # filters, in order of writing


class ChunkCache:
    """The chunks that were used last, whatever array they belong to.

    Args:
        limit: bytes to keep.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._chunks: OrderedDict[tuple[object, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, int]) -> np.ndarray | None:
        """A chunk, if it is still here."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key)

    def put(self, key: tuple[object, int], chunk: np.ndarray) -> None:
        """Keep a chunk, and drop those that were not used for longest."""
        with self._lock:
            if key in self._chunks:  # another thread was faster
                return
            self._chunks[key] = chunk
            self._held += chunk.nbytes
            while self._held > self._limit and len(self._chunks) > 1:
                self._held -= self._chunks.popitem(last=False)[1].nbytes


class RowReader:
    """Reads rows of one array; safe to call from several threads.

    Args:
        data: the array.
        cache: for decoded chunks.
    """

    def __init__(self, data: h5py.Dataset, cache: ChunkCache) -> None:
        self._data = data
        self._handle = _handle(data)
        self._cache = cache
        self._dtype: np.dtype[Any] = data.dtype
        self._shape = tuple(data.shape[1:])
        self._row_bytes = self._dtype.itemsize * math.prod(self._shape)
        self._offset: int | None = None
        self._chunk_rows = 0
        plain = self._dtype.kind in "fiu" and self._row_bytes > 0 and data.shape[0] > 0
        if plain and data.chunks is None:
            whole = data.id.get_storage_size() == data.shape[0] * self._row_bytes
            self._offset = data.id.get_offset() if whole and self._handle is not None else None
        elif plain and tuple(data.chunks[1:]) == self._shape:
            self._filters = _filters(data)
            self._chunk_rows = data.chunks[0] if self._filters in _DECODED else 0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows (b,), repeats allowed, as an array (b, *shape) of the stored type.

        Raises:
            OSError: the file is damaged or was cut.
        """
        if (rows[1:] > rows[:-1]).all():
            return self._ascending(rows)
        unique, inverse = np.unique(rows, return_inverse=True)
        values: np.ndarray = self._ascending(unique)[inverse]
        return values

    def _ascending(self, rows: np.ndarray) -> np.ndarray:
        """Rows in ascending order, none of them twice."""
        if self._offset is not None:
            return self._at_offset(rows, self._offset)
        if self._chunk_rows:
            return self._from_chunks(rows)
        values: np.ndarray = self._data[rows]
        return values

    def _at_offset(self, rows: np.ndarray, offset: int) -> np.ndarray:
        """Sorted rows of a contiguous array; neighbours are read at once."""
        values = np.empty((len(rows), *self._shape), dtype=self._dtype)
        target = values.reshape(-1).view("uint8").data
        starts = [0, *(np.flatnonzero(rows[1:] - rows[:-1] != 1) + 1).tolist(), len(rows)]
        for first, last in pairwise(starts):
            piece = target[first * self._row_bytes : last * self._row_bytes]
            place = offset + int(rows[first]) * self._row_bytes if last > first else 0
            while piece:
                read = os.preadv(self._handle, [piece], place)  # type: ignore[arg-type]
                if not read:
                    raise OSError("the file ends too early")
                piece, place = piece[read:], place + read
        return values

    def _from_chunks(self, rows: np.ndarray) -> np.ndarray:
        """Sorted rows of a chunked array."""
        values = np.empty((len(rows), *self._shape), dtype=self._dtype)
        chunks = rows // self._chunk_rows
        for c in np.unique(chunks).tolist():
            here = slice(*np.searchsorted(chunks, [c, c + 1]))
            values[here] = self._chunk(c)[rows[here] - c * self._chunk_rows]
        return values

    def _chunk(self, c: int) -> np.ndarray:
        key = (self, c)
        chunk = self._cache.get(key)
        if chunk is None:
            chunk = self._decode(c)
            self._cache.put(key, chunk)
        return chunk

    def _decode(self, c: int) -> np.ndarray:
        """Chunk c, decoded; its rows beyond the array's end mean nothing."""
        first = c * self._chunk_rows
        try:
            skipped, raw = self._data.id.read_direct_chunk((first, *[0] * len(self._shape)))
        except (OSError, RuntimeError, ValueError, MemoryError):
            # damaged; or never written, and then h5py asks for memory of a size that is no size
            values: np.ndarray = self._data[first : first + self._chunk_rows]
            return values
        data: bytes = raw
        for i, kind in reversed(list(enumerate(self._filters))):
            if skipped >> i & 1:
                continue
            try:
                data = self._inflate(data) if kind == _DEFLATE else self._unshuffle(data)
            except (zlib.error, ValueError) as error:
                raise OSError(f"a chunk cannot be decoded: {error}") from error
        return np.frombuffer(data, dtype=self._dtype).reshape(-1, *self._shape)

    def _inflate(self, data: bytes) -> bytes:
        return zlib.decompress(data, bufsize=self._chunk_rows * self._row_bytes)

    def _unshuffle(self, data: bytes) -> bytes:
        """Undo HDF5's shuffle, which puts the first bytes of all values first."""
        by_byte = np.frombuffer(data, dtype="uint8").reshape(self._dtype.itemsize, -1)
        return by_byte.T.tobytes()


def _handle(data: h5py.Dataset) -> int | None:
    """Descriptor of an array's file, or None where it is no plain file (a family of files)."""
    file = data.file.id
    if file.get_access_plist().get_driver() != h5py.h5fd.SEC2:
        return None
    handle: int = file.get_vfd_handle()
    return handle


def _filters(data: h5py.Dataset) -> tuple[int, ...]:
    """Identifiers of an array's filters, in the order of writing."""
    plist = data.id.get_create_plist()
    return tuple(plist.get_filter(i)[0] for i in range(plist.get_nfilters()))
