"""Where the time of a run goes, and when there is time for a figure."""

from __future__ import annotations

import time
from collections.abc import Callable

STEPS, DATA, VALIDATION, WRITING = "steps", "waiting for data", "validation", "logs and checkpoints"
FIGURE_SHARE = 0.01  # of the time, at most, is spent on drawing


class Stopwatch:
    """Where the time of this session went; what nobody claims is the steps'.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._start = clock()
        self._claimed = dict.fromkeys((DATA, VALIDATION, WRITING), 0.0)

    def claim(self, kind: str, since: float) -> None:
        """Book the time from `since` until now; kinds do not overlap."""
        self._claimed[kind] += self.clock() - since

    @property
    def elapsed(self) -> float:
        """Seconds since the session began."""
        return self.clock() - self._start

    def seconds(self) -> dict[str, float]:
        """Seconds by kind; together they are the time elapsed."""
        rest = self.elapsed - sum(self._claimed.values())
        return {STEPS: max(0.0, rest), **self._claimed}


class FigureClock:
    """Decides when to draw again, so that drawing stays below FIGURE_SHARE of the time.

    Args:
        seconds: between two drawings, at least.
        clock: tells the time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = clock() + seconds

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return self._clock() >= self._next

    def drawn(self, since: float) -> None:
        """Say that a drawing, begun at `since`, is done."""
        now = self._clock()
        self._next = now + max(self._seconds, (now - since) * (1 / FIGURE_SHARE - 1))
