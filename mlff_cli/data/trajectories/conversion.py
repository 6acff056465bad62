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
from mlff_cli.data.trajectories.h5md_layout import COUNTED
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
IN_XYZ = frozenset(("forces", "energy", "box"))
PDB_RANGE = (-999.999, 9999.999)  # what the columns hold; bonds and names are what is wanted of it
OWN = ("format", "provenance", "checked", "selection", "topology_pdb", "replicas", "temperatures")


@dataclass(frozen=True)
class _Input:
    """What was seen of a trajectory, which is closed again: hundreds can be joined."""

    path: Path  # as it was given
    format: str
    n_frames: int
    n_atoms: int
    numbers: np.ndarray | None  # (N,)
    topology: mdtraj.Topology | None
    first: Frames
    facts: dict[str, Any]
    notes: list[str]

    @property
    def has(self) -> set[str]:
        """Fields of its frames."""
        return {name for name in OPTIONAL if getattr(self.first, name) is not None}


@dataclass(frozen=True)
class _Joined:
    """Trajectories of one molecule, as one."""

    inputs: Sequence[_Input]
    numbers: np.ndarray  # (N,)
    topology: mdtraj.Topology | None
    positions: np.ndarray  # (N, 3) of the first frame
    present: frozenset[str]  # fields that all have
    facts: dict[str, Any]

    @property
    def n_frames(self) -> int:
        return sum(one.n_frames for one in self.inputs)

    def pieces(self, bar: Progress) -> Iterator[Frames]:
        """All frames in order, with the fields that are present and rows counted through."""
        start = 0
        for one in self.inputs:
            with open_trajectory(one.path, either=True) as trajectory:
                for rows in chunks(np.arange(one.n_frames), one.n_atoms):
                    read = trajectory.read(rows, forces="forces" in self.present)
                    kept = {name: getattr(read, name) for name in self.present}
                    if "box" in kept and kept["box"] is None:  # of this chunk only
                        kept["box"] = np.zeros((len(rows), 3, 3))
                    yield Frames(rows + start, read.positions, **kept)
                    bar.advance(len(rows))
            start += one.n_frames


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
    kind = _WRITERS.get(output.suffix.lower())
    if kind is None:
        raise UsageError(
            f"no writer of trajectories for the suffix {output.suffix!r}",
            where=str(output),
            remedy=f"choose one of {', '.join(sorted(_WRITERS))}",
        )
    write, fields = kind
    looked = [_look(path, top) for path in inputs]
    for note in dict.fromkeys(note for one in looked for note in one.notes):
        reporter.warning(note)
    joined = _join(looked, reporter)
    counts = {str(one.path): one.n_frames for one in looked}
    held = ["positions", *sorted(joined.present & fields)]
    told = {
        "output": str(output),
        "frames": joined.n_frames,
        "atoms": len(joined.numbers),
        "forces": "forces" in joined.present,
        "fields": held,
        "inputs": counts,
    }
    if dry_run:
        names = ", ".join(map(str, inputs))
        return Summary(told, lines=[f"would convert {names} to {output}"])
    facts = {**joined.facts, "provenance": _provenance(looked, top)}
    with reporter.progress(joined.n_frames, "converting", "frames") as bar:
        write(output, joined, joined.pieces(bar), facts, force)
    rows = [[str(one.path), one.format, one.n_frames] for one in looked]
    notes = [f"{', '.join(held)} of every frame"]
    if lost := sorted(joined.present - fields):
        notes.append(f"left out, as {output.suffix} has no place for it: {', '.join(lost)}")
    table = Table("converted", ["input", "format", "frames"], rows, notes)
    return Summary(told, [table], [f"wrote {output}"])


def _look(path: Path, top: Path | None) -> _Input:
    """Open a trajectory, read its first frame, and close it."""
    with open_trajectory(path, top, either=True) as found:
        return _Input(
            path,
            found.format,
            found.n_frames,
            found.n_atoms,
            _numbers(found),
            found.topology,
            found.read(np.array([0]), forces=found.has_forces),
            found.facts,
            found.notes,
        )


