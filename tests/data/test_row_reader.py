"""Rows are h5py's own, in every layout; damage is an error."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mlff_cli.data.row_reader import ChunkCache, RowReader

N = 1000
LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (64, 7, 3)},
    "gzip": {"chunks": (64, 7, 3), "compression": "gzip"},
    "shuffle": {"chunks": (64, 7, 3), "shuffle": True},
    "shuffle and gzip": {"chunks": (64, 7, 3), "compression": "gzip", "shuffle": True},
    "checksums, by h5py": {"chunks": (64, 7, 3), "fletcher32": True},
    "lzf, by h5py": {"chunks": (64, 7, 3), "compression": "lzf"},
    "cut rows, by h5py": {"chunks": (64, 2, 3), "compression": "gzip"},
}


def write(path: Path, dtype: str = "f4", **layout: Any) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(N, 7, 3)) * 100
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values.astype(dtype), **layout)
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", ">f8", "i2", "<u8"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_those_of_the_array(tmp_path: Path, layout: str, dtype: str) -> None:
    values = write(tmp_path / "a.h5", dtype, **LAYOUTS[layout])
    rng = np.random.default_rng(1)
    with h5py.File(tmp_path / "a.h5") as file:
        reader = RowReader(file["x"], ChunkCache())
        for rows in (
            np.array([], dtype="int64"),
            np.array([N - 1]),
            np.arange(N),
            np.arange(60, 70),
            rng.integers(0, N, 200),
            np.array([5, 5, 4, 900, 5]),
        ):
            found = reader(rows)
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found, values[rows])


def test_parts_nobody_wrote_hold_the_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, layout in (("a", {}), ("b", {"chunks": (8, 2), "compression": "gzip"})):
            data = file.create_dataset(name, (100, 2), "f4", fillvalue=7.0, **layout)
            if name == "b":
                data[:4] = 1.0
    with h5py.File(tmp_path / "a.h5") as file:
        rows = np.array([1, 5, 99])
        assert (RowReader(file["a"], ChunkCache())(rows) == 7).all()
        found = RowReader(file["b"], ChunkCache())(rows)
        np.testing.assert_array_equal(found, file["b"][:][rows])


def test_threads_read_at_the_same_time(tmp_path: Path) -> None:
    values = write(tmp_path / "a.h5", **LAYOUTS["shuffle and gzip"])
    with h5py.File(tmp_path / "a.h5") as file, ThreadPoolExecutor(4) as pool:
        reader = RowReader(file["x"], ChunkCache(limit=20_000))  # three chunks of many
        picks = [np.random.default_rng(i).integers(0, N, 50) for i in range(40)]
        for rows, found in zip(picks, pool.map(reader, picks), strict=True):
            np.testing.assert_array_equal(found, values[rows])


def test_the_cache_keeps_what_was_used_last() -> None:
    cache = ChunkCache(limit=3000)
    chunks = [np.full(1000, i, dtype="uint8") for i in range(4)]
    for i in range(3):
        cache.put((None, i), chunks[i])
    assert cache.get((None, 0)) is chunks[0]
    cache.put((None, 3), chunks[3])
    assert [cache.get((None, i)) is not None for i in range(4)] == [True, False, True, True]


def test_a_file_that_was_cut_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        reader = RowReader(file["x"], ChunkCache())
        os.truncate(tmp_path / "a.h5", 10_000)
        with pytest.raises(OSError, match="ends too early"):
            reader(np.array([N - 1]))


def test_a_damaged_chunk_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", **LAYOUTS["gzip"])
    with h5py.File(tmp_path / "a.h5") as file:
        place = file["x"].id.get_chunk_info_by_coord((64, 0, 0)).byte_offset
    with (tmp_path / "a.h5").open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 100)
    with h5py.File(tmp_path / "a.h5") as file:
        reader = RowReader(file["x"], ChunkCache())
        assert reader(np.array([3])).shape == (1, 7, 3)
        with pytest.raises(OSError, match="cannot be decoded"):
            reader(np.array([70]))
