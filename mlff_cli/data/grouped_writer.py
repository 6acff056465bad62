"""Writes grouped HDF5 (`grouped_hdf5` has the layout) as a stream, whole or not at all.

The same molecules in the same order give the same bytes, whatever the file's name, the time and
the process. A full disk is an error that names the file; HDF5 alone would end the process.
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

from mlff_cli.core.artifacts import atomic_path, check_writable, storage_error
from mlff_cli.core.errors import DataError, StorageError
from mlff_cli.core.fields import FIELDS
from mlff_cli.data.grouped_hdf5 import DEFAULTS, FORMAT, UNIT_ATTRIBUTES

ROWS_PER_CHUNK = 256  # molecules per HDF5 chunk


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
