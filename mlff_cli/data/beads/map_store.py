"""Force maps of a set's molecules, kept in a file beside the output until the set is written.

A set may hold thousands of molecules; their maps together need not fit in memory. Workers read a
map from the file when they come to its molecule: sent along with every piece of work, a map of 500
beads and 8000 atoms would be as large as the forces that it is applied to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mlff_cli.core.artifacts import scratch_path, storage_error
from mlff_cli.core.errors import UsageError
from mlff_cli.data.beads.cg_beads import BeadMolecule
from mlff_cli.data.lazy_sequence import LazySequence


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a map stands.

    Attributes:
        path: absolute.
        offset: in bytes.
    """

    path: str
    offset: int

    def read(self) -> np.ndarray:
        """The map.

        Raises:
            UsageError: this process does not see the file.
            StorageError: it cannot be read.
        """
        try:
            with Path(self.path).open("rb") as stream:
                stream.seek(self.offset)
                array: np.ndarray = np.load(stream, allow_pickle=False)
        except FileNotFoundError as error:
            raise UsageError(
                "a worker does not see the force maps, which are kept beside the output",
                where=self.path,
                remedy="write the output into a folder that all workers see",
            ) from error
        except OSError as error:
            raise storage_error(error, self.path) from error
        return array


class MapStore(LazySequence[np.ndarray]):
    """Arrays in the order in which they were added; see `map_store`.

    Args:
        path: a file that does not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.places: list[Place] = []

    def __len__(self) -> int:
        return len(self.places)

    def append(self, array: np.ndarray) -> None:
        """Keep an array.

        Raises:
            StorageError: the disk is full.
        """
        try:
            with self._path.open("ab") as stream:
                offset = stream.tell()
                np.save(stream, array, allow_pickle=False)
        except OSError as error:
            raise storage_error(error, self._path) from error
        self.places.append(Place(str(self._path), offset))

    def _make(self, k: int) -> np.ndarray:
        return self.places[k].read()


@contextmanager
def map_store(output: Path | str) -> Iterator[MapStore]:
    """A store in a hidden file beside an output, removed when the block ends."""
    with scratch_path(output) as path:
        yield MapStore(path)


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
