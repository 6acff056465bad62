"""`mlff cg-map`: trajectories of one molecule become trajectories of its beads.

The topology and the first frame make the beads (`coarse.mapping.molecule`); then frames pass in
pieces that do not depend on who maps them, so that one process, several, or a cluster write the
same bytes. Memory does not grow with frames. torch is not imported.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np

from mlff_cli.coarse.mapping.bead_positions import map_frames
from mlff_cli.coarse.mapping.mapping_file import read_mapping
from mlff_cli.coarse.mapping.molecule import Made, Recipe, make_molecule
from mlff_cli.coarse.mapping.residues import read_residue_table
from mlff_cli.coarse.mapping.species import KINDS
from mlff_cli.core.artifacts import check_writable, provenance
from mlff_cli.core.cluster import check_crew
from mlff_cli.core.command_line import command_line
from mlff_cli.core.digests import Digests
from mlff_cli.core.errors import DataError, MLFFError, UsageError
from mlff_cli.core.memory import size_text
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.data.beads.cg_npz import BeadMolecule, CGBlock
from mlff_cli.data.beads.cg_writer import CGWriter
from mlff_cli.data.beads.force_sources import absolute, digests, paths_as_given
from mlff_cli.data.trajectories.frame_choice import choose_frames, frame_temperatures
from mlff_cli.data.trajectories.opening import (
    Trajectory,
    open_trajectory,
    split_selection,
    trajectory_format,
)
from mlff_cli.data.trajectories.topology_file import bonded_pairs, read_topology
from mlff_cli.data.trajectories.whole import BondTree


@dataclass(frozen=True)
class Options:
    """What `mlff cg-map` can be told.

    Attributes:
        mapping: "ca", "cacb", "heavy-backbone", "com", names of atoms as "N,CA,CB,C", or a YAML
            file (`coarse.mapping.mapping_file`).
        species: "residue" or "class" (`coarse.mapping.species`).
        termini: ends of chains are species of their own.
        stride: take every so many frames of each temperature.
        frames: of these, draw so many; None takes all.
        temperature: take frames of this temperature only, K.
        name: of the molecule, by which reports and lists of constraints call it; None takes that
            of the topology's file.
        residues: YAML table of non-standard residues (`coarse.mapping.residues`).
        disulfides: they are bonds of beads.
        workers: processes; 0 takes one per available core.
        scheduler: address of a Dask scheduler, in place of `workers`.
        seed: of the draw.
        force: replace an existing output.
        dry_run: look at all inputs and say what would be done, write nothing.
    """

    mapping: str = "ca"
    species: str = "residue"
    termini: bool = False
    stride: int = 1
    frames: int | None = None
    temperature: float | None = None
    name: str | None = None
    residues: Path | None = None
    disulfides: bool = True
    workers: int = 1
    scheduler: str | None = None
    seed: int = 0
    force: bool = False
    dry_run: bool = False


def run(
    topology: Path | str,
    trajectories: Sequence[Path | str],
    output: Path | str,
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Map frames of one molecule to beads.

    Args:
        topology: PDB or any topology that mdtraj reads, or a trajectory that holds its own.
        trajectories: of this molecule; of mdCATH a part may be named as `FILE.h5@320`.
        output: NPZ file (`data.beads.cg_npz`).
        options: see `Options`.
        reporter: who listens.

    Returns:
        Beads and frames, and where they come from.

    Raises:
        UsageError: an option is out of range, the output exists, a trajectory is named twice, or
            fewer frames are there than asked for.
        ConfigError: a faulty mapping file or table of residues.
        DataError: files that are damaged or do not belong together, residues that nobody knows,
            atoms that are missing, no frames of that temperature.
        MissingDependencyError: a format's package is absent, or the scheduler does not answer.
    """
    reporter, paths = reporter or NullReporter(), [str(p) for p in trajectories]
    files = _check(topology, paths, output, options)
    table = read_residue_table(options.residues) if options.residues else {}
    recipe = Recipe(options.mapping, options.species, options.termini, options.disulfides, table)
    frame = _topology(topology, reporter)
    notes, temperatures, facts = list[str](), list[np.ndarray](), list[tuple[str, int, int]]()
    first = None
    for path in paths:  # one at a time: there may be more than can be open
        with open_trajectory(path, frame) as opened:
            notes += opened.notes
            first = _first_frame(opened, frame) if first is None else first
            temperatures.append(frame_temperatures(opened))
            facts.append((opened.format, opened.n_frames, opened.n_atoms))
    for note in dict.fromkeys(notes):
        reporter.warning(note)
    assert first is not None
    try:
        made = make_molecule(options.name or Path(topology).stem, frame, first, recipe)
    except MLFFError as error:
        error.where = error.where or str(topology)
        raise
    for remark in made.remarks:
        reporter.info(remark)
    for note in [*made.notes, *_small(made.molecule)]:
        reporter.warning(note)
    rows = choose_frames(
        temperatures,
        temperature=options.temperature,
        stride=options.stride,
        frames=options.frames,
        seed=options.seed,
    )
    summary = _summary(output, paths, facts, rows, made, options)
    if options.dry_run:
        plan = f"would map {sum(map(len, rows))} frames to {made.molecule.n_beads} beads"
        return dataclasses.replace(summary, lines=[f"{plan} and write {output}"])
    sources: list[dict[str, Any]] = [
        {"path": p, "format": f, "n_frames": n, "n_atoms": atoms, "molecule": 0}
        for p, (f, n, atoms) in zip(paths, facts, strict=True)
    ]
    told = [*made.remarks, *made.notes]
    metadata: dict[str, Any] = {**_settings(recipe, options), "notes": told}
    read = [split_selection(p)[0] for p in paths]
    inputs = list(dict.fromkeys([Path(topology), *files, *read]))
    with Digests(inputs) as hashes, paths_as_given(paths):
        # hashes are waited for only where there may be copies
        _no_duplicates(digests(paths, hashes.of if _of_equal_size(read) else str))
        size = size_text(sum(file.stat().st_size for file in inputs))
        reporter.detail(f"hashing {size} of inputs while they are mapped")
        mapped = map_frames(
            list(map(absolute, paths)),
            rows,
            [n_atoms for _, _, n_atoms in facts],
            made.molecule,
            workers=options.workers,
            scheduler=options.scheduler,
            reporter=reporter,
        )
        with CGWriter(
            output, [made.molecule], made.species_table, sources, metadata, force=options.force
        ) as writer:
            for k, taken, R in mapped:
                source = np.full(len(taken), k)
                writer.append(CGBlock(0, R, source, taken, temperatures[k][taken]))
            for row, digest in zip(sources, digests(paths, hashes.of).values(), strict=True):
                row["sha256"] = digest
            metadata["provenance"] = provenance(
                command_line(["mlff", "cg-map", str(topology), *paths], options, Options()),
                inputs,
                seed=options.seed,
                packages=("mdtraj",),
                digests=hashes.all(),
            )
    return summary


