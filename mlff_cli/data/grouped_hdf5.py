"""Grouped HDF5: labelled molecules, one group per number of atoms.

    /NNN/coord    (n, N, 3)  angstrom     /NNN/energy        (n,)       eV, float64
    /NNN/numbers  (n, N)                  /NNN/forces        (n, N, 3)  eV/angstrom
    /NNN/charge   (n,)       e            /NNN/charges       (n, N)     e
    /NNN/mult     (n,)                    /NNN/spin_charges  (n, N)     e
    /NNN/molecule (n,)       a name shared by all conformers of a molecule

Labels are optional, NaN marks the missing label of one molecule; `charge` defaults to 0 and `mult`
to 1. Nothing is read before it is asked for, so that a file may be larger than memory.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from mlff_cli.core import units
from mlff_cli.core.artifacts import atomic_path, check_writable, storage_error
from mlff_cli.core.elements import MAX_Z
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.core.fields import FIELDS, LABELS

FORMAT = "mlff-grouped-1"
UNIT_ATTRIBUTES = {
    "units_coord": "angstrom",
    "units_energy": "eV",
    "units_forces": "eV/angstrom",
    "units_charges": "e",
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
}
_UNIT_OF = {
    "coord": "units_coord",
    "energy": "units_energy",
    "forces": "units_forces",
    "charges": "units_charges",
    "spin_charges": "units_charges",
}
ROWS_PER_CHUNK = 256  # molecules per HDF5 chunk of a written data set


class Group:
    """The molecules of one atom count.

    Attributes:
        name: the HDF5 group's name, as "017".
        n_atoms: atoms per molecule, N.
        n_molecules: molecules in the group, n.
        fields: names of the arrays present.
    """

    def __init__(self, group: h5py.Group, where: str, scales: Mapping[str, float]) -> None:
        self._group = group
        self._scales = scales
        self.name = group.name.strip("/")
        self.n_atoms = int(self.name)
        self._here = f"{where}, group {self.name}"
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
            raise DataError(f"{name!r} must be an array", where=self._here)
        text = h5py.check_string_dtype(data.dtype) is not None
        if text != (FIELDS[name].dtype == "str") or not (text or data.dtype.kind in "fiu"):
            raise DataError(
                f"{name!r} must hold {FIELDS[name].dtype}, found {data.dtype}", where=self._here
            )

    def _check_shape(self, name: str) -> None:
        """Compare the stored shape with the vocabulary's, without reading data."""
        expected = (self.n_molecules, *FIELDS[name].shape(self.n_atoms))
        found = tuple(self._group[name].shape)
        if found not in (expected, (*expected, 1)):
            raise DataError(
                f"{name!r} must have shape {expected} (molecules, {FIELDS[name].dims}), "
                f"found {found}",
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
        if name not in self._group:
            return self._absent(name, rows)
        data = self._group[name]
        try:
            values = data[rows] if isinstance(rows, slice) else _read_rows(data, rows)
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

    Attributes:
        groups: its groups, by number of atoms.
        attrs: root attributes, JSON strings left as they are.
        notes: what a user should hear about the file (units assumed, float32 energies).

    Raises:
        StorageError: the file is missing or not readable.
        DataError: it is not HDF5, holds no molecules, or a group breaks the layout.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        where = str(path)
        if not self.path.exists():
            raise StorageError("the file does not exist", where=where, remedy="check the path")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise DataError(
                f"not a readable HDF5 file ({error})",
                where=where,
                remedy="convert other formats with `mlff convert`",
            ) from error
        try:
            self.attrs: dict[str, Any] = {
                k: v.decode() if isinstance(v, bytes) else v for k, v in self._file.attrs.items()
            }
            self.notes: list[str] = []
            scales = self._scales()
            self.groups = tuple(self._open_groups(where, scales))
        except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
            self._file.close()
            raise DataError(
                f"the HDF5 file is damaged ({error})", where=where, remedy="copy or make it again"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def _open_groups(self, where: str, scales: Mapping[str, float]) -> list[Group]:
        strangers = [n for n in self._file if not (n.isdecimal() and int(n) > 0)]
        if strangers:
            raise DataError(
                f"groups are named by their number of atoms, found {strangers[0]!r}",
                where=where,
                remedy="convert it with `mlff convert`",
            )
        not_groups = [n for n in self._file if not isinstance(self._file.get(n), h5py.Group)]
        if not_groups:
            raise DataError(f"{not_groups[0]!r} is an array, a group is needed", where=where)
        groups = [Group(self._file[n], where, scales) for n in self._file]
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class GroupedHDF5Writer:
    """Writes grouped HDF5 as a stream; the file appears when the block ends without an error.

    Args:
        path: the output.
        attrs: root attributes beside the format and the units: `level_of_theory`, `provenance`
            (dicts become JSON).
        force: replace an existing file.

    Raises:
        UsageError: the output exists and `force` is off.
        StorageError: the disk is full.
    """

    def __init__(
        self, path: Path | str, attrs: Mapping[str, Any] | None = None, *, force: bool = False
    ) -> None:
        check_writable(path, force=force)
        self.path = Path(path)
        self._force = force
        self._attrs = {"format": FORMAT, **UNIT_ATTRIBUTES, **(attrs or {})}
        self._stack = ExitStack()

    def __enter__(self) -> GroupedHDF5Writer:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path, force=self._force))
            self._file = h5py.File(temporary, "w")
            stack.push(self._close)
            for key, value in self._attrs.items():
                plain = isinstance(value, str | int | float)
                self._file.attrs[key] = value if plain else json.dumps(value, sort_keys=True)
            self._stack = stack.pop_all()
        return self

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            self._abandon()
            raise _disk_error(error, self.path) from error

    def _abandon(self) -> None:
        """Let HDF5 write the rest to nowhere.

        The library keeps unwritten data after a failed write, tries again when it closes, and may
        crash the process when that fails too.
        """
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, self._file.id.get_vfd_handle())
        os.close(nowhere)

    def _close(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if value is None:
                with self._writing():
                    self._file.flush()
            else:
                self._abandon()
        finally:
            with suppress(OSError, RuntimeError):  # the flush above told what there is to tell
                self._file.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, value, trace)

    def append(self, n_atoms: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Add molecules of one atom count.

        Args:
            n_atoms: atoms per molecule, N.
            arrays: field name -> (n, *shape). Labels absent here but present elsewhere in the group
                become NaN.

        Raises:
            DataError: an unknown field, or a shape that is not the field's.
            StorageError: the disk is full.
        """
        if n_atoms < 1 or not {"coord", "numbers"} <= set(arrays):
            raise DataError(
                "molecules need atoms, 'coord' and 'numbers', "
                f"found {n_atoms} atoms and {sorted(arrays)}",
                where=str(self.path),
            )
        group = self._file.require_group(f"{n_atoms:03d}")
        n_new = len(arrays["coord"])
        n_old = group["coord"].shape[0] if "coord" in group else 0
        for name, values in arrays.items():
            if name not in FIELDS:
                raise DataError(
                    f"unknown field {name!r}; known: {sorted(FIELDS)}", where=str(self.path)
                )
            expected = (n_new, *FIELDS[name].shape(n_atoms))
            if np.shape(values) != expected:
                raise DataError(
                    f"{name!r} must have shape {expected}, found {np.shape(values)}",
                    where=str(self.path),
                )
        with self._writing():
            for name in FIELDS:  # in the vocabulary's order: the same content, the same bytes
                if name in arrays or name in group:
                    self._extend(group, name, n_atoms, n_old, n_new, arrays.get(name))

    def _extend(
        self,
        group: h5py.Group,
        name: str,
        n_atoms: int,
        n_old: int,
        n_new: int,
        values: np.ndarray | None,
    ) -> None:
        """Grow one data set by `n_new` rows; rows nobody gave stay at the fill value."""
        field = FIELDS[name]
        text = field.dtype == "str"
        if name not in group:
            shape = field.shape(n_atoms)
            group.create_dataset(
                name,
                shape=(n_old, *shape),
                maxshape=(None, *shape),
                chunks=(ROWS_PER_CHUNK, *shape),
                dtype=h5py.string_dtype() if text else field.dtype,
                compression=None if text else "gzip",
                shuffle=not text,
                fillvalue=None if text else _fill(name),
            )
        data = group[name]
        data.resize(n_old + n_new, axis=0)
        if values is not None:
            data[n_old:] = [str(v) for v in values] if text else np.asarray(values, field.dtype)
        data.flush()  # here an error can be told; when h5py drops the data set it cannot


def write_grouped(
    path: Path | str,
    molecules: Iterable[Mapping[str, Any]],
    attrs: Mapping[str, Any] | None = None,
    *,
    force: bool = False,
) -> int:
    """Write molecules one by one, in groups by size.

    Args:
        path: the output.
        molecules: each {coord (N,3), numbers (N,), and any further fields of one molecule}.
        attrs: root attributes, see `GroupedHDF5Writer`.
        force: replace an existing file.

    Returns:
        How many molecules were written. Molecules of one size keep their order.

    Raises:
        DataError: as `GroupedHDF5Writer.append`.
        UsageError: the output exists and `force` is off.
        StorageError: the disk is full.
    """
    waiting: dict[int, list[Mapping[str, Any]]] = {}  # by number of atoms
    total = 0
    with GroupedHDF5Writer(path, attrs, force=force) as writer:
        for molecule in molecules:
            n_atoms = len(molecule["numbers"])
            waiting.setdefault(n_atoms, []).append(molecule)
            total += 1
            if len(waiting[n_atoms]) >= ROWS_PER_CHUNK:
                writer.append(n_atoms, _stack(n_atoms, waiting.pop(n_atoms), writer.path))
        for n_atoms in sorted(waiting):
            writer.append(n_atoms, _stack(n_atoms, waiting[n_atoms], writer.path))
    return total


def _stack(
    n_atoms: int, molecules: Sequence[Mapping[str, Any]], path: Path
) -> dict[str, np.ndarray]:
    """Arrays of molecules of one size; what one of them lacks takes the fill value."""
    arrays = {}
    for name, field in FIELDS.items():
        given = [m.get(name) for m in molecules]
        if all(v is None for v in given):
            continue
        shape = field.shape(n_atoms)
        fill = np.full(shape, _fill(name))
        rows = [np.asarray(fill if v is None else v) for v in given]
        wrong = next((v.shape for v in rows if v.shape != shape), None)
        if wrong is not None:
            raise DataError(
                f"{name!r} of one molecule must have shape {shape}, found {wrong}", where=str(path)
            )
        arrays[name] = np.stack(rows)
    return arrays


def _fill(name: str) -> Any:
    """What stands for the missing value of one molecule."""
    by_role = {"label": np.nan, "input": 0, "id": ""}
    return DEFAULTS.get(name, by_role[FIELDS[name].role])


def _disk_error(error: Exception, path: Path) -> StorageError:
    """h5py tells a full disk in its own words, and not always as an OSError."""
    told = re.search(r"errno = (\d+)", str(error))
    number = int(told[1]) if told else getattr(error, "errno", None)
    reason = OSError(number, os.strerror(number)) if number else OSError(str(error))
    return storage_error(reason, path)


def label_names(file: GroupedHDF5) -> tuple[str, ...]:
    """Labels that a file holds, in the vocabulary's order."""
    return tuple(name for name in LABELS if name in file.fields)


def _read_rows(data: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Rows in any order, repeats allowed: h5py itself wants them sorted and unique."""
    unique, inverse = np.unique(rows, return_inverse=True)
    values: np.ndarray = data[unique][inverse]
    return values


def _row_number(rows: slice | np.ndarray, index: int, length: int) -> int:
    """Row in the group of the `index`-th row that was read."""
    return range(*rows.indices(length))[index] if isinstance(rows, slice) else int(rows[index])
