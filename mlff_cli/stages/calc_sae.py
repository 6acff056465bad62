"""`mlff calc-sae`: self-atomic energies of a data set, by least squares of energy on composition.

Only atomic numbers and energies are read, as a stream, a few times over: memory does not depend on
the size of the file. Blocks are read and summed by this process, several, or a cluster, and merged
in the order of the file. torch is not imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mlff_cli.core.artifacts import check_writable, provenance
from mlff_cli.core.cluster import check_crew, crew
from mlff_cli.core.command_line import command_line
from mlff_cli.core.digests import Digests
from mlff_cli.core.elements import SYMBOLS
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.core.tasks import Crew
from mlff_cli.data.compositions import Block, Draw, Piece, Sample, pieces, read_block
from mlff_cli.data.grouped_hdf5 import GroupedHDF5
from mlff_cli.data.least_squares import Ambiguity
from mlff_cli.data.sae import write_sae
from mlff_cli.data.sae_fit import SAEFit, fit, lacking, merged, sums

T = TypeVar("T")
Look = Callable[[Block], T]

TASK_PIECES = 4  # handed out at a time: a tenth of a second of work, a megabyte of residuals


@dataclass(frozen=True)
class Options:
    """What `mlff calc-sae` can be told.

    Attributes:
        samples: use so many molecules, drawn uniformly; None uses all.
        percentiles: keep molecules whose first residual lies between these percentiles.
        seed: of the drawing.
        force: replace an existing output.
        dry_run: check the input and the options, compute and write nothing.
        workers: processes; 1 is this one, 0 takes one per available core.
        scheduler: address or file of a Dask scheduler, in place of `workers`.
    """

    samples: int | None = None
    percentiles: tuple[float, float] = (2.0, 98.0)
    seed: int = 0
    force: bool = False
    dry_run: bool = False
    workers: int = 1
    scheduler: str | None = None


def run(
    data: Path | str,
    output: Path | str,
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Fit self-atomic energies and write them.

    Args:
        data: grouped HDF5 file.
        output: SAE YAML file.
        options: see `Options`.
        reporter: who listens.

    Returns:
        Table of elements with uncertainties; `data` holds the same and what was dropped.

    Raises:
        UsageError: an option is out of range, or the output exists.
        DataError: the file is damaged, has no energies, or holds an impossible atomic number.
        MissingDependencyError: no scheduler answers, or its workers differ from this process.
        NumericalError: workers died, or a cluster was lost.
    """
    reporter = reporter or NullReporter()
    _check(options)
    check_writable(output, force=options.force, inputs=[data])
    with GroupedHDF5(data) as file:
        for note in file.notes:
            reporter.warning(note)
        if "energy" not in file.fields:
            raise _no_energies(file)
        if options.dry_run:
            plan = f"would fit {file.n_molecules} molecules of {data} and write {output}"
            return Summary({"molecules": file.n_molecules, "output": str(output)}, lines=[plan])
        theory, source = file.level_of_theory, _Source(file, reporter)
    path = Path(data) if options.scheduler is None else Path(data).absolute()
    with (
        Digests([data]) as digests,
        crew(
            _reader,
            (path,),
            workers=options.workers,
            scheduler=options.scheduler,
            reporter=reporter,
            inputs=[path],
        ) as source.crew,
    ):
        sample = source.choose(options)
        result = fit(lambda what, look: source.passes(what, look, sample), options.percentiles)
        command = command_line(["mlff", "calc-sae", str(data)], options, Options())
        origin = provenance(
            command, [data], seed=options.seed, packages=["numpy"], digests=digests.all()
        )
    for note in _warnings(result, sample):
        reporter.warning(note)
    notes = _notes(result, source, sample, options, theory)
    notes.append("provenance: " + json.dumps(origin, sort_keys=True))
    write_sae(output, result.sae, notes, force=options.force)
    return _summary(result, source, sample, options, output)


def _reader(path: Path) -> Callable[..., list[tuple[Any, int, np.ndarray]]]:
    """What a worker does: read pieces, and look at the molecules of each."""
    file = GroupedHDF5(path)

    def work(
        look: Look[T],
        todo: Sequence[tuple[Piece, np.ndarray | None]],
        known: np.ndarray | None,
        always: frozenset[int],
    ) -> list[tuple[T | None, int, np.ndarray]]:
        """For each piece: what was seen, how many molecules have an energy, their elements."""
        found = []
        for piece, mask in todo:
            block = read_block(file, piece, known)
            n = len(block.energy)
            if mask is not None:
                block = block.take(mask | block.holds(always))
            seen = look(block) if len(block.energy) else None
            found.append((seen, n, block.elements))
        return found

    return work


