"""A potential on several cores: each thread takes a part of the replicas.

The tensors of a step are small, and torch spends most of a step between its operations: threads
inside an operation gain little, threads with replicas of their own nearly all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from mlff_cli.core.workers import available_cores
from mlff_cli.physics.langevin import Potential, forget


class Threaded:
    """The same potential, part of the replicas in every thread; use it as a context manager.

    Energies and forces are those of the parts, so that their last bits depend on the number of
    threads and on nothing else.

    Args:
        potential: on the CPU; it must not hold Python's lock while it computes, as TorchScript
            does not.
        threads: parts, where there are as many replicas.
    """

    def __init__(self, potential: Potential, threads: int) -> None:
        self._potential, self._threads = potential, threads
        self._pool = ThreadPoolExecutor(threads, "replicas", initializer=_one_thread)

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Potential`."""
        parts = positions.chunk(min(self._threads, len(positions)))
        if len(parts) == 1:
            return self._potential(positions)
        found = list(self._pool.map(self._potential, parts))
        energies, forces = zip(*found, strict=True)
        return torch.cat(energies), torch.cat(forces)

    def settle(self) -> None:
        """Forget what the potential keeps between calls."""
        forget(self._potential)

    def __enter__(self) -> Threaded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()


def _one_thread() -> None:
    torch.set_num_threads(1)  # of operations that this thread calls


def threads_for(given: int | None) -> int:
    """Threads to use: those that were asked for, else OMP_NUM_THREADS, else all cores there are."""
    if given is not None:
        return given
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else available_cores()


@contextlib.contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Let operations of torch use n threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
