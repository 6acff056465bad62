"""The labelled molecules of one fidelity, checked once, then read by group and rows.

    residual energy = energy - sum_i SAE(Z_i)        float64, eV

A small file is kept in memory, a large one stays on disk and its rows are read when a batch asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlff_cli.core.elements import MAX_Z, symbol
from mlff_cli.core.errors import DataError
from mlff_cli.core.fields import FIELDS, INPUTS
from mlff_cli.data.grouped_hdf5 import Group, GroupedHDF5

IN_MEMORY_BYTES = 2 << 30  # files whose arrays need less are read once and kept
SCAN_CHUNK = 50_000  # molecules checked at a time


@dataclass(frozen=True)
class Structures:
    """Some molecules of one size, for identification.

    Attributes:
        start: index of the first one in its data set.
        arrays: coord (n, N, 3) A, numbers (n, N), charge (n,), mult (n,), molecule (n,) names.
    """

    start: int
    arrays: dict[str, np.ndarray]


class FidelityDataset:
    """One grouped HDF5 file in its role as fidelity k; molecules are counted over all groups.

    Args:
        path: the file.
        fidelity: its index k.
        sae: self-atomic energies {Z: eV}; None leaves energies as they are.
        labels: which labels to read.
        in_memory_bytes: files that need more memory are read row by row.

    Attributes:
        n_atoms: (n,) atoms of every molecule.
        species: atomic numbers that occur, ascending.
        label_counts: molecules that have each label.
        level_of_theory: as the file says, or None.
        named: whether every molecule has a name.
        notes: what a user should hear about the file.

    Raises:
        StorageError: the file is missing.
        DataError: damaged file, non-finite input, a label that is infinite, no label at all, or an
            element without self-atomic energy.
    """

    def __init__(
        self,
        path: Path | str,
        fidelity: int,
        sae: Mapping[int, float] | None,
        labels: Sequence[str],
        *,
        in_memory_bytes: int = IN_MEMORY_BYTES,
    ) -> None:
        self.path = Path(path)
        self.fidelity = fidelity
        self.labels = tuple(labels)
        self._sae = np.full(MAX_Z + 1, np.nan if sae else 0.0)  # eV by atomic number
        for z, energy in (sae or {}).items():
            self._sae[z] = energy
        self._file = GroupedHDF5(path)
        self.groups: tuple[Group, ...] = self._file.groups
        self.notes = list(self._file.notes)
        self.level_of_theory = self._file.level_of_theory
        sizes = np.array([g.n_molecules for g in self.groups])
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self.n_atoms = np.repeat([g.n_atoms for g in self.groups], sizes)
        self.named = all("molecule" in g.fields for g in self.groups)
        self._fields = (*INPUTS, *(n for n in self.labels if n in self._file.fields))
        keep = self._bytes() <= in_memory_bytes
        self._kept: list[dict[str, np.ndarray]] | None = [] if keep else None
        try:
            self._scan()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def in_memory(self) -> bool:
        """Whether the file was read whole."""
        return self._kept is not None

    def _bytes(self) -> int:
        """Memory that all arrays need."""
        per_field = (
            g.n_molecules
            * np.prod(FIELDS[name].shape(g.n_atoms))
            * np.dtype(FIELDS[name].dtype).itemsize
            for g in self.groups
            for name in self._fields
        )
        return int(sum(per_field))

    def _scan(self) -> None:
        """Read everything once: check it, count it, and keep it when it is small."""
        species = np.zeros(MAX_Z + 1, dtype=bool)
        self.label_counts = dict.fromkeys(self.labels, 0)
        for group in self.groups:
            chunks = []
            for rows, arrays in group.iter_chunks(self._fields, SCAN_CHUNK):
                species[np.unique(arrays["numbers"])] = True
                for name in self._fields[len(INPUTS) :]:
                    present = self._present(group, name, arrays[name], rows.start)
                    self.label_counts[name] += int(present.sum())
                chunks.append(arrays)
            if self._kept is not None:
                whole = {n: np.concatenate([c[n] for c in chunks]) for n in self._fields}
                self._kept.append(whole)
        self.species = [int(z) for z in np.flatnonzero(species)]
        unknown = [z for z in self.species if np.isnan(self._sae[z])]
        if unknown and self.label_counts.get("energy"):
            raise DataError(
                f"no self-atomic energy for {', '.join(map(symbol, unknown))} at fidelity "
                f"{self.fidelity}",
                where=self._first_with(unknown),
                remedy=f"make the SAE file from this data: mlff calc-sae {self.path} SAE.yaml",
            )
        if not any(self.label_counts.values()):
            raise DataError(
                f"fidelity {self.fidelity} has none of the labels {', '.join(self.labels)}",
                where=str(self.path),
                remedy="label the molecules (mlff label), or list its labels under data.y",
            )

    def _first_with(self, elements: Sequence[int]) -> str:
        """Where the first molecule with one of these elements stands."""
        for group in self.groups:
            for rows, arrays in group.iter_chunks(("numbers",), SCAN_CHUNK):
                found = np.isin(arrays["numbers"], elements).any(axis=1)
                if found.any():
                    row = rows.start + int(found.argmax())
                    return f"{self.path}, group {group.name}, molecule {row}"
        raise ValueError(f"no molecule has any of {elements}")

    def _present(self, group: Group, name: str, values: np.ndarray, start: int) -> np.ndarray:
        """Which molecules (n,) have a label; infinite values are an error."""
        flat = values.reshape(len(values), -1)
        if np.isinf(flat).any():
            row = start + int(np.flatnonzero(np.isinf(flat).any(axis=1))[0])
            raise DataError(
                f"{name!r} is infinite; a missing label is NaN",
                where=f"{self.path}, group {group.name}, molecule {row}",
                remedy="remove the molecule or set the label to NaN",
            )
        present: np.ndarray = ~np.isnan(flat).any(axis=1)
        return present

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
            Field name -> (b, *shape); labels that the file does not hold are absent.
        """
        if self._kept is not None:
            arrays = {name: values[rows] for name, values in self._kept[group].items()}
        else:
            arrays = {name: self.groups[group].read(name, rows) for name in self._fields}
        if "energy" in arrays:
            reference = self._sae[arrays["numbers"]].sum(axis=1)  # (b,) eV
            arrays["energy"] = arrays["energy"] - reference
        return arrays

    def structures(self) -> Iterator[Structures]:
        """All molecules in order, some at a time, for the identification of duplicates."""
        names = (*INPUTS, *(("molecule",) if self.named else ()))
        for start, group in zip(self._starts, self.groups, strict=False):
            for rows, arrays in group.iter_chunks(names, 2_000):
                yield Structures(int(start) + rows.start, arrays)

    def names(self) -> np.ndarray:
        """Names (n,) of all molecules; only where `named`."""
        return np.concatenate([g.read("molecule") for g in self.groups])

    def reference(self, index: int) -> tuple[int, str, int]:
        """Fidelity, group and row of a molecule, as error messages name it."""
        group, row = self.locate(np.array([index]))
        return self.fidelity, self.groups[int(group[0])].name, int(row[0])

    def close(self) -> None:
        """Close the file."""
        self._file.close()
