"""Several coarse-grained sets in one: padded to the largest molecule, with one species table.

Species are joined by name: the first set's table, then what each further set adds. A molecule that
occurs in several sets with the same beads and maps is kept once. Sets without a table (a seed's)
are taken to number species alike, and each of their molecules to be one chain of one bead per
residue; they cannot be joined with sets that have a table.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import check_writable, provenance, sha256
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.data.beads.cg_beads import plain_chain
from mlff_cli.data.beads.cg_npz import PER_MOLECULE, BeadMolecule, CGBlock, CGSet
from mlff_cli.data.beads.cg_writer import CGWriter
from mlff_cli.data.beads.few_sets import FewSets
from mlff_cli.data.beads.force_map_report import own_force_map
from mlff_cli.data.beads.species_names import species_names
from mlff_cli.data.lazy_sequence import LazySequence

OF_THE_FILE = ("format", "format_version", "units", "padding", "molecules")


@dataclass(frozen=True)
class _Joined:
    """An input: where its molecules, species and sources go.

    Attributes:
        number: of the input.
        species: (old,) new number of each species.
        molecules: (old,) new number of each molecule.
        first_source: new number of its source 0.
    """

    number: int
    species: np.ndarray
    molecules: list[int]
    first_source: int


class _Molecules(LazySequence[BeadMolecule]):
    """Molecules of all inputs with new species numbers, read one by one."""

    def __init__(self, sets: Sequence[CGSet]) -> None:
        self.sets = sets
        self.places: list[tuple[int, int, np.ndarray]] = []
        self.names: list[str] = []

    def add(self, molecule: BeadMolecule, place: tuple[int, int, np.ndarray]) -> None:
        """Add a molecule; of two that have one name the second is called `name_2`."""
        name, n = molecule.name, 1
        while name in self.names:
            n += 1
            name = f"{molecule.name}_{n}"
        self.names.append(name)
        self.places.append(place)

    def __len__(self) -> int:
        return len(self.places)

    def _make(self, k: int) -> BeadMolecule:
        number, of_set, species = self.places[k]
        molecule = _molecule(self.sets[number], of_set, species)
        return dataclasses.replace(molecule, name=self.names[k])


def combine(
    inputs: Sequence[Path],
    output: Path,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Join sets, in their order, into one file.

    Args:
        inputs: coarse-grained sets.
        output: NPZ file.
        reporter: where messages go.
        force: replace an existing output.
        dry_run: open the inputs and say what would be joined, write nothing.

    Raises:
        UsageError: no input, one named twice, an output that exists or is no NPZ.
        DataError: a set is damaged; some have forces and some not, some a species table and some
            not, or species are residues in one and classes in another.
    """
    reporter, inputs = reporter or NullReporter(), [Path(p) for p in inputs]
    if output.suffix.lower() != ".npz":
        raise UsageError(
            f"coarse-grained sets are written as NPZ, found the suffix {output.suffix!r}",
            where=str(output),
            remedy="call it .npz",
        )
    if not inputs:
        raise UsageError("nothing to join", remedy="name at least one set")
    check_writable(output, force=force, inputs=inputs)
    digests = {p: sha256(p) for p in inputs}
    _no_duplicates(inputs, digests)
    with ExitStack() as stack:
        sets = stack.enter_context(FewSets(inputs))
        for note in [note for cg in sets for note in cg.notes]:
            reporter.warning(note)
        _check(sets, reporter)
        table, molecules, joined, told = _join(sets)
        summary = _summary(sets, joined, molecules, table, output)
        if dry_run:
            plan = f"would join {summary.data['frames']} frames of {len(molecules)} molecules"
            return dataclasses.replace(summary, lines=[f"{plan} and write {output}"])
        # the output's name is no part of what is written
        record = provenance(["mlff", "convert", *map(str, inputs)], inputs, digests=digests)
        alone = told[0] if len(told) == 1 else {}  # as a set of one molecule says it
        metadata = {**alone, "molecules": told, "provenance": record}
        sources = [
            {**source, "molecule": part.molecules[int(source.get("molecule", 0))]}
            for part in joined
            for source in sets[part.number].sources
        ]
        writer = stack.enter_context(
            CGWriter(output, molecules, table, sources, metadata, force=force)
        )
        bar = stack.enter_context(reporter.progress(summary.data["frames"], "joining", "frames"))
        for block in _blocks(sets, joined):
            writer.append(block)
            bar.advance(len(block.R))
    return summary


def _no_duplicates(inputs: Sequence[Path], digests: dict[Path, str]) -> None:
    repeated = [p for p in inputs if list(digests.values()).count(digests[p]) > 1]
    if len(digests) < len(inputs) or repeated:
        named = repeated or [p for p, n in Counter(inputs).items() if n > 1]
        raise UsageError(
            f"every set counts once, found the same content in {', '.join(map(str, named))}",
            remedy="name each set once",
        )


