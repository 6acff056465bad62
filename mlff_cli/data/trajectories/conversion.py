"""Trajectories into other trajectories: several of one molecule become one, frame after frame.

| suffix         | format                                                                  |
|----------------|-------------------------------------------------------------------------|
| .h5 .hdf5 .h5md| H5MD: topology, forces, box, energies, temperatures                     |
| .npz           | NPZ {R, F, Z}: the same but the topology, kcal/mol and angstrom         |
| .xyz .extxyz   | extended XYZ: positions, cell, energies and forces in eV and angstrom   |

Frames pass in chunks: memory does not grow with their number. Positions stay as they are, whatever
a box cut.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import mdtraj
import numpy as np

from mlff_cli.core.artifacts import provenance
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import Progress, Reporter, Summary, Table
from mlff_cli.core.units import KCAL_MOL
from mlff_cli.data.extxyz import write_extxyz
from mlff_cli.data.trajectories.frames import Frames, Trajectory, chunks
from mlff_cli.data.trajectories.h5md_writer import write_h5md
from mlff_cli.data.trajectories.npz import write_trajectory_npz
from mlff_cli.data.trajectories.opening import open_trajectory, source_digest
from mlff_cli.data.trajectories.topology_file import atomic_numbers, bonded_pairs
from mlff_cli.data.trajectories.units import KJ_MOL, KJ_MOL_NM, NM

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

OPTIONAL = tuple(f.name for f in fields(Frames) if f.name not in ("rows", "positions"))
# element of an H5MD file -> field of a frame, and what one of the file's units is worth in ours
H5MD = MappingProxyType(
    {
        "position": ("positions", NM),
        "force": ("forces", KJ_MOL_NM),
        "edges": ("box", NM),
        "potential_energy": ("energy", KJ_MOL),
        "temperature": ("temperature", 1.0),
    }
)
PDB_RANGE = (-999.999, 9999.999)  # what the columns hold; bonds and names are what is wanted of it
OWN = ("format", "provenance", "checked", "selection", "topology_pdb", "replicas", "temperatures")


@dataclass(frozen=True)
class _Joined:
    """Opened trajectories of one molecule, as one."""

    trajectories: Sequence[Trajectory]
    numbers: np.ndarray  # (N,)
    topology: mdtraj.Topology | None
    first: Frames  # of the first trajectory
    present: frozenset[str]  # fields that all have
    facts: dict[str, Any]

    @property
    def n_frames(self) -> int:
        return sum(t.n_frames for t in self.trajectories)

    def pieces(self, bar: Progress) -> Iterator[Frames]:
        """All frames in order, with the fields that are present and rows counted through."""
        start = 0
        for trajectory in self.trajectories:
            for rows in chunks(np.arange(trajectory.n_frames), trajectory.n_atoms):
                read = trajectory.read(rows, forces="forces" in self.present)
                kept = {name: getattr(read, name) for name in self.present}
                if "box" in kept and kept["box"] is None:  # of this chunk only
                    kept["box"] = np.zeros((len(rows), 3, 3))
                yield Frames(rows + start, read.positions, **kept)
                bar.advance(len(rows))
            start += trajectory.n_frames


def convert_trajectories(
    inputs: Sequence[Path],
    output: Path,
    top: Path | None,
    reporter: Reporter,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Write trajectories of one molecule into one file.

    Args:
        inputs: trajectories, of mdCATH also `FILE@SELECTION`.
        output: see the module's table.
        top: a topology for inputs that have none.
        reporter: where messages go.
        force: replace an existing output.
        dry_run: open the inputs and say what would be converted.

    Raises:
        UsageError: a suffix that cannot be written, elements that nobody names, an existing output.
        DataError: an input is malformed, or of another molecule than the first.
    """
    write = _WRITERS.get(output.suffix.lower())
    if write is None:
        raise UsageError(
            f"no writer of trajectories for the suffix {output.suffix!r}",
            where=str(output),
            remedy=f"choose one of {', '.join(sorted(_WRITERS))}",
        )
    with ExitStack() as stack:
        opened = [stack.enter_context(open_trajectory(path, top)) for path in inputs]
        for note in dict.fromkeys(note for t in opened for note in t.notes):
            reporter.warning(note)
        joined = _join(opened, reporter)
        counts = {str(p): t.n_frames for p, t in zip(inputs, opened, strict=True)}
        told = {
            "output": str(output),
            "frames": joined.n_frames,
            "atoms": len(joined.numbers),
            "forces": "forces" in joined.present,
            "inputs": counts,
        }
        if dry_run:
            names = ", ".join(map(str, inputs))
            return Summary(told, lines=[f"would convert {names} to {output}"])
        facts = {**joined.facts, "provenance": _provenance(inputs, top, opened)}
        bar = stack.enter_context(reporter.progress(joined.n_frames, "converting", "frames"))
        write(output, joined, joined.pieces(bar), facts, force)
    rows = [[name, t.format, n] for (name, n), t in zip(counts.items(), opened, strict=True)]
    held = ", ".join(["positions", *sorted(joined.present)])
    table = Table("converted", ["input", "format", "frames"], rows, [f"{held} of every frame"])
    return Summary(told, [table], [f"wrote {output}"])


