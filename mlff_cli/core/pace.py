"""How much work to hand out at a time, where the result does not depend on it.

A cluster takes some milliseconds for every task, as long as a cheap piece of work itself. A task of
a second makes up for that, and costs no more than a second where one is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from mlff_cli.core.tasks import Key

TASK_SECONDS = 1.0

Work = TypeVar("Work")


class Pace:
    """Cuts independent pieces of work into tasks of about `TASK_SECONDS`, beginning with one each.

    Args:
        most: pieces of one task.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 1

    def learn(self, seconds: float) -> None:
        """Take note of how long a piece took."""
        self._size = min(self._most, max(1, int(TASK_SECONDS / max(seconds, 1e-9))))

    def tasks(
        self, pieces: Iterable[tuple[Key, Work]]
    ) -> Iterator[tuple[tuple[Key, ...], tuple[list[Work]]]]:
        """Keys of some pieces, and a task's only argument: these pieces."""
        rest = iter(pieces)
        while part := list(islice(rest, self._size)):
            yield tuple(key for key, _ in part), ([piece for _, piece in part],)
