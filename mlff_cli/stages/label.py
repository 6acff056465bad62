"""`mlff label`: structures in, labelled molecules out.

Geometries are made first (conformers, displacements), rounded to the precision that the file keeps
so that labels belong to the stored coordinates, then labelled by worker processes of one thread
each, or by the workers of a cluster. What is finished goes into a journal beside the output; the
same command continues from it, with other workers too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.core.artifacts import check_writable, provenance, write_json
from mlff_cli.core.cluster import check_crew, crew, find_scheduler
from mlff_cli.core.errors import DataError, InterruptedRunError, MLFFError, UsageError
from mlff_cli.core.fields import FIELDS
from mlff_cli.core.pace import Pace
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.core.runtime import StopRequest, interruptible
from mlff_cli.core.tasks import Crew
from mlff_cli.core.workers import Processes, available_cores
from mlff_cli.data.distortions import perturbed, thermal
from mlff_cli.data.grouped_writer import write_grouped
from mlff_cli.data.journal import Journal
from mlff_cli.data.structures import Structure, has_geometry, read_structures
from mlff_cli.physics.quantum import Engine, make_engine

SHOWN_FAILURES = 5
SUFFIXES = (".h5", ".hdf5")
BATCH = 100  # structures of a task on a cluster, at most

_Labelled = tuple[dict[str, Any] | None, str | None]
_Input = tuple[np.ndarray, np.ndarray, int, int]


@dataclasses.dataclass(frozen=True)
class Options:
    """What to label and how.

    Attributes:
        method: see `physics.quantum`.
        conformers: geometries per SMILES; of a file with geometries, displaced copies of each.
        temperature: mean temperature of thermal displacements, K; 0 leaves geometries alone.
        perturb: mean amplitude of Gaussian displacements, angstrom; 0 leaves geometries alone.
        labels: which labels to keep; None keeps all that the method gives.
        seed: seed of conformers and displacements.
        workers: processes; 0 takes one per available core.
        scheduler: address or file of a Dask scheduler, in place of `workers`.
        force: replace an existing output.
        dry_run: read the structures and say what would be labelled, write nothing.
    """

    method: str
    conformers: int = 1
    temperature: float = 0.0
    perturb: float = 0.0
    labels: tuple[str, ...] | None = None
    seed: int = 0
    workers: int = 0
    scheduler: str | None = None
    force: bool = False
    dry_run: bool = False


@dataclasses.dataclass
class _Failure:
    where: str
    molecule: str
    error: str


def run(
    structures: Path, output: Path, options: Options, reporter: Reporter | None = None
) -> Summary:
    """Label every structure of a file.

    Args:
        structures: SMILES list, SDF, extxyz or any file that ASE reads.
        output: grouped HDF5 to write; failures go to `<output>.failures.json`.
        options: see `Options`.
        reporter: where messages go.

    Returns:
        Counts, level of theory and failures.

    Raises:
        UsageError: an option is out of range, the method unknown, the output exists, or another
            run is making it.
        DataError: the structures are malformed, or every one failed.
        InterruptedRunError: stopped by a signal; the same command continues.
        NumericalError: a worker process died, or a cluster was lost.
        MissingDependencyError: a package is absent, no scheduler answers, or its workers differ.
    """
    reporter = reporter or NullReporter()
    _check(structures, options)
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"labels are written as grouped HDF5, found the suffix {output.suffix!r}",
            where=str(output),
            remedy="call it .h5; `mlff convert` makes other formats of it",
        )
    check_writable(output, force=options.force, inputs=[structures])
    engine = make_engine(options.method)
    keep = _kept_labels(engine, options)
    if options.scheduler is not None and not options.dry_run:
        find_scheduler(options.scheduler)  # making geometries may take long
    wanted, failures = _geometries(structures, options)
    if options.dry_run:
        plan = f"would label {len(wanted)} structures of {structures} with {engine.level_of_theory}"
        data = {"output": str(output), "structures": len(wanted), "labels": list(keep)}
        told = [f"no geometry: {failure.where}: {failure.error}" for failure in failures]
        return Summary(data, lines=[f"{plan}, keep {', '.join(keep)}, and write {output}", *told])
    keys = [_key(engine, s) for s in wanted]
    with interruptible() as stop, Journal(output) as journal:
        todo = {k: s for k, s in zip(keys, wanted, strict=True) if k not in journal.done}
        resumed = len(set(keys)) - len(todo)
        if resumed:
            reporter.info(f"continuing: {resumed} of {len(set(keys))} structures are labelled")
        failed = _label_all(todo, engine, options, journal, stop, reporter)
        failures += [
            _Failure(s.where, s.molecule, failed[k])
            for k, s in zip(keys, wanted, strict=True)
            if k in failed
        ]
        good = [(k, s) for k, s in zip(keys, wanted, strict=True) if k not in failed]
        _report_failures(failures, Path(f"{output}.failures.json"), reporter)
        if not good:
            journal.remove()
            raise DataError(
                f"all {len(failures)} structures failed; the first: {failures[0].error}",
                where=failures[0].where,
                remedy=f"see {output}.failures.json for all of them",
            )
        attrs = {
            "level_of_theory": engine.level_of_theory,
            "provenance": _provenance(structures, engine, options),
        }
        molecules = (_molecule(s, journal.done[k], keep) for k, s in good)
        written = write_grouped(output, molecules, attrs, force=options.force)
        journal.remove()
    return _summary(output, engine, keep, [s for _, s in good], written, resumed, failures)


def _check(structures: Path, options: Options) -> None:
    """Refuse options that are out of range or have nothing to act on."""
    if options.conformers < 1:
        raise UsageError(f"--conformers must be at least 1, found {options.conformers}")
    if not 0.0 <= options.perturb <= 1.0:
        raise UsageError(f"--perturb must be 0 to 1 angstrom, found {options.perturb}")
    if not 0.0 <= options.temperature <= 10_000.0:
        raise UsageError(f"--temperature must be 0 to 10000 K, found {options.temperature}")
    check_crew(options.workers, options.scheduler)
    displaced = options.perturb or options.temperature
    if options.conformers > 1 and not displaced and has_geometry(structures):
        raise UsageError(
            f"--conformers {options.conformers} would repeat the geometries of the file",
            where=str(structures),
            remedy="add --temperature T or --perturb SIGMA, or give a SMILES file",
        )


def _kept_labels(engine: Engine, options: Options) -> tuple[str, ...]:
    if options.labels is None:
        return engine.labels
    absent = [name for name in options.labels if name not in engine.labels]
    if absent or not options.labels:
        raise UsageError(
            f"{engine.method} gives no label {', '.join(absent) or '(none asked for)'}",
            remedy=f"choose from {', '.join(engine.labels)}",
        )
    return tuple(name for name in engine.labels if name in options.labels)


def _geometries(path: Path, options: Options) -> tuple[list[Structure], list[_Failure]]:
    """Every geometry to label, in the file's precision, and those that could not be made."""
    wanted: list[Structure] = []
    failures: list[_Failure] = []
    copies = options.conformers if has_geometry(path) else 1
    for found in read_structures(path, conformers=options.conformers, seed=options.seed):
        if isinstance(found, DataError):
            failures.append(_Failure(found.where or str(path), "", found.message))
            continue
        for copy in range(copies):
            moved = found
            if options.temperature:
                moved = thermal(moved, options.temperature, options.seed, copy)
            if options.perturb:
                moved = perturbed(moved, options.perturb, options.seed, copy)
            coord = moved.coord.astype(FIELDS["coord"].dtype).astype("float64")
            wanted.append(dataclasses.replace(moved, coord=coord))
    return wanted, failures


