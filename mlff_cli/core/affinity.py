"""Keeping threads that take turns on one core.

An engine that hands every kernel to its one worker thread wakes it some hundred thousand times a
second; between two cores each of these costs more than the kernel. Linux only: elsewhere nothing is
pinned and nothing changes.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

LOOK = 0.1  # s over which the load of the cores is compared
ALIKE = 0.2  # idle shares this close are the same


def quiet_cores(n: int) -> list[int]:
    """Cores for `n` pairs of threads, among those that this process may use, the idlest first.

    Cores that are about equally idle come in random order, so that runs that start together do not
    all choose the same. Fewer cores than `n` are given out in turn; empty where the system does not
    tell.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))
    before = _idle_ticks()
    time.sleep(LOOK)
    after = _idle_ticks()
    ticks = LOOK * os.sysconf("SC_CLK_TCK")
    free = {c: (after.get(c, 0) - before.get(c, 0)) / ticks for c in allowed}
    dice = random.Random()  # never a run's own: which core computes changes no number
    ordered = sorted(allowed, key=lambda c: (-round(free[c] / ALIKE), dice.random()))
    return [ordered[k % len(ordered)] for k in range(n)]


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep the calling thread, and threads that it starts, on one core; None changes nothing."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except OSError:  # the core went offline, or was taken from this process
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def _idle_ticks() -> dict[int, int]:
    """Clock ticks that every core was idle since the start; empty where the system hides them."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    cores = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
    return {int(words[0][3:]): int(words[4]) for words in cores if len(words) > 4}
