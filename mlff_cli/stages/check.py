"""`mlff check`: whether a data file is what it should be, before anything is made from it.

| file                                       | looked at                                          |
|--------------------------------------------|----------------------------------------------------|
| coarse-grained NPZ                         | species, forces, bonds, overlaps, repeats, maps    |
| trajectory (H5MD, NPZ, mdCATH, TRR, ...)   | frames, forces, energies, repeats                  |
| grouped HDF5                               | labels, contacts, forces, repeats                  |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlff_cli.coarse.checklist import check_set
from mlff_cli.core.checks import Check, check_table
from mlff_cli.core.errors import CheckFailedError, DataError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.data.beads.cg_npz import CGSet, is_cg_npz
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.data.molecule_checklist import check_molecules
from mlff_cli.data.trajectories.checklist import check_trajectory
from mlff_cli.data.trajectories.opening import open_trajectory, split_selection, trajectory_format

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Options:
    """What `mlff check` can be told.

    Attributes:
        top: topology of trajectories; `data.trajectories.agreement` says what is compared.
    """

    top: Path | None = None


def run(
    files: Sequence[Path | str],
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Look the files over.

    Args:
        files: data files of any kind.
        options: see `Options`.
        reporter: who listens.

    Returns:
        A table per file; `failure` is set when something is wrong.

    Raises:
        UsageError: no file was named.
        StorageError: a file is missing.
    """
    reporter = reporter or NullReporter()
    if not files:
        raise UsageError("nothing to check", remedy="name at least one file")
    found = {str(path): _checks(path, options, reporter) for path in files}
    tables = [check_table(path, checks) for path, checks in found.items()]
    counts = {path: _count(checks, "failed") for path, checks in found.items()}
    warnings = sum(_count(checks, "warning") for checks in found.values())
    wrong = [path for path, n in counts.items() if n]
    failure = None
    if wrong:
        n = sum(counts.values())
        failure = CheckFailedError(
            f"{n} check{'s' * (n > 1)} failed",
            where=", ".join(wrong),
            remedy="mend what the table names; the remedies stand below it",
        )
    data = {
        "files": {path: [c.plain() for c in checks] for path, checks in found.items()},
        "failed": sum(counts.values()),
        "warnings": warnings,
    }
    line = f"{_plural(len(found), 'file')}: {_plural(sum(counts.values()), 'check')} failed"
    return Summary(data, tables, [f"{line}, {_plural(warnings, 'warning')}"], failure=failure)


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _count(checks: Sequence[Check], verdict: str) -> int:
    return sum(c.verdict == verdict for c in checks)


def _checks(path: Path | str, options: Options, reporter: Reporter) -> list[Check]:
    """Findings about one file; what keeps it from being read is one of them."""
    file = split_selection(path)[0]
    try:
        return _kind(file)(path, options, reporter)
    except DataError as error:
        return [Check.failed("file", error)]


_Look = Callable[[Path | str, Options, Reporter], list[Check]]


def _kind(file: Path) -> _Look:
    """What looks at a file, by its content."""
    with file.open("rb") as stream:
        head = stream.read(len(HDF5_SIGNATURE))
    if head[:4] == b"PK\x03\x04" and is_cg_npz(file):
        return _set
    if trajectory_format(file):
        return _trajectory
    if head and head != HDF5_SIGNATURE:
        raise DataError(
            "neither a coarse-grained set nor a trajectory nor grouped HDF5, by its first bytes",
            where=str(file),
            remedy="convert structures with `mlff convert`; `mlff info` knows other files of mlff",
        )
    return _molecules


def _set(path: Path | str, options: Options, reporter: Reporter) -> list[Check]:
    with CGSet(path) as data, reporter.progress(data.n_frames, f"checking {path}", "frames") as bar:
        return check_set(data, bar.advance)


def _trajectory(path: Path | str, options: Options, reporter: Reporter) -> list[Check]:
    with (
        open_trajectory(path, options.top, either=True) as data,
        reporter.progress(data.n_frames, f"checking {path}", "frames") as bar,
    ):
        return check_trajectory(data, bar.advance)


def _molecules(path: Path | str, options: Options, reporter: Reporter) -> list[Check]:
    with GroupedHDF5(path) as file:
        return check_molecules(file)