def _join(opened: Sequence[Trajectory], reporter: Reporter) -> _Joined:
    """One molecule, or an error; what only some inputs have is left out, and said."""
    first = opened[0]
    elements = [_numbers(t) for t in opened]
    numbers = next((z for z in elements if z is not None), None)
    for trajectory, z in zip(opened, elements, strict=True):
        same = trajectory.n_atoms == first.n_atoms
        if not same or (z is not None and numbers is not None and (z != numbers).any()):
            seen = "other elements" if same else f"{trajectory.n_atoms} and {first.n_atoms} atoms"
            raise DataError(
                f"trajectories of one molecule become one, found {seen} in {trajectory.path} and "
                f"{first.path}",
                where=str(trajectory.path),
                remedy="convert each molecule into its own file",
            )
    if numbers is None or not (numbers > 0).all():
        unnamed = "all" if numbers is None else f"{int((numbers <= 0).sum())}"
        raise UsageError(
            f"every atom needs an element, {unnamed} of {first.n_atoms} have none",
            where=str(first.path),
            remedy="give a topology with --top",
        )
    frames = [t.read(np.array([0]), forces=t.has_forces) for t in opened]
    has = [{n for n in OPTIONAL if getattr(f, n) is not None} for f in frames]
    present = set.intersection(*has)
    for name in sorted(set.union(*has) - present):
        without = [str(t.path) for t, names in zip(opened, has, strict=True) if name not in names]
        reporter.warning(f"{name} are left out: {', '.join(without)} has none")
    topology = next((t.topology for t in opened if t.topology is not None), None)
    facts = {k: v for k, v in first.facts.items() if k not in OWN}
    facts = {k: v for k, v in facts.items() if all(t.facts.get(k) == v for t in opened)}
    return _Joined(opened, numbers, topology, frames[0], frozenset(present), facts)


def _numbers(trajectory: Trajectory) -> np.ndarray | None:
    """(N,) atomic numbers by the topology, else by the file's own."""
    if trajectory.topology is not None:
        return atomic_numbers(trajectory.topology)
    found: np.ndarray | None = getattr(trajectory, "numbers", None)
    return found


def _provenance(
    inputs: Sequence[Path], top: Path | None, opened: Sequence[Trajectory]
) -> dict[str, Any]:
    """What made the output; what an input says about its own origin is carried along."""
    words = ["mlff", "convert", *map(str, inputs), *(["--top", str(top)] if top else [])]
    digests = {path: source_digest(path) for path in inputs}
    record = provenance(words, [*inputs, *([top] if top else [])], digests=digests)
    told = {str(p): t.facts.get("provenance") for p, t in zip(inputs, opened, strict=True)}
    origins = {name: origin for name, origin in told.items() if origin}
    return {**record, **({"origins": origins} if origins else {})}


def _to_h5md(
    output: Path, joined: _Joined, pieces: Iterator[Frames], facts: dict[str, Any], force: bool
) -> None:
    elements = [e for e, (f, _) in H5MD.items() if f in {"positions", *joined.present}]
    positions = joined.first.positions
    dtype = "float64" if positions is not None and positions.dtype.itemsize == 8 else "float32"
    attrs = dict(facts)
    if "time" not in joined.present:
        attrs["time"] = "frames counted from 0: the inputs tell no times"
    bonds = None
    if joined.topology is not None and positions is not None:
        attrs["topology_pdb"] = _pdb(joined.topology, positions[0])
        bonds = bonded_pairs(joined.topology)
    frames = (_h5md_piece(piece, elements, dtype) for piece in pieces)
    n = joined.n_frames
    write_h5md(
        output, elements, n, joined.numbers, frames,
        bonds=bonds, attrs=attrs, dtype=dtype, force=force,
    )  # fmt: skip


def _h5md_piece(piece: Frames, elements: Sequence[str], dtype: DTypeLike) -> dict[str, np.ndarray]:
    """Frames in the file's units."""
    steps = piece.rows
    found = {"step": steps, "time": steps.astype("float64") if piece.time is None else piece.time}
    for element in elements:
        field, unit = H5MD[element]
        found[element] = np.asarray(getattr(piece, field), "float64") / unit
    return found


def _pdb(topology: mdtraj.Topology, positions: np.ndarray) -> str:
    """A topology as PDB text, without the date that mdtraj puts on top."""
    with tempfile.NamedTemporaryFile("r", suffix=".pdb") as stream:
        with mdtraj.formats.PDBTrajectoryFile(stream.name, "w") as file:
            centred = positions - positions.mean(axis=0)  # columns are narrow
            file.write(np.clip(centred, *PDB_RANGE), topology)
        lines = Path(stream.name).read_text().splitlines()
    return "\n".join([*(t for t in lines if not t.startswith("REMARK")), ""])


def _to_npz(
    output: Path, joined: _Joined, pieces: Iterator[Frames], facts: dict[str, Any], force: bool
) -> None:
    write_trajectory_npz(output, pieces, joined.numbers, facts, force=force)


def _to_extxyz(
    output: Path, joined: _Joined, pieces: Iterator[Frames], facts: dict[str, Any], force: bool
) -> None:
    write_extxyz(output, _molecules(pieces, joined.numbers), force=force)


def _molecules(pieces: Iterator[Frames], numbers: np.ndarray) -> Iterator[Mapping[str, Any]]:
    """Frames one by one, in eV and angstrom."""
    for piece in pieces:
        assert piece.positions is not None
        for i, coord in enumerate(piece.positions):
            molecule: dict[str, Any] = {"coord": coord, "numbers": numbers}
            if piece.forces is not None:
                molecule["forces"] = piece.forces[i] * KCAL_MOL
            if piece.energy is not None:
                molecule["energy"] = piece.energy[i] * KCAL_MOL
            if piece.box is not None and piece.box[i].any():
                molecule["cell"] = piece.box[i]
            yield molecule


_Writer = Callable[[Path, _Joined, Iterator[Frames], dict[str, Any], bool], None]
_WRITERS: Mapping[str, _Writer] = MappingProxyType(
    {
        ".h5": _to_h5md, ".hdf5": _to_h5md, ".h5md": _to_h5md,
        ".npz": _to_npz, ".xyz": _to_extxyz, ".extxyz": _to_extxyz,
    }
)  # fmt: skip