class _Source:
    """The file's blocks with a progress bar per pass, and what the first pass learned.

    Attributes:
        crew: who reads them.
        n_missing: molecules without energy.
    """

    crew: Crew

    def __init__(self, file: GroupedHDF5, reporter: Reporter) -> None:
        self._pieces = pieces(file)
        self._total = file.n_molecules
        self._no_energies = _no_energies(file)
        self._reporter = reporter
        self._known: np.ndarray | None = None
        self._labelled: list[int] = []  # molecules with energies per piece
        self.n_missing = 0

    def passes(self, description: str, look: Look[T], sample: Sample | None) -> Iterator[T]:
        """One pass; the first one checks the numbers and learns which elements occur."""
        labelled, seen = [], set[int]()
        with self._reporter.progress(self._total, description, "molecules") as bar:
            waiting = iter(self._pieces)
            for results in self.crew.map(self._tasks(look, sample)):
                for found, n, elements in results:
                    piece = next(waiting)
                    labelled.append(n)
                    seen.update(elements.tolist())
                    if found is not None:
                        yield found
                    bar.advance(piece.stop - piece.start)
        if not any(labelled):
            raise self._no_energies
        self._known, self._labelled = np.array(sorted(seen)), labelled
        self.n_missing = self._total - sum(labelled)

    def _tasks(self, look: Look[T], sample: Sample | None) -> Iterator[tuple[Any, ...]]:
        """Pieces with their part of the sample, some at a time, however many work on them."""
        draw = Draw(sample) if sample else None
        always = sample.always if sample else frozenset()
        masks = (draw(n) for n in self._labelled) if draw else (None for _ in self._pieces)
        work = zip(self._pieces, masks, strict=True)
        while todo := tuple(islice(work, TASK_PIECES)):
            yield look, todo, self._known, always

    def choose(self, options: Options) -> Sample | None:
        """The sample asked for, with the rare elements that a plain sample would miss."""
        if options.samples is None or options.samples >= self._total:
            return None
        whole = merged(self.passes("survey", sums, None))
        if options.samples >= whole.n:
            return None
        sample = Sample(options.samples, whole.n, options.seed)
        while more := (lacking(merged(self.passes("sample", sums, sample)), whole) - sample.always):
            sample = Sample(sample.size, sample.total, sample.seed, sample.always | more)
        return sample


def _check(options: Options) -> None:
    low, high = options.percentiles
    if not 0 <= low < high <= 100:
        raise UsageError(
            f"percentiles must rise within 0 to 100, found {low:g},{high:g}",
            remedy="use --percentiles 2,98, or 0,100 to keep every molecule",
        )
    check_crew(options.workers, options.scheduler)
    if options.samples is not None and options.samples < 1:
        raise UsageError(
            f"--samples must be at least 1, found {options.samples}",
            remedy="leave it out to use every molecule",
        )


def _no_energies(file: GroupedHDF5) -> DataError:
    return DataError(
        f"'energy' is needed, none of {file.n_molecules} molecules has one",
        where=str(file.path),
        remedy="label the molecules first, as with `mlff label`",
    )


def names(elements: frozenset[int] | tuple[int, ...]) -> str:
    """Symbols in the order of Z, as 'H, C and O'."""
    symbols = [SYMBOLS[z] for z in sorted(elements)]
    return " and ".join(filter(None, [", ".join(symbols[:-1]), symbols[-1]]))


def _ambiguity(found: Ambiguity) -> str:
    """A sentence on elements that cannot be told apart."""
    if found.direction is None:
        return (
            f"{names(found.elements)} cannot be told apart: {found.dimension} combinations of "
            "their energies change no molecule"
        )
    change = ", ".join(
        f"{SYMBOLS[z]} {x:+g}t" for z, x in zip(found.elements, found.direction, strict=True)
    )
    return f"{names(found.elements)} cannot be told apart: ({change}) changes no molecule"


