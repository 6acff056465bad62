"""What the tests of crews let workers do; a module of its own, so that workers can import it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.errors import DataError


def power(exponent: int) -> Callable[[int], int]:
    return lambda x: x**exponent


def gram(seed: int) -> Callable[[int, int], np.ndarray]:
    """X^T X of some rows of numbers that are the same in every process."""

    def work(start: int, stop: int) -> np.ndarray:
        rows = [np.random.default_rng((seed, k)).normal(size=40) for k in range(start, stop)]
        x = np.array(rows)
        return np.asarray(x.T @ x)

    return work


def slow_first(seconds: float) -> Callable[[int], int]:
    """The first task takes long, the others no time."""

    def work(k: int) -> int:
        time.sleep(0.0 if k else seconds)
        return k

    return work


def fails_from(first: int) -> Callable[[int], int]:
    def work(k: int) -> int:
        if k >= first:
            time.sleep(0.05 if k == first else 0.0)  # later ones fail sooner
            raise DataError(f"task {k} is bad", where=f"file, frame {k}", remedy="mend it")
        return k

    return work


def fails_at_once() -> Callable[[], None]:
    raise DataError("nothing can be prepared", where="file")


def counts_calls() -> Callable[[float], tuple[int, int]]:
    """Process, and how many times the function was made there before."""
    made = int(os.environ.get("MLFF_TEST_MADE", "0"))
    os.environ["MLFF_TEST_MADE"] = str(made + 1)

    def work(seconds: float) -> tuple[int, int]:
        time.sleep(seconds)
        return os.getpid(), made

    return work


def looks_around() -> Callable[[int], tuple[int, int]]:
    """Most tasks at a time in this process, and most threads of a numerical library."""
    import threadpoolctl  # of the extra 'cluster'

    inside: list[int] = []

    def work(k: int) -> tuple[int, int]:
        inside.append(k)
        time.sleep(0.02)
        most = len(inside)
        threads = max(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        inside.remove(k)
        return most, threads

    return work


def dies_once(folder: Path) -> Callable[[int], int]:
    """Task 3 kills its process the first time that it runs."""

    def work(k: int) -> int:
        mark = folder / "died"
        if k == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return k

    return work


def dies_always() -> Callable[[int], int]:
    def work(k: int) -> int:
        if k == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return k

    return work


def sleeps(folder: Path) -> Callable[[int, float], int]:
    """Leaves its process's number behind, then sleeps."""

    def work(k: int, seconds: float) -> int:
        (folder / str(k)).write_text(str(os.getpid()))
        time.sleep(seconds)
        return k

    return work


def never() -> Callable[..., Any]:
    threading.Event().wait()
    raise AssertionError
