"""Many coarse-grained sets, of which few are open: a process may hold some hundred files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.lazy_sequence import LazySequence

OPEN_SETS = 8


class FewSets(LazySequence[CGSet]):
    """Sets in the order of their paths; use it as a context manager.

    A set is good until `OPEN_SETS` others have been asked for, and is opened again when it is asked
    for then. Raises what `CGSet` raises.

    Args:
        paths: of the sets.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._opened: OrderedDict[int, CGSet] = OrderedDict()

    def __enter__(self) -> FewSets:
        return self

    def __exit__(self, *error: object) -> None:
        while self._opened:
            self._opened.popitem()[1].__exit__()

    def __len__(self) -> int:
        return len(self._paths)

    def _make(self, k: int) -> CGSet:
        if k not in self._opened:
            while len(self._opened) >= OPEN_SETS:
                self._opened.popitem(last=False)[1].__exit__()
            self._opened[k] = CGSet(self._paths[k])
        self._opened.move_to_end(k)
        return self._opened[k]
