"""Molecules of several files into one, nothing lost on the way.

| suffix        | in | out | format                                             |
|---------------|----|-----|----------------------------------------------------|
| .h5 .hdf5     | x  | x   | grouped HDF5, ours and aimnet's                    |
| .xyz .extxyz  | x  | x   | extended XYZ with `REF_` labels                    |
| .sdf .smi ... | x  |     | what `data.structures` reads; geometries, no labels |

Molecules pass through one by one, so that files may be larger than memory.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py

from mlff_cli.core.artifacts import provenance
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.fields import FIELDS
from mlff_cli.core.reporting import Progress, Reporter, Summary, Table
from mlff_cli.data.extxyz import write_extxyz
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.data.grouped_writer import write_grouped
from mlff_cli.data.structures import Structure, read_structures

ROWS = 10_000  # molecules of a grouped file held at a time

Molecule = Mapping[str, Any]
Molecules = Iterator[Molecule]


@dataclasses.dataclass
class _Source:
    """An opened input: its molecules, and what its file says about them."""

    path: Path
    level_of_theory: str | None
    molecules: Molecules
    total: int | None
    provenance: Any = None


def convert_molecules(
    inputs: Sequence[Path],
    output: Path,
    level_of_theory: str | None,
    reporter: Reporter,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Combine files of molecules, in their order, into one.

    Args:
        inputs: grouped HDF5, extxyz, or whatever `data.structures` reads.
        output: .h5, .hdf5, .xyz or .extxyz.
        level_of_theory: level of theory to write, for inputs that do not name theirs.
        reporter: where messages go.
        force: replace an existing output.
        dry_run: open the inputs and say what would be converted.

    Raises:
        UsageError: a suffix that cannot be written, an existing output, or inputs of different
            levels of theory.
        DataError: an input is malformed or empty.
    """
    write = _WRITERS.get(output.suffix.lower())
    if write is None:
        raise UsageError(
            f"no writer for the suffix {output.suffix!r}",
            where=str(output),
            remedy=f"choose one of {', '.join(sorted(_WRITERS))}",
        )
    with ExitStack() as stack:
        sources = [_open(path, stack, reporter) for path in inputs]
        level = _common_level(sources, level_of_theory, reporter)
        totals = [s.total for s in sources]
        total = None if None in totals else sum(t for t in totals if t is not None)
        if dry_run:
            names = ", ".join(map(str, inputs))
            plan = f"would convert {names} ({level or 'level of theory not known'}) to {output}"
            known = {"output": str(output), "molecules": total, "level_of_theory": level}
            return Summary(known, lines=[plan])
        bar = stack.enter_context(reporter.progress(total, "converting", "molecules"))
        counts: dict[str, int] = {}
        molecules = _count(sources, counts, bar)
        written = write(output, molecules, level, _attrs(sources, level, level_of_theory), force)
    rows: list[list[Any]] = [[name, n] for name, n in counts.items()]
    data = {
        "output": str(output),
        "molecules": written,
        "level_of_theory": level,
        "inputs": counts,
    }
    notes = [f"level of theory: {level or 'not known'}"]
    table = Table("converted", ["input", "molecules"], rows, notes)
    return Summary(data, [table], [f"wrote {output}"])


def _open(path: Path, stack: ExitStack, reporter: Reporter) -> _Source:
    if path.suffix.lower() in (".h5", ".hdf5"):
        file = stack.enter_context(GroupedHDF5(path))
        for note in file.notes:
            reporter.warning(note)
        ignored = _unknown_fields(path)
        if ignored:
            reporter.warning(f"{path}: not in our vocabulary, left out: {', '.join(ignored)}")
        origin = file.attrs.get("provenance")
        return _Source(path, file.level_of_theory, _rows(file), file.n_molecules, origin)
    frames = read_structures(path)
    first = next(frames)
    level = first.level_of_theory if isinstance(first, Structure) else None
    return _Source(path, level or None, _structures(first, frames, level or ""), None)


def _rows(file: GroupedHDF5) -> Molecules:
    for group in file.groups:
        names = sorted({*group.fields, "charge", "mult"})
        for rows, arrays in group.iter_chunks(names, ROWS):
            for i in range(rows.stop - rows.start):
                yield {name: arrays[name][i] for name in names}


def _unknown_fields(path: Path) -> list[str]:
    with h5py.File(path, "r") as file:
        return sorted({name for group in file.values() for name in group if name not in FIELDS})


def _structures(
    first: Structure | DataError, rest: Iterator[Structure | DataError], level: str
) -> Molecules:
    for found in itertools.chain([first], rest):
        if isinstance(found, DataError):
            raise found
        if found.level_of_theory != level:
            raise DataError(
                f"one level of theory per file, found {level!r} and {found.level_of_theory!r}",
                where=found.where,
                remedy="split the file",
            )
        molecule = {"molecule": found.molecule} if found.molecule else {}
        yield {
            "coord": found.coord,
            "numbers": found.numbers,
            "charge": found.charge,
            "mult": found.mult,
            **molecule,
            **found.labels,
        }


def _common_level(sources: Sequence[_Source], asked: str | None, reporter: Reporter) -> str | None:
    """The one level of theory of all inputs; energies of different ones must not mix."""
    levels = {str(s.path): s.level_of_theory for s in sources}
    known = {level for level in levels.values() if level}
    if asked:
        known.add(asked)
    if len(known) > 1:
        told = ", ".join(f"{path}: {level}" for path, level in levels.items() if level)
        raise UsageError(
            f"one level of theory per file, found {' and '.join(sorted(known))} ({told})",
            remedy="convert each into its own file: they are fidelities of their own",
        )
    if asked:
        return asked
    if known and None in levels.values():
        unknown = [path for path, level in levels.items() if not level]
        reporter.warning(
            f"{', '.join(unknown)} names no level of theory, the output will name none; if it is "
            f"{known.pop()} too, say so with --level-of-theory"
        )
        return None
    return known.pop() if known else None


def _count(sources: Sequence[_Source], counts: dict[str, int], bar: Progress) -> Molecules:
    for source in sources:
        name = str(source.path)
        for molecule in source.molecules:
            counts[name] = counts.get(name, 0) + 1
            bar.advance(1)
            yield molecule


def _attrs(sources: Sequence[_Source], level: str | None, asked: str | None) -> dict[str, Any]:
    """Root attributes; what an input says about its own origin is carried along."""
    inputs = [s.path for s in sources]
    words = ["mlff", "convert", *map(str, inputs)]
    if asked:
        words += ["--level-of-theory", asked]
    record = provenance(words, inputs)
    origins = {str(s.path): _parsed(s.provenance) for s in sources if s.provenance}
    record = {**record, **({"origins": origins} if origins else {})}
    return {**({"level_of_theory": level} if level else {}), "provenance": record}


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return str(text)


def _to_grouped(
    output: Path, molecules: Molecules, level: str | None, attrs: dict[str, Any], force: bool
) -> int:
    return write_grouped(output, molecules, attrs, force=force)


def _to_extxyz(
    output: Path, molecules: Molecules, level: str | None, attrs: dict[str, Any], force: bool
) -> int:
    return write_extxyz(output, molecules, level_of_theory=level, force=force)


_Writer = Callable[[Path, Molecules, str | None, dict[str, Any], bool], int]
_WRITERS: Mapping[str, _Writer] = MappingProxyType(
    {".h5": _to_grouped, ".hdf5": _to_grouped, ".xyz": _to_extxyz, ".extxyz": _to_extxyz}
)
