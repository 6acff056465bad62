"""Force maps of a set's molecules, kept in a nameless file until the set is written.

A set may hold thousands of molecules; their maps together need not fit in memory.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence

import numpy as np

from mlff_cli.data.beads.cg_beads import BeadMolecule
from mlff_cli.data.lazy_sequence import LazySequence


class MapStore(LazySequence[np.ndarray]):
    """Arrays in the order in which they were added; `contextlib.closing` frees them."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._places: list[int] = []

    def __len__(self) -> int:
        return len(self._places)

    def append(self, array: np.ndarray) -> None:
        """Keep an array."""
        self._places.append(self._file.seek(0, 2))
        np.save(self._file, array, allow_pickle=False)

    def _make(self, k: int) -> np.ndarray:
        self._file.seek(self._places[k])
        array: np.ndarray = np.load(self._file, allow_pickle=False)
        return array

    def close(self) -> None:
        """Free the file."""
        self._file.close()


class Projected(LazySequence[BeadMolecule]):
    """Molecules with their force maps, each made when it is asked for.

    Args:
        molecules: without force maps.
        maps: W (n, N) of every molecule.
    """

    def __init__(self, molecules: Sequence[BeadMolecule], maps: MapStore) -> None:
        self._molecules = molecules
        self._maps = maps

    def __len__(self) -> int:
        return len(self._molecules)

    def _make(self, k: int) -> BeadMolecule:
        return dataclasses.replace(self._molecules[k], force_map=self._maps[k])