def _join(inputs: Sequence[_Input], reporter: Reporter) -> _Joined:
    """One molecule, or an error; what only some inputs have is left out, and said."""
    first = inputs[0]
    numbers = next((one.numbers for one in inputs if one.numbers is not None), None)
    for one in inputs:
        same = one.n_atoms == first.n_atoms
        z, beads = one.numbers, one.facts.get("beads") != first.facts.get("beads")
        if not same or beads or (z is not None and numbers is not None and (z != numbers).any()):
            seen = (
                f"other {'beads' if beads else 'elements'}"
                if same
                else f"{one.n_atoms} and {first.n_atoms} atoms"
            )
            raise DataError(
                f"trajectories of one molecule become one, found {seen} in {one.path} and "
                f"{first.path}",
                where=str(one.path),
                remedy="convert each molecule into its own file",
            )
    if numbers is None or not (numbers > 0).all():
        unnamed = "all" if numbers is None else f"{int((numbers <= 0).sum())}"
        raise UsageError(
            f"every atom needs an element, {unnamed} of {first.n_atoms} have none",
            where=str(first.path),
            remedy="give a topology with --top",
        )
    present = set.intersection(*(one.has for one in inputs))
    for name in sorted(set.union(*(one.has for one in inputs)) - present):
        without = [str(one.path) for one in inputs if name not in one.has]
        is_left = "are" if name == "forces" else "is"
        reporter.warning(
            f"{name} {is_left} left out: {', '.join(without)} "
            f"{'has' if len(without) == 1 else 'have'} none"
        )
    topology = next((one.topology for one in inputs if one.topology is not None), None)
    facts = {k: v for k, v in first.facts.items() if k not in OWN}
    facts = {k: v for k, v in facts.items() if all(one.facts.get(k) == v for one in inputs)}
    assert first.first.positions is not None
    return _Joined(inputs, numbers, topology, first.first.positions[0], frozenset(present), facts)


def _numbers(trajectory: Trajectory) -> np.ndarray | None:
    """(N,) atomic numbers by the topology, else by the file's own."""
    if trajectory.topology is not None:
        return atomic_numbers(trajectory.topology)
    found: np.ndarray | None = getattr(trajectory, "numbers", None)
    return found


def _provenance(inputs: Sequence[_Input], top: Path | None) -> dict[str, Any]:
    """What made the output; what an input says about its own origin is carried along."""
    paths = [one.path for one in inputs]
    words = ["mlff", "convert", *map(str, paths), *(["--top", str(top)] if top else [])]
    digests = {path: source_digest(path) for path in paths}
    record = provenance(words, [*paths, *([top] if top else [])], digests=digests)
    told = {str(one.path): one.facts.get("provenance") for one in inputs}
    origins = {name: origin for name, origin in told.items() if origin}
    return {**record, **({"origins": origins} if origins else {})}


def _to_h5md(
    output: Path, joined: _Joined, pieces: Iterator[Frames], facts: dict[str, Any], force: bool
) -> None:
    elements = [e for e, (f, _) in H5MD.items() if f in {"positions", *joined.present}]
    dtype = "float64" if joined.positions.dtype.itemsize == 8 else "float32"
    attrs = dict(facts)
    if "time" not in joined.present:
        attrs["time"] = COUNTED
    bonds = None
    if joined.topology is not None:
        attrs["topology_pdb"] = _pdb(joined.topology, joined.positions)
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
_ALL = frozenset(OPTIONAL)
_WRITERS: Mapping[str, tuple[_Writer, frozenset[str]]] = MappingProxyType(
    {  # suffix -> writer, and the fields of a frame that it keeps
        ".h5": (_to_h5md, _ALL), ".hdf5": (_to_h5md, _ALL), ".h5md": (_to_h5md, _ALL),
        ".npz": (_to_npz, _ALL),
        ".xyz": (_to_extxyz, IN_XYZ), ".extxyz": (_to_extxyz, IN_XYZ),
    }
)  # fmt: skip