def _check(
    topology: Path | str, paths: Sequence[str], output: Path | str, options: Options
) -> list[Path]:
    """Refuse what cannot be done before anything is read; return the small files that are read."""
    if Path(output).suffix.lower() != ".npz":
        raise UsageError(
            f"beads are written as NPZ, found the suffix {Path(output).suffix!r}",
            where=str(output),
            remedy="call it .npz",
        )
    if not paths:
        raise UsageError("a trajectory is needed", remedy="name at least one behind the topology")
    if options.species not in KINDS:
        raise UsageError(f"--species is one of {', '.join(KINDS)}, found {options.species!r}")
    for name in ("stride", "frames"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be 1 or more, found {value}")
    if options.temperature is not None and not 0 < options.temperature < np.inf:
        raise UsageError(f"--temperature must be above 0 K, found {options.temperature}")
    if options.name is not None and not options.name.strip():
        raise UsageError("--name must have a letter, found none", remedy="leave it out")
    if options.seed < 0:
        raise UsageError(f"--seed must be 0 or more, found {options.seed}")
    mapping = Recipe(options.mapping).file
    if mapping and (options.termini or options.species != Options().species):
        raise UsageError(
            "a mapping file names its own species, found --termini or --species beside it",
            remedy="write species into the file",
        )
    files = [f for f in (mapping, options.residues) if f is not None]
    given = [Path(topology), *(split_selection(p)[0] for p in paths), *files]
    check_writable(output, force=options.force, inputs=given)
    check_crew(options.workers, options.scheduler)
    repeated = [p for p, n in Counter(absolute(p) for p in paths).items() if n > 1]
    if repeated:
        raise UsageError(
            f"every trajectory counts once, found {repeated[0]} several times",
            remedy="name each file once",
        )
    return files


def _topology(path: Path | str, reporter: Reporter) -> mdtraj.Topology:
    if trajectory_format(path) is None:
        file = read_topology(path)
        for note in file.notes:
            reporter.warning(note)
        return file.topology
    with open_trajectory(path) as trajectory:
        if trajectory.topology is None:
            raise DataError(
                f"a topology is needed first, this {trajectory.format} trajectory holds none",
                where=str(path),
                remedy="give a PDB file of the same atoms, then the trajectories",
            )
        return trajectory.topology


def _first_frame(trajectory: Trajectory, topology: mdtraj.Topology) -> np.ndarray:
    """(N, 3) in angstrom, molecules whole."""
    frames = trajectory.read(np.array([0]))
    assert frames.positions is not None
    tree = BondTree(topology.n_atoms, bonded_pairs(topology))
    return np.asarray(tree.make_whole(frames.positions.astype("float64"), frames.box)[0])


def _small(molecule: BeadMolecule) -> list[str]:
    n = molecule.n_beads
    if n >= 4:
        return []
    lacking = ["no distance", "no angle", "no dihedral"][n - 1 :]
    return [
        f"only {n} bead{'s' * (n > 1)} made of {molecule.n_atoms} atoms: {', '.join(lacking)} to "
        "learn from; a finer mapping has more (heavy-backbone, or N,CA,CB,C with its caps)"
    ]


def _of_equal_size(files: Iterable[Path]) -> bool:
    """Whether two files may be copies of one another."""
    return max(Counter(file.stat().st_size for file in set(files)).values()) > 1


def _no_duplicates(found: Mapping[str, str]) -> None:
    """Refuse copies of a trajectory, and a part beside the whole that it is of."""
    for (a, first), (b, second) in itertools.permutations(found.items(), 2):
        if first == second or second.startswith((f"{first}@", f"{first}/")):
            what = "a copy" if first == second else "a part"
            raise UsageError(
                f"every frame counts once, {b} is {what} of {a}",
                remedy="leave one of them out",
            )


def _settings(recipe: Recipe, options: Options) -> dict[str, Any]:
    file = recipe.file
    return {
        "mapping": options.mapping if file is None else file.name,
        **({} if file is None else {"mapping_file": read_mapping(file)}),
        "species": options.species if file is None else "mapping_file",
        "termini": options.termini,
        "disulfides": options.disulfides,
        "residues": {name: dataclasses.asdict(kind) for name, kind in recipe.table.items()},
        "stride": options.stride,
        "frames": options.frames,
        "temperature": options.temperature,
        "seed": options.seed,
    }


def _summary(
    output: Path | str,
    paths: Sequence[str],
    facts: Sequence[tuple[str, int, int]],
    rows: Sequence[np.ndarray],
    made: Made,
    options: Options,
) -> Summary:
    molecule = made.molecule
    species = Counter(made.species_table[s] for s in molecule.species.tolist())
    listed = [
        [path, kind, n, len(taken)]
        for path, (kind, n, _), taken in zip(paths, facts, rows, strict=True)
    ]
    data = {
        "output": str(output),
        "mapping": options.mapping,
        "molecule": molecule.name,
        "frames": sum(map(len, rows)),
        "beads": molecule.n_beads,
        "atoms": molecule.n_atoms,
        "bonds": len(molecule.bonds),
        "chains": int(molecule.chain.max()) + 1,
        "species": dict(sorted(species.items())),
        "sources": {path: len(taken) for path, taken in zip(paths, rows, strict=True)},
        "notes": [*made.remarks, *made.notes],
    }
    notes = [
        f"beads: {molecule.n_beads}, of {molecule.n_atoms} atoms; chains: {data['chains']}; bonds: "
        f"{len(molecule.bonds)}",
        "species: " + ", ".join(f"{name} {n}" for name, n in sorted(species.items())),
    ]
    table = Table("mapped", ["trajectory", "format", "frames", "taken"], listed, notes)
    return Summary(data, [table], [f"wrote {output}"])