def _warnings(result: SAEFit, sample: Sample | None) -> list[str]:
    """What a user must not miss; the same sentences stand in the file."""
    found = []
    if result.ambiguities:
        found.append(
            "rank deficient: "
            + "; ".join(_ambiguity(a) for a in result.ambiguities)
            + ". The energies are the minimum-norm solution: their sums over molecules of these "
            "compositions are right, single elements mean nothing"
        )
    if result.protected and result.n_protected:
        found.append(
            f"{result.n_protected} molecules with residuals outside the percentiles were kept: "
            f"without them {names(result.protected)} would not be determined"
        )
    if sample and sample.always:
        found.append(
            f"every molecule with {names(sample.always)} was added to the sample: "
            "without them these elements would not be determined"
        )
    return found


def _notes(
    result: SAEFit, source: _Source, sample: Sample | None, options: Options, theory: str | None
) -> list[str]:
    """The leading comment of the file."""
    low, high = options.percentiles
    drawn = f", {result.n} drawn with seed {options.seed}" if sample else ""
    kept = f"{result.n_kept} fitted"
    if result.bounds:
        kept += (
            f", residuals between the percentiles {low:g} and {high:g}: "
            f"{result.bounds[0]:.6f} to {result.bounds[1]:.6f} eV"
        )
    known = [
        f"{SYMBOLS[z]} {'not determined' if u is None else f'{u:.2e}'}"
        for z, u in result.uncertainty.items()
    ]
    return [
        "self-atomic energies {Z: eV}: least squares of energy on composition",
        f"level of theory: {' '.join(theory.split()) if theory else 'not recorded'}",
        f"molecules: {_labelled(result, sample)} with energy, {source.n_missing} without"
        f"{drawn}; {kept}",
        f"residual RMSE: {result.rmse_kept:.6f} eV fitted, {result.rmse_all:.6f} eV all",
        f"standard uncertainties in eV: {', '.join(known)}",
        *(f"warning: {note}" for note in _warnings(result, sample)),
    ]


def _labelled(result: SAEFit, sample: Sample | None) -> int:
    return sample.total if sample else result.n


def _summary(
    result: SAEFit, source: _Source, sample: Sample | None, options: Options, output: Path | str
) -> Summary:
    elements = [
        {
            "z": z,
            "symbol": SYMBOLS[z],
            "molecules": result.molecules[z],
            "atoms": result.atoms[z],
            "sae_ev": result.sae[z],
            "uncertainty_ev": result.uncertainty[z],
            "rmse_ev": result.rmse[z],
        }
        for z in result.sae
    ]
    notes = _warnings(result, sample)
    data: dict[str, Any] = {
        "output": str(output),
        "sae": {str(z): energy for z, energy in result.sae.items()},
        "elements": elements,
        "molecules": {
            "labelled": _labelled(result, sample),
            "without_energy": source.n_missing,
            "used": result.n,
            "fitted": result.n_kept,
            "kept_for_rare_elements": result.n_protected,
        },
        "seed": options.seed,
        "percentiles": list(options.percentiles),
        "residual_bounds_ev": list(result.bounds) if result.bounds else None,
        "rmse_fitted_ev": result.rmse_kept,
        "rmse_all_ev": result.rmse_all,
        "rank": result.rank,
        "rank_deficient": [
            {"elements": list(a.elements), "dimension": a.dimension, "direction": a.direction}
            for a in result.ambiguities
        ],
        "solution": "minimum-norm" if result.ambiguities else "unique",
        "protected_elements": sorted(result.protected),
        "elements_added_to_sample": sorted(sample.always) if sample else [],
        "warnings": notes,
    }
    rows = [
        [
            SYMBOLS[z],
            result.molecules[z],
            result.atoms[z],
            f"{result.sae[z]:.6f}",
            "not determined" if (u := result.uncertainty[z]) is None else f"{u:.1e}",
            f"{result.rmse[z]:.4f}",
        ]
        for z in result.sae
    ]
    title = "Self-atomic energies" + (" (minimum-norm solution)" if result.ambiguities else "")
    columns = ["element", "molecules", "atoms", "SAE (eV)", "uncertainty (eV)", "RMSE (eV)"]
    return Summary(
        data,
        tables=[Table(title, columns, rows, notes)],
        lines=[
            str(output),
            f"{result.n_kept} of {result.n} molecules fitted, {source.n_missing} without energy; "
            f"residual RMSE {result.rmse_kept:.4f} eV fitted, {result.rmse_all:.4f} eV all",
        ],
    )