def _key(engine: Engine, structure: Structure) -> str:
    """What decides a label: method, settings, versions, geometry, charge, multiplicity."""
    recipe = [engine.method, dict(engine.settings), engine.versions]
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(structure.coord, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(structure.numbers, dtype="<i4").tobytes())
    digest.update(f"{structure.charge} {structure.mult}".encode())
    return digest.hexdigest()


def _label_all(
    todo: Mapping[str, Structure],
    engine: Engine,
    options: Options,
    journal: Journal,
    stop: StopRequest,
    reporter: Reporter,
) -> dict[str, str]:
    """Label in parallel; successes go to the journal, failures are returned as key -> message."""
    if not todo:
        return {}
    failed: dict[str, str] = {}
    pace = Pace(BATCH if options.scheduler is not None else 1)
    tasks = pace.tasks((k, (s.coord, s.numbers, s.charge, s.mult)) for k, s in todo.items())
    with (
        _workers(len(todo), engine, options, stop, reporter) as workers,
        reporter.progress(len(todo), f"labelling with {options.method}", "structures") as bar,
    ):
        for keys, (found, seconds) in workers.as_completed(tasks):
            pace.learn(seconds / len(keys))
            for key, (labels, error) in zip(keys, found, strict=True):
                if error is None:
                    journal.add(key, labels)
                else:
                    failed[key] = error
                bar.advance(1, failed=len(failed))
    if stop.requested:
        name = stop.signal.name if stop.signal else "a signal"
        raise InterruptedRunError(
            f"stopped by {name}, {len(journal.done)} structures are labelled",
            where=str(journal.folder),
            remedy="run the same command again to continue",
        )
    return failed


