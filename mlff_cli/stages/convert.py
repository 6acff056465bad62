"""`mlff convert`: data files of one kind into one file; the kind of the inputs decides.

| inputs, by their content                   | outputs                  | in `data`               |
|--------------------------------------------|--------------------------|-------------------------|
| molecules: grouped HDF5, extxyz, SDF, ...  | grouped HDF5, extxyz     | `molecule_conversion`   |
| trajectories: H5MD, NPZ {R,F,Z}, TRR, ...  | H5MD, NPZ, extxyz        | `trajectory_conversion` |
| coarse-grained sets: NPZ with species      | one padded NPZ           | `cg_combine`            |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mlff_cli.core.artifacts import check_writable
from mlff_cli.core.errors import UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.data.trajectories.opening import split_selection, trajectory_format


@dataclasses.dataclass(frozen=True)
class Options:
    """How to convert.

    Attributes:
        level_of_theory: of molecules: level of theory to write, for inputs that do not name theirs.
        force: replace an existing output.
        dry_run: open the inputs and say what would be converted, write nothing.
        top: of trajectories: a file with the topology (elements, residues, bonds).
    """

    level_of_theory: str | None = None
    force: bool = False
    dry_run: bool = False
    top: Path | None = None


def run(
    inputs: Sequence[Path], output: Path, options: Options, reporter: Reporter | None = None
) -> Summary:
    """Combine the inputs, in their order, into one file.

    Args:
        inputs: files of one kind; of mdCATH files also parts, as `FILE.h5@320/1`.
        output: its suffix chooses the format.
        options: see `Options`.
        reporter: where messages go.

    Raises:
        UsageError: no input, inputs of several kinds, a suffix that cannot be written, an existing
            output, an option of another kind, or inputs of different levels of theory.
        DataError: an input is malformed or empty.
    """
    reporter = reporter or NullReporter()
    if not inputs:
        raise UsageError("nothing to convert", remedy="name at least one input")
    kinds = {str(path): _kind(path) for path in inputs}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{path}: {kind}" for path, kind in kinds.items())
        raise UsageError(
            f"files of one kind are combined, found {told}", remedy="convert each kind by itself"
        )
    kind = kinds[str(inputs[0])]
    _check_options(kind, options)
    files = [split_selection(path)[0] for path in inputs]
    check_writable(output, force=options.force, inputs=files)
    how = {"force": options.force, "dry_run": options.dry_run}
    # here, because each kind brings its own libraries
    if kind == "trajectories":
        from mlff_cli.data.trajectories.conversion import convert_trajectories

        return convert_trajectories(inputs, output, options.top, reporter, **how)
    if kind == "coarse-grained sets":
        from mlff_cli.data.beads.cg_combine import combine

        return combine(inputs, output, reporter, **how)
    from mlff_cli.data.molecule_conversion import convert_molecules

    return convert_molecules(inputs, output, options.level_of_theory, reporter, **how)


def _kind(path: Path) -> str:
    """What a file holds, by its content."""
    if trajectory_format(path) is not None:
        return "trajectories"
    return "coarse-grained sets" if path.suffix.lower() == ".npz" else "molecules"


def _check_options(kind: str, options: Options) -> None:
    """Refuse options that the inputs' kind has no use for."""
    unused = {
        "--level-of-theory": options.level_of_theory is not None and kind != "molecules",
        "--top": options.top is not None and kind != "trajectories",
    }
    for name, wrong in unused.items():
        if wrong:
            raise UsageError(f"{name} means nothing for {kind}", remedy="leave it out")
