"""Batches made ahead of their use by threads, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
AHEAD = 2  # items per thread that may wait for their use


def ahead(function: Callable[[int], T], first: int, last: int, workers: int) -> Iterator[T]:
    """Yield function(first), ..., function(last - 1), computed ahead by `workers` threads.

    With no workers each is computed when it is asked for. Errors come where their item would.
    """
    if workers == 0:
        yield from map(function, range(first, last))
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[T]] = []
        try:
            for i in range(first, last):
                waiting.append(pool.submit(function, i))
                if len(waiting) > AHEAD * workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
