"""The labelled molecules of one fidelity, checked once, then read by group and rows.

    residual energy = energy - sum_i SAE(Z_i)        float64, eV

A fidelity is one file or several, one after the other. A small one is kept in memory, a large one
stays on disk and its rows are read when a batch asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mlff_cli.core.elements import MAX_Z, symbol
from mlff_cli.core.errors import DataError
from mlff_cli.core.fields import FIELDS, INPUTS
from mlff_cli.data.grouped_hdf5 import Group, GroupedHDF5
from mlff_cli.data.row_reader import ChunkCache
from mlff_cli.data.scanning import field_bytes, in_threads, pieces

IN_MEMORY_BYTES = 1 << 30  # data sets whose arrays need less are read once and kept


class FidelityDataset:
    """Grouped HDF5 files in their role as fidelity k; molecules are counted over all groups.

    Args:
        path: the file, or several, which are read one after the other.
        fidelity: its index k.
        sae: self-atomic energies {Z: eV}; None leaves energies as they are.
        labels: which labels to read.
        in_memory_bytes: a data set that needs more memory is read row by row.

    Attributes:
        paths: the files.
        groups: the groups of all files, file by file.
        n_atoms: (n,) atoms of every molecule.
        species: atomic numbers that occur, ascending.
        label_counts: molecules that have each label.
        level_of_theory: as the files say, or None.
        named: whether every molecule can have a name.
        notes: what a user should hear about the files.
        n_bytes: memory that all arrays need.

    Raises:
        StorageError: a file is missing.
        DataError: damaged file, non-finite input, a label that is infinite, no label at all, or an
            element without self-atomic energy.
    """

    def __init__(
        self,
        path: Path | str | Sequence[Path | str],
        fidelity: int,
        sae: Mapping[int, float] | None,
        labels: Sequence[str],
        *,
        in_memory_bytes: int = IN_MEMORY_BYTES,
    ) -> None:
        self.paths = [Path(p) for p in ([path] if isinstance(path, Path | str) else path)]
        self.fidelity = fidelity
        self.labels = tuple(labels)
        self._sae = np.full(MAX_Z + 1, np.nan if sae else 0.0)  # eV by atomic number
        for z, energy in (sae or {}).items():
            self._sae[z] = energy
        self._files: list[GroupedHDF5] = []
        try:
            cache = ChunkCache()
            for one in self.paths:
                self._files.append(GroupedHDF5(one, cache))
            self._describe()
            self._kept = self._allocate() if self.n_bytes <= in_memory_bytes else None
            self._scan()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def in_memory(self) -> bool:
        """Whether the files were read whole."""
        return self._kept is not None

    @property
    def where(self) -> str:
        """The files in words, for messages about all of them."""
        first, *others = map(str, self.paths)
        return f"{first} and {len(others)} more" if others else first

    def _describe(self) -> None:
        """Put the files' groups in a row and say what they hold, without reading arrays."""
        self.groups: tuple[Group, ...] = tuple(g for file in self._files for g in file.groups)
        self._file_of = np.repeat(np.arange(len(self._files)), [len(f.groups) for f in self._files])
        self.notes = [note for file in self._files for note in file.notes]
        levels = dict.fromkeys(f.level_of_theory for f in self._files if f.level_of_theory)
        self.level_of_theory = next(iter(levels), None)
        if len(levels) > 1:
            self.notes.append(
                f"the files of fidelity {self.fidelity} differ in their level of theory: "
                + ", ".join(levels)
            )
        sizes = np.array([g.n_molecules for g in self.groups])
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self.n_atoms = np.repeat(np.array([g.n_atoms for g in self.groups], dtype="int32"), sizes)
        self.named = all("molecule" in g.fields for g in self.groups)
        held = frozenset().union(*(file.fields for file in self._files))
        self._fields = (*INPUTS, *(n for n in self.labels if n in held))
        self.n_bytes = sum(
            g.n_molecules * sum(field_bytes(g, n) for n in self._fields) for g in self.groups
        )

    def _allocate(self) -> list[dict[str, np.ndarray]]:
        """Room for all arrays."""
        return [
            {
                n: np.empty((g.n_molecules, *FIELDS[n].shape(g.n_atoms)), FIELDS[n].dtype)
                for n in self._fields
            }
            for g in self.groups
        ]

    def _tasks(self, names: Sequence[str]) -> list[tuple[int, slice]]:
        """All molecules, as pieces (group, rows)."""
        return [(i, rows) for i, g in enumerate(self.groups) for rows in pieces(g, names)]

    def _scan(self) -> None:
        """Read everything once: check it, count it, and keep it when it is small."""
        found = np.zeros(MAX_Z + 1, dtype=bool)
        self.label_counts = dict.fromkeys(self.labels, 0)
        for elements, counts in in_threads(self._check_piece, self._tasks(self._fields)):
            found |= elements
            for name, count in counts.items():
                self.label_counts[name] += count
        self.species = [int(z) for z in np.flatnonzero(found)]
        unknown = [z for z in self.species if np.isnan(self._sae[z])]
        if unknown and self.label_counts.get("energy"):
            raise DataError(
                f"no self-atomic energy for {', '.join(map(symbol, unknown))} at fidelity "
                f"{self.fidelity}",
                where=self._first_with(unknown),
                remedy=f"make the SAE file from this data: mlff calc-sae {self.paths[0]} SAE.yaml",
            )
        if not any(self.label_counts.values()):
            raise DataError(
                f"fidelity {self.fidelity} has none of the labels {', '.join(self.labels)}",
                where=self.where,
                remedy="label the molecules (mlff label), or list its labels under data.y",
            )

    def _check_piece(self, task: tuple[int, slice]) -> tuple[np.ndarray, dict[str, int]]:
        """Elements (119,) that occur in a piece, and how many of its molecules have each label."""
        g, rows = task
        group = self.groups[g]
        counts = {}
        for name in self._fields:
            values = group.read(name, rows)
            if name == "numbers":
                elements = np.bincount(values.ravel(), minlength=MAX_Z + 1) > 0
            elif name not in INPUTS:
                counts[name] = self._count_present(group, name, values, rows.start)
            if self._kept is not None:
                self._kept[g][name][rows] = values
        return elements, counts

    def _first_with(self, elements: Sequence[int]) -> str:
        """Where the first molecule with one of these elements stands."""
        for g, rows in self._tasks(("numbers",)):
            found = np.isin(self.groups[g].read("numbers", rows), elements).any(axis=1)
            if found.any():
                return f"{self.groups[g].where}, molecule {rows.start + int(found.argmax())}"
        raise ValueError(f"no molecule has any of {elements}")

    def _count_present(self, group: Group, name: str, values: np.ndarray, start: int) -> int:
        """How many molecules have a label; infinite values are an error."""
        finite = np.isfinite(values)
        if finite.all():
            return len(values)
        infinite = np.isinf(values).reshape(len(values), -1).any(axis=1)
        if infinite.any():
            raise DataError(
                f"{name!r} is infinite; a missing label is NaN",
                where=f"{group.where}, molecule {start + int(infinite.argmax())}",
                remedy="remove the molecule or set the label to NaN",
            )
        return int(np.count_nonzero(finite.reshape(len(values), -1).all(axis=1)))

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Group and row of molecules given by their index in the data set."""
        group = np.searchsorted(self._starts, index, side="right") - 1
        return group, index - self._starts[group]

    def read(self, group: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs and labels of molecules of one group, energies as residuals.

        Args:
            group: position in `groups`.
            rows: (b,) rows, in any order.

        Returns:
            Field name -> (b, *shape); labels that no file holds are absent.
        """
        if self._kept is not None:
            arrays = {name: values[rows] for name, values in self._kept[group].items()}
        else:  # it was checked when it was opened
            source = self.groups[group]
            arrays = {name: source.read(name, rows, check=False) for name in self._fields}
        if "energy" in arrays:
            reference = self._sae[arrays["numbers"]].sum(axis=1)  # (b,) eV
            arrays["energy"] = arrays["energy"] - reference
        return arrays

    def hashes(
        self, names: Sequence[str], function: Callable[[dict[str, np.ndarray]], np.ndarray]
    ) -> np.ndarray:
        """A hash (n,) uint64 of every molecule.

        Args:
            names: fields to read.
            function: maps {field: (m, *shape)} of some molecules of one size to their hashes (m,).
        """
        keys = np.empty(len(self), dtype="uint64")

        def fill(task: tuple[int, slice]) -> None:
            g, rows = task
            group = self.groups[g]
            arrays = {name: group.read(name, rows, check=False) for name in names}
            start = int(self._starts[g])
            keys[start + rows.start : start + rows.stop] = function(arrays)

        for _ in in_threads(fill, self._tasks(names)):
            pass
        return keys

    def reference(self, index: int) -> tuple[int, str, int]:
        """Fidelity, group and row of a molecule."""
        group, row = self.locate(np.array([index]))
        return self.fidelity, self.groups[int(group[0])].name, int(row[0])

    def name_molecule(self, index: int) -> str:
        """A molecule in words, as error messages name it."""
        fidelity, group, row = self.reference(index)
        file = ""
        if len(self.paths) > 1:
            position = int(self.locate(np.array([index]))[0][0])
            file = f" {self.paths[self._file_of[position]]}"
        return f"fidelity {fidelity}{file} group {group} molecule {row}"

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
