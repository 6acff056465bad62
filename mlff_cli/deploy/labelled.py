"""Labelled molecules to evaluate on, in batches of one size, from any file that holds labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.data.grouped_hdf5 import GroupedHDF5, label_names
from mlff_cli.data.structures import Structure, read_structures

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
INPUTS = ("coord", "numbers", "charge", "mult")
LABELS = ("energy", "forces", "charges", "spin_charges")  # what the potentials here predict
Place = Callable[[int], str]  # index in a batch -> file, and group and molecule or frame
PAIRS_PER_BATCH = 60_000  # ordered pairs of atoms: bounds memory, which grows with N squared


class LabelledMolecules:
    """A file of labelled molecules; use it as a context manager.

    Args:
        path: grouped HDF5 (.h5, .hdf5), or anything `mlff convert` reads.

    Attributes:
        level_of_theory: of the labels, where the file says so.
        labels: names of the labels present.
        notes: what a user should hear about the file.

    Raises:
        StorageError: the file is missing.
        DataError: the file is damaged, or holds no labels.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._stack = ExitStack()
        self.level_of_theory: str | None = None
        self.notes: list[str] = []
        if self.path.suffix.lower() in HDF5_SUFFIXES or not self.path.exists():
            self._file = self._stack.enter_context(GroupedHDF5(self.path))
            self._sets: list[tuple[dict[str, np.ndarray], Place]] | None = None
            self.level_of_theory = self._file.level_of_theory
            self.notes = list(self._file.notes)
            self.n_molecules = self._file.n_molecules
            names: Sequence[str] = label_names(self._file)
        else:
            self._sets = _by_size(self.path)
            self.n_molecules = sum(len(s["coord"]) for s, _ in self._sets)
            names = [n for n in LABELS if not all(np.isnan(s[n]).all() for s, _ in self._sets)]
        self.labels = tuple(name for name in LABELS if name in names)
        if not self.labels:
            self._stack.close()
            raise DataError(
                f"none of the labels {', '.join(LABELS)} is in the file",
                where=str(path),
                remedy="label the molecules first, as with `mlff label`",
            )

    def batches(self) -> Iterator[tuple[dict[str, np.ndarray], Place]]:
        """Molecules of one size, and where each of them stands.

        Yields:
            Arrays (n, ...) of inputs and labels, NaN where a label is missing; and a function that
            names the place of the i-th molecule.

        Raises:
            DataError: an input is not finite, a number is not an element, a label is infinite.
        """
        for arrays, place in self._sets if self._sets is not None else self._chunks():
            for name in self.labels:
                infinite = np.isinf(arrays[name].reshape(len(arrays[name]), -1)).any(axis=1)
                if infinite.any():
                    raise DataError(
                        f"{name!r} is infinite; a missing label is NaN",
                        where=place(int(infinite.argmax())),
                        remedy="remove the molecule or set the label to NaN",
                    )
            n_atoms = arrays["numbers"].shape[1]
            step = max(1, PAIRS_PER_BATCH // n_atoms**2)
            for start in range(0, len(arrays["coord"]), step):
                part = {name: values[start : start + step] for name, values in arrays.items()}
                yield part, _shifted(place, start)

    def _chunks(self) -> Iterator[tuple[dict[str, np.ndarray], Place]]:
        for group in self._file.groups:
            here = f"{self.path}, group {group.name}"
            for rows, arrays in group.iter_chunks((*INPUTS, *self.labels), chunk=10_000):
                yield arrays, _rows(here, rows.start)

    def __enter__(self) -> LabelledMolecules:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _rows(here: str, start: int) -> Place:
    return lambda i: f"{here}, molecule {start + i}"


def _frames(structures: Sequence[Structure]) -> Place:
    return lambda i: structures[i].where


def _shifted(place: Place, start: int) -> Place:
    return lambda i: place(start + i)


def _by_size(path: Path) -> list[tuple[dict[str, np.ndarray], Place]]:
    """All structures of a file, stacked by number of atoms."""
    sizes: dict[int, list[Structure]] = {}
    for structure in read_structures(path):
        if isinstance(structure, DataError):
            raise structure
        sizes.setdefault(len(structure.numbers), []).append(structure)
    if not sizes:
        raise DataError("the file holds no molecules", where=str(path))
    return [(_stack(same), _frames(same)) for _, same in sorted(sizes.items())]


def _stack(structures: Sequence[Structure]) -> dict[str, np.ndarray]:
    n = len(structures[0].numbers)
    shapes: dict[str, tuple[int, ...]] = {
        "energy": (), "forces": (n, 3), "charges": (n,), "spin_charges": (n,)
    }  # fmt: skip
    arrays: dict[str, Any] = {name: [getattr(s, name) for s in structures] for name in INPUTS}
    for name, shape in shapes.items():
        arrays[name] = [np.asarray(s.labels.get(name, np.full(shape, np.nan))) for s in structures]
    return {name: np.stack([np.asarray(v) for v in values]) for name, values in arrays.items()}