def _workers(
    n_tasks: int, engine: Engine, options: Options, stop: StopRequest, reporter: Reporter
) -> contextlib.AbstractContextManager[Crew]:
    """Who labels; never this process, which must answer signals while an engine calculates."""
    shared = (options.method,)
    if options.scheduler is None:
        n = min(options.workers or available_cores(), n_tasks)
        return Processes(_labeller, shared, n, stop)
    return crew(
        _labeller,
        shared,
        scheduler=options.scheduler,
        stop=stop,
        reporter=reporter,
        packages=engine.packages,
    )


def _labeller(method: str) -> Callable[..., tuple[list[_Labelled], float]]:
    """What a worker runs: labels as plain lists or the reason why there are none, and seconds."""
    engine = make_engine(method)

    def label(coord: np.ndarray, numbers: np.ndarray, charge: int, mult: int) -> _Labelled:
        try:
            labels = engine(coord, numbers, charge, mult)
        except MLFFError as error:
            return None, error.message
        return {name: values.tolist() for name, values in labels.items()}, None

    def label_all(structures: Sequence[_Input]) -> tuple[list[_Labelled], float]:
        start = time.perf_counter()
        return [label(*structure) for structure in structures], time.perf_counter() - start

    return label_all


def _molecule(
    structure: Structure, labels: Mapping[str, Any], keep: Sequence[str]
) -> dict[str, Any]:
    return {
        "coord": structure.coord,
        "numbers": structure.numbers,
        "charge": structure.charge,
        "mult": structure.mult,
        **({"molecule": structure.molecule} if structure.molecule else {}),
        **{name: np.asarray(labels[name]) for name in keep},
    }


def _provenance(structures: Path, engine: Engine, options: Options) -> dict[str, Any]:
    command = [
        *("mlff", "label", str(structures), "--method", options.method),
        *("--conformers", str(options.conformers)),
        *("--temperature", str(options.temperature), "--perturb", str(options.perturb)),
        *(("--labels", ",".join(options.labels)) if options.labels else ()),
        *("--seed", str(options.seed)),
    ]
    packages = (*engine.packages, "rdkit" if not has_geometry(structures) else "ase")
    record = provenance(command, [structures], seed=options.seed, packages=packages)
    return {**record, "settings": dict(engine.settings)}


def _report_failures(failures: Sequence[_Failure], path: Path, reporter: Reporter) -> None:
    """Name the first failures, keep all in a file; a file of an earlier run does not linger."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    write_json(path, [dataclasses.asdict(f) for f in failures], force=True)
    shown = "; ".join(f"{f.where}: {f.error}" for f in failures[:SHOWN_FAILURES])
    more = f"; and {len(failures) - SHOWN_FAILURES} more" if len(failures) > SHOWN_FAILURES else ""
    reporter.warning(f"{len(failures)} structures failed, see {path}: {shown}{more}")


def _summary(
    output: Path,
    engine: Engine,
    keep: Sequence[str],
    good: Sequence[Structure],
    written: int,
    resumed: int,
    failures: Sequence[_Failure],
) -> Summary:
    names = {s.molecule for s in good if s.molecule}
    data = {
        "output": str(output),
        "level_of_theory": engine.level_of_theory,
        "labels": list(keep),
        "structures": written,
        "molecules": len(names),
        "resumed": resumed,
        "failures": [dataclasses.asdict(f) for f in failures],
        "versions": engine.versions,
    }
    rows: list[list[Any]] = [
        ["level of theory", engine.level_of_theory],
        ["labels", ", ".join(keep)],
        ["structures", written],
        ["different molecules", len(names) or "not named"],
        ["failed", len(failures)],
    ]
    table = Table(f"labelled with {engine.method}", ["", ""], rows)
    return Summary(data, [table], [f"wrote {output}"])
