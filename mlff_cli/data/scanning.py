"""Whole files looked at piece by piece, by some threads, in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from mlff_cli.core.fields import FIELDS
from mlff_cli.core.workers import available_cores
from mlff_cli.data.grouped_hdf5 import Group

PIECE_BYTES = 8 << 20  # read at a time; larger pieces gain nothing
MOST_THREADS = 8  # beyond these HDF5's lock and the disk are what is waited for

T = TypeVar("T")
R = TypeVar("R")


def pieces(group: Group, names: Iterable[str]) -> list[slice]:
    """Rows of a group in pieces of about `PIECE_BYTES` of some fields."""
    per_row = sum(field_bytes(group, name) for name in names)
    step = max(1, PIECE_BYTES // max(1, per_row))
    n = group.n_molecules
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def field_bytes(group: Group, name: str) -> int:
    """Memory of a field of one molecule; for names a guess."""
    field = FIELDS[name]
    width = 64 if field.dtype == "str" else np.dtype(field.dtype).itemsize
    return int(np.prod(field.shape(group.n_atoms))) * width


def in_threads(function: Callable[[T], R], tasks: list[T]) -> Iterator[R]:
    """Yield function(task) of every task, in order; after an error nothing new is begun."""
    workers = min(len(tasks), available_cores(), MOST_THREADS)
    if workers < 2:
        yield from map(function, tasks)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(function, tasks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