def _check(sets: Sequence[CGSet], reporter: Reporter) -> None:
    for what, told in (
        ("forces", [cg.has_forces for cg in sets]),
        ("a species table", [bool(cg.species_table) for cg in sets]),
    ):
        if len(set(told)) > 1:
            lacking = [str(cg.path) for cg, has in zip(sets, told, strict=True) if not has]
            raise DataError(
                f"all sets must have {what}, or none: {', '.join(lacking)} has none",
                remedy="make it with `mlff cg-map` and `mlff project-forces` as the others were",
            )
    if not sets[0].species_table and len(sets) > 1:
        reporter.warning(
            "the sets have no species table: the same number is taken to mean the same species"
        )
    if not all(len(cg.molecules) for cg in sets):
        reporter.warning(
            "sets that do not describe their molecules: each is taken as one chain of one bead per "
            "residue, in the order of its columns"
        )
    for key in ("species", "mapping"):
        kinds = {str(m.get(key)) for cg in sets for m in _metadata(cg) if m.get(key)}
        if len(kinds) > 1:
            message = f"sets of one {key} belong together, found {', '.join(sorted(kinds))}"
            if key == "species" and {"residue", "class"} <= kinds:
                raise DataError(message, remedy="map them anew with one --species")
            reporter.warning(message)


def _metadata(cg: CGSet) -> list[dict[str, Any]]:
    """What a set says of each of its molecules."""
    whole = {k: v for k, v in cg.metadata.items() if k not in OF_THE_FILE}
    if "molecules" not in cg.metadata:
        return [whole] * max(1, len(cg.layouts))
    told = cg.metadata["molecules"]
    return [{**m, **own_force_map(cg.metadata, k)} for k, m in enumerate(told)]


def _join(
    sets: Sequence[CGSet],
) -> tuple[list[str], _Molecules, list[_Joined], list[dict[str, Any]]]:
    """One table of species, and numbers of all molecules and sources in the joined set."""
    tables = [species_names(cg) for cg in sets]
    table = list(dict.fromkeys(name for names in tables for name in names))
    place = {name: k for k, name in enumerate(table)}
    molecules, joined, told = _Molecules(sets), list[_Joined](), list[dict[str, Any]]()
    known: dict[str, int] = {}
    first_source = 0
    for number, (cg, names) in enumerate(zip(sets, tables, strict=True)):
        species = np.array([place[name] for name in names], np.int32)
        numbers, metadata = [], _metadata(cg)
        for k in range(len(cg.layouts)):
            molecule = _molecule(cg, k, species)
            key = _digest(molecule)
            if key not in known:
                known[key] = len(molecules)
                molecules.add(molecule, (number, k, species))
                told.append(metadata[k] if k < len(metadata) else {})
            numbers.append(known[key])
        joined.append(_Joined(number, species, numbers, first_source))
        first_source += len(cg.sources)
    return table, molecules, joined, told


def _molecule(cg: CGSet, k: int, species: np.ndarray) -> BeadMolecule:
    if len(cg.molecules):
        molecule = cg.molecules[k]
    else:
        suffix = f"_{k}" if len(cg.layouts) > 1 else ""
        molecule = plain_chain(f"{cg.path.stem}{suffix}", cg.layouts[k].species)
    return dataclasses.replace(molecule, species=species[molecule.species])


def _digest(molecule: BeadMolecule) -> str:
    """Of everything but the name; species are the joined set's."""
    digest = hashlib.sha256()
    for attribute in PER_MOLECULE:
        values = getattr(molecule, attribute)
        digest.update(f"{attribute} {None if values is None else values.shape}".encode())
        if values is not None:
            plain = "\0".join(values.tolist()).encode() if values.dtype.kind == "U" else None
            digest.update(plain if plain is not None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _blocks(sets: Sequence[CGSet], joined: Sequence[_Joined]) -> Iterator[CGBlock]:
    for part in joined:
        for block in sets[part.number].blocks():
            source = np.where(block.source >= 0, block.source + part.first_source, -1)
            yield dataclasses.replace(block, molecule=part.molecules[block.molecule], source=source)


def _summary(
    sets: Sequence[CGSet],
    joined: Sequence[_Joined],
    molecules: _Molecules,
    table: list[str],
    output: Path,
) -> Summary:
    rows: list[list[Any]] = [
        [str(cg.path), cg.n_frames, len(cg.layouts), max(len(x.columns) for x in cg.layouts)]
        for cg in sets
    ]
    data = {
        "output": str(output),
        "frames": sum(cg.n_frames for cg in sets),
        "molecules": len(molecules),
        "beads": max(row[3] for row in rows),
        "species": table,
        "forces": sets[0].has_forces,
        "inputs": {str(cg.path): cg.n_frames for cg in sets},
    }
    notes = [f"{len(molecules)} molecules, {len(table)} species, padded to {data['beads']} beads"]
    if len(molecules) < sum(len(part.molecules) for part in joined):
        notes.append("molecules that occur in several sets are kept once")
    columns = ["set", "frames", "molecules", "beads"]
    return Summary(data, [Table("joined", columns, rows, notes)], [f"wrote {output}"])
