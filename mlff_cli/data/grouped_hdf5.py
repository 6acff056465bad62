"""Grouped HDF5: labelled molecules, one group per number of atoms.

    /NNN/coord    (n, N, 3)  angstrom     /NNN/energy        (n,)       eV, float64
    /NNN/numbers  (n, N)                  /NNN/forces        (n, N, 3)  eV/angstrom
    /NNN/charge   (n,)       e            /NNN/charges       (n, N)     e
    /NNN/mult     (n,)                    /NNN/spin_charges  (n, N)     e
    /NNN/dipole   (n, 3)  e*angstrom      /NNN/quadrupole    (n, 6)     e*angstrom^2, traceless
    /NNN/molecule (n,)       a name shared by all conformers of a molecule

Labels are optional, NaN marks the missing label of one molecule; `charge` defaults to 0 and `mult`
to 1. Nothing is read before it is asked for, so that a file may be larger than memory. This module
reads, `grouped_writer` writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mlff_cli.core import units
from mlff_cli.core.artifacts import storage_error
from mlff_cli.core.elements import MAX_Z
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.core.fields import FIELDS, LABELS
from mlff_cli.data.row_reader import ChunkCache, RowReader

FORMAT = "mlff-grouped-1"
UNIT_ATTRIBUTES = {
    "units_coord": "angstrom",
    "units_energy": "eV",
    "units_forces": "eV/angstrom",
    "units_charges": "e",
    "units_dipole": "e*angstrom",
    "units_quadrupole": "e*angstrom^2",
}
DEFAULTS = {"charge": 0.0, "mult": 1.0}
_SCALES = {  # what other units are worth in ours, by unit attribute
    "units_coord": {"angstrom": 1.0, "A": 1.0, "bohr": units.BOHR, "nm": 10.0},
    "units_energy": {
        "eV": 1.0,
        "hartree": units.HARTREE,
        "kcal/mol": units.KCAL_MOL,
        "kJ/mol": units.KJ_MOL,
    },
    "units_forces": {
        "eV/angstrom": 1.0,
        "eV/A": 1.0,
        "hartree/bohr": units.HARTREE / units.BOHR,
        "kcal/mol/angstrom": units.KCAL_MOL,
    },
    "units_charges": {"e": 1.0},
    "units_dipole": {"e*angstrom": 1.0, "e*bohr": units.BOHR, "debye": units.DEBYE},
    "units_quadrupole": {
        "e*angstrom^2": 1.0,
        "e*bohr^2": units.BOHR * units.BOHR,
        "debye*angstrom": units.DEBYE,
    },
}
_UNIT_OF = {
    "coord": "units_coord",
    "energy": "units_energy",
    "forces": "units_forces",
    "charges": "units_charges",
    "spin_charges": "units_charges",
    "dipole": "units_dipole",
    "quadrupole": "units_quadrupole",
}


class Group:
    """The molecules of one atom count.

    Attributes:
        name: the HDF5 group's name, as "017".
        n_atoms: atoms per molecule, N.
        n_molecules: molecules in the group, n.
        fields: names of the arrays present.
        where: file and group, for messages.
    """

    def __init__(
        self, group: h5py.Group, where: str, scales: Mapping[str, float], cache: ChunkCache
    ) -> None:
        self._group = group
        self._scales = scales
        self._cache = cache
        self._readers: dict[str, RowReader] = {}
        self.name = group.name.strip("/")
        self.n_atoms = int(self.name)
        self.where = self._here = f"{where}, group {self.name}"
        for required in ("coord", "numbers"):
            if required not in group:
                raise DataError(
                    f"every group needs {required!r}, this one has {sorted(group) or 'nothing'}",
                    where=self._here,
                    remedy="write it with `mlff convert`, or drop the group",
                )
        self.fields = frozenset(name for name in group if name in FIELDS)
        for name in sorted(self.fields):
            self._check_type(name)
        self.n_molecules = int(group["coord"].shape[0]) if group["coord"].shape else 0
        for name in sorted(self.fields):
            self._check_shape(name)

    def _check_type(self, name: str) -> None:
        data = self._group.get(name)
        if not isinstance(data, h5py.Dataset):
            raise DataError(
                f"{name!r} must be an array, found {_kind(data)}",
                where=self._here,
                remedy="copy or make the file again",
            )
        text = h5py.check_string_dtype(data.dtype) is not None
        if text != (FIELDS[name].dtype == "str") or not (text or data.dtype.kind in "fiu"):
            raise DataError(
                f"{name!r} must hold {FIELDS[name].dtype}, found {data.dtype}",
                where=self._here,
                remedy="store it in that type",
            )

    def _check_shape(self, name: str) -> None:
        """Compare the stored shape with the vocabulary's, without reading data."""
        expected = (self.n_molecules, *FIELDS[name].shape(self.n_atoms))
        found = tuple(self._group[name].shape)
        axes = ("molecules", *map(str, FIELDS[name].dims))
        if found not in (expected, (*expected, 1)):
            raise DataError(
                f"{name!r} must have shape {expected} ({', '.join(axes)}), found {found}",
                where=self._here,
                remedy="the group's name is its number of atoms; reshape the array",
            )

    def dtype(self, name: str) -> np.dtype[Any]:
        """Stored NumPy type of a field."""
        dtype: np.dtype[Any] = self._group[name].dtype
        return dtype

    def read(
        self, name: str, rows: slice | np.ndarray | None = None, *, check: bool = True
    ) -> np.ndarray:
        """Read one field.

        Args:
            name: a field of the vocabulary; absent `charge` and `mult` give their defaults, absent
                labels NaN.
            rows: which molecules: a slice, indices in any order (repeats and negative ones too), a
                mask (n_molecules,), or None for all.
            check: refuse non-finite inputs and impossible atomic numbers.

        Returns:
            Array (rows, *shape) in the vocabulary's type and unit.

        Raises:
            DataError: the file is damaged, an input is not finite, a number is not an element.
            IndexError: a row the group does not have.
        """
        field = FIELDS[name]
        rows = self._rows(rows)
        if name not in self.fields:
            return self._absent(name, rows)
        try:
            values = (
                self._group[name][rows] if isinstance(rows, slice) else self._reader(name)(rows)
            )
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{name!r} cannot be read: {error}",
                where=self._here,
                remedy="the file is damaged: copy or make it again",
            ) from error
        if field.dtype == "str":
            text = (v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values)
            return np.fromiter(text, dtype=object, count=len(values))
        values = values.reshape(values.shape[0], *field.shape(self.n_atoms))
        if check and name == "numbers":  # before the cast, which would round or wrap them
            self._check_values(name, values, rows)
        scale = self._scales.get(_UNIT_OF.get(name, ""), 1.0)
        if scale != 1.0:
            values = values.astype("float64") * scale
        with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite, and refused below
            values = values.astype(field.dtype, copy=False)
        if check and field.role == "input" and name != "numbers":
            self._check_values(name, values, rows)
        return values

    def _reader(self, name: str) -> RowReader:
        """The reader of a field's rows, made when it is first asked for."""
        if name not in self._readers:
            self._readers[name] = RowReader(self._group[name], self._cache)
        return self._readers[name]

    def _rows(self, rows: slice | np.ndarray | None) -> slice | np.ndarray:
        """Rows as h5py understands them: a forward slice, or indices from the start."""
        if rows is None:
            return slice(None)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.n_molecules)
            return rows if step > 0 else np.arange(start, stop, step)
        index = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        index = index.astype("int64", casting="safe" if index.size else "unsafe")  # [] is float
        bad = (index < -self.n_molecules) | (index >= self.n_molecules)
        if bad.any() or index.ndim != 1:
            seen = index[bad][0] if bad.any() else index
            raise IndexError(f"{self._here}: no row {seen}, there are {self.n_molecules}")
        return np.where(index < 0, index + self.n_molecules, index)

    def _absent(self, name: str, rows: slice | np.ndarray) -> np.ndarray:
        """Defaults of a field that the file does not hold."""
        n = len(range(*rows.indices(self.n_molecules))) if isinstance(rows, slice) else len(rows)
        shape = (n, *FIELDS[name].shape(self.n_atoms))
        if FIELDS[name].dtype == "str":
            return np.full(n, "", dtype=object)
        return np.full(shape, DEFAULTS.get(name, np.nan), dtype=FIELDS[name].dtype)

    def _check_values(self, name: str, values: np.ndarray, rows: slice | np.ndarray) -> None:
        if name == "numbers":
            bad = ~((values >= 1) & (values <= MAX_Z))  # NaN is bad too
            if values.dtype.kind == "f":
                bad |= values != np.trunc(values)
            rule = f"atomic numbers are integers from 1 to {MAX_Z}"
            remedy = "store plain atomic numbers, without padding and without fidelity offset"
        else:
            bad = ~np.isfinite(values)
            rule = f"{name!r} must be finite"
            if name == "mult":
                bad |= values < 0
                rule += " and not negative"
            remedy = "remove the molecule or mend its source"
        if not bad.any():
            return
        first = int(np.argwhere(bad.reshape(len(values), -1).any(axis=1))[0, 0])
        seen = values[first][bad[first]].flat[0] if values.ndim > 1 else values[first]
        row = _row_number(rows, first, self.n_molecules)
        raise DataError(
            f"{rule}, found {seen}",
            where=f"{self._here}, molecule {row}",
            remedy=remedy,
        )

    def iter_chunks(
        self, names: Iterable[str], chunk: int = 100_000
    ) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Read the group piece by piece: (rows, {field: array}) of at most `chunk` molecules."""
        names = tuple(names)
        for start in range(0, self.n_molecules, chunk):
            rows = slice(start, min(start + chunk, self.n_molecules))
            yield rows, {name: self.read(name, rows) for name in names}


class GroupedHDF5:
    """A grouped HDF5 file, opened for reading; use it as a context manager.

    Args:
        path: the file.
        cache: keeps decoded chunks, for several files together; None: a new one.

    Attributes:
        groups: its groups, by number of atoms.
        attrs: root attributes, JSON strings left as they are.
        notes: what a user should hear about the file (units assumed, float32 energies).

    Raises:
        StorageError: the file is missing or not readable.
        DataError: it is not HDF5, holds no molecules, or a group breaks the layout.
    """

    def __init__(self, path: Path | str, cache: ChunkCache | None = None) -> None:
        self.path = Path(path)
        where = str(path)
        cache = cache or ChunkCache()
        if not self.path.exists():
            raise StorageError("the file does not exist", where=where, remedy="check the path")
        if not self.path.is_file():
            raise DataError(
                "a file is needed, this is a folder or device", where=where, remedy="check the path"
            )
        try:
            # HDF5's own cache is 8 MiB per array, which are many; ours is one for all
            self._file = h5py.File(self.path, "r", rdcc_nbytes=0)
        except OSError as error:
            if error.errno:  # the system's word, without HDF5's bookkeeping around it
                raise storage_error(OSError(error.errno, os.strerror(error.errno)), path) from error
            reason = str(error) if self.path.stat().st_size else "it is empty"
            raise DataError(
                f"not a readable HDF5 file ({reason})",
                where=where,
                remedy="convert other formats with `mlff convert`",
            ) from error
        try:
            self.attrs: dict[str, Any] = {
                k: v.decode() if isinstance(v, bytes) else v for k, v in self._file.attrs.items()
            }
            self.notes: list[str] = []
            scales = self._scales()
            self.groups = tuple(self._open_groups(where, scales, cache))
        except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
            self._file.close()
            raise DataError(
                f"the HDF5 file is damaged ({error})", where=where, remedy="copy or make it again"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def _open_groups(
        self, where: str, scales: Mapping[str, float], cache: ChunkCache
    ) -> list[Group]:
        strangers = [n for n in self._file if not (n.isdecimal() and int(n) > 0)]
        if strangers:
            raise DataError(
                f"groups are named by their number of atoms, found {strangers[0]!r}",
                where=where,
                remedy="convert it with `mlff convert`",
            )
        not_groups = [n for n in self._file if not isinstance(self._file.get(n), h5py.Group)]
        if not_groups:
            raise DataError(
                f"{not_groups[0]!r} must be a group, found {_kind(self._file.get(not_groups[0]))}",
                where=where,
                remedy="copy or make the file again",
            )
        groups = [Group(self._file[n], where, scales, cache) for n in self._file]
        groups = sorted((g for g in groups if g.n_molecules), key=lambda g: (g.n_atoms, g.name))
        if not groups:
            raise DataError("the file holds no molecules", where=where, remedy="label some first")
        single = [g for g in groups if "energy" in g.fields and g.dtype("energy").itemsize < 8]
        if single:
            self.notes.append(
                f"{where}: 'energy' is stored in float{8 * single[0].dtype('energy').itemsize}: "
                "about 1 meV is lost at 10 keV; store it as float64"
            )
        return groups

    def _scales(self) -> dict[str, float]:
        """Factors to our units from the file's unit attributes."""
        if not any(a in self.attrs for a in UNIT_ATTRIBUTES):
            self.notes.append(f"{self.path}: no unit attributes, read as eV, angstrom and e")
        scales = {}
        for attribute, table in _SCALES.items():
            found = str(self.attrs.get(attribute, UNIT_ATTRIBUTES[attribute]))
            if found not in table:
                raise DataError(
                    f"attribute {attribute!r} must be one of {sorted(table)}, found {found!r}",
                    where=str(self.path),
                    remedy="convert the values and set the attribute",
                )
            scales[attribute] = table[found]
        return scales

    @property
    def n_molecules(self) -> int:
        """Molecules in all groups."""
        return sum(g.n_molecules for g in self.groups)

    @property
    def fields(self) -> frozenset[str]:
        """Fields that at least one group holds."""
        return frozenset().union(*(g.fields for g in self.groups))

    @property
    def level_of_theory(self) -> str | None:
        """Level of theory the labels were made with, if the file says so."""
        value = self.attrs.get("level_of_theory")
        return str(value) if value is not None else None

    def validate(self, chunk: int = 100_000) -> None:
        """Read every input once and refuse what is not finite or not an element.

        Raises:
            DataError: with file, group and molecule.
        """
        for group in self.groups:
            for _ in group.iter_chunks(("coord", "numbers", "charge", "mult"), chunk):
                pass

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> GroupedHDF5:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def label_names(file: GroupedHDF5) -> tuple[str, ...]:
    """Labels that a file holds, in the vocabulary's order."""
    return tuple(name for name in LABELS if name in file.fields)


def _kind(found: Any) -> str:
    """In words, what stands where something else was expected."""
    if isinstance(found, h5py.Group):
        return "a group"
    if isinstance(found, h5py.Dataset):
        return "an array"
    return "something unreadable (the file is damaged, or a link leads nowhere)"


def _row_number(rows: slice | np.ndarray, index: int, length: int) -> int:
    """Row in the group of the `index`-th row that was read."""
    return range(*rows.indices(length))[index] if isinstance(rows, slice) else int(rows[index])
