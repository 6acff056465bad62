"""Batches made ahead of their use by threads, in order, and how long they were waited for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
AHEAD = 4  # items per thread that may wait for their use: one slow item is not noticed


class Ahead(Iterator[T], Generic[T]):
    """Iterates over function(first), ..., function(last - 1), computed ahead by threads.

    Nothing is computed before the first item is asked for. An error comes where its item would, and
    ends the iteration. Leave it early with `close`, or use it as a context manager.

    Args:
        function: makes an item; called by several threads at once.
        first: of the items.
        last: where they end.
        workers: number of threads; 0 makes each item when it is asked for.

    Attributes:
        waited: seconds spent waiting for items, the first one included.
    """

    def __init__(self, function: Callable[[int], T], first: int, last: int, workers: int) -> None:
        self._function = function
        self._next, self._last = first, last
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[T]] = deque()
        self.waited = 0.0

    def __next__(self) -> T:
        began = time.monotonic()
        try:
            if self._workers == 0:
                return self._make()
            self._submit()
            if not self._waiting:
                raise StopIteration
            return self._waiting.popleft().result()
        except BaseException:
            self.close()
            raise
        finally:
            self.waited += time.monotonic() - began

    def _make(self) -> T:
        if self._next >= self._last:
            raise StopIteration
        self._next += 1
        return self._function(self._next - 1)

    def _submit(self) -> None:
        """Keep the threads busy."""
        if self._pool is None and self._next < self._last:
            self._pool = ThreadPoolExecutor(self._workers, "batches")
        while self._pool and self._next < self._last and len(self._waiting) <= self._most:
            self._waiting.append(self._pool.submit(self._function, self._next))
            self._next += 1

    @property
    def _most(self) -> int:
        return AHEAD * self._workers

    def close(self) -> None:
        """End the iteration; what a thread is working on is finished first."""
        self._next = self._last
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def ahead(function: Callable[[int], T], first: int, last: int, workers: int) -> Ahead[T]:
    """See `Ahead`."""
    return Ahead(function, first, last, workers)
