"""`mlff project-forces`: atomic forces become forces on the beads of a mapped set.

The forces are read twice, as streams: once for the Gram matrices that the map is fitted and judged
on, once to apply it. Memory holds matrices of the rigid groups and a piece of the trajectory,
whatever its length. torch is imported for `--device cuda` alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlff_cli.coarse.forces.aggforce_engine import require_aggforce
from mlff_cli.coarse.forces.device_gram import require_device
from mlff_cli.coarse.forces.force_fit import Recipe, check_groups, fit_force_map
from mlff_cli.coarse.forces.force_inputs import check_trajectories, ensemble_temperature, find_rigid
from mlff_cli.coarse.forces.force_passes import gram_matrices, noisy, prepare, projected
from mlff_cli.coarse.forces.force_report import UNITS, fit_report, judgement, tables
from mlff_cli.coarse.forces.force_split import Split, split_frames
from mlff_cli.coarse.forces.frame_sample import FrameSample
from mlff_cli.coarse.forces.rigid_groups import RigidGroups
from mlff_cli.core.artifacts import check_writable, provenance
from mlff_cli.core.cluster import check_crew, crew
from mlff_cli.core.command_line import command_line
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.memory import size_text
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.core.tasks import Crew
from mlff_cli.data.beads.cg_npz import CGBlock, CGSet
from mlff_cli.data.beads.cg_writer import CGWriter
from mlff_cli.data.beads.force_rows import Rows, rows_of_molecules
from mlff_cli.data.beads.force_sources import ForceSources, absolute, digests, match_sources
from mlff_cli.data.beads.map_store import MapStore, Projected
from mlff_cli.data.trajectories.opening import split_selection

MOST_NOISE = 5.0  # angstrom; beads are 3.8 A apart
SILENT = 1 << 30  # bytes hashed without a word
CHOICES = ("auto", "topology", "none")  # of --constraints; anything else is a file


@dataclasses.dataclass(frozen=True)
class Options:
    """What `mlff project-forces` can be told.

    Attributes:
        method: "optimal" (least mean squared force) or "basic" (sums over rigid groups).
        constraints: "auto", "topology", "none", or a file (`data.beads.constraint_file`).
        l2: weight of |W|^2 in (kcal/mol/angstrom)^2, or "cv": by cross-validation.
        engine: "native" or "aggforce".
        noise: standard deviation of noise on beads in angstrom; None for none.
        temperature: of the noise in K; None takes the set's.
        holdout: share of the frames that the map is judged on and not fitted on.
        device: "cpu", "cuda" or "cuda:N", where Gram matrices are multiplied.
        workers: processes; 0 takes one per available core.
        scheduler: address of a Dask scheduler, in place of `workers`.
        seed: of the hold-out and the noise.
        force: replace an existing output.
        dry_run: match the files and say what would be done, write nothing.
    """

    method: Literal["optimal", "basic"] = "optimal"
    constraints: str = "auto"
    l2: float | Literal["cv"] = 0.0
    engine: Literal["native", "aggforce"] = "native"
    noise: float | None = None
    temperature: float | None = None
    holdout: float = 0.2
    device: str = "cpu"
    workers: int = 1
    scheduler: str | None = None
    seed: int = 0
    force: bool = False
    dry_run: bool = False


@dataclasses.dataclass(frozen=True)
class _Job:
    """The set and how its molecules are treated; lists go by molecule."""

    cg: CGSet
    names: list[str]
    rows: list[Rows]
    recipes: list[Recipe]
    n_atoms: list[int]  # of the trajectories
    rigid: list[RigidGroups]
    options: Options
    reporter: Reporter

    @property
    def n_frames(self) -> int:
        return sum(len(rows.rows) for rows in self.rows)


def run(
    trajectories: Sequence[Path | str],
    mapped: Path | str,
    output: Path | str,
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Fit a force map for every molecule of a mapped set and write the set with its forces.

    Args:
        trajectories: those that the set was mapped from, in any order; found by their content.
        mapped: CG NPZ of `mlff cg-map`, or several of them combined by `mlff convert`.
        output: CG NPZ with forces and force maps.
        options: see `Options`.
        reporter: who listens.

    Returns:
        The report of `coarse.forces.force_report`, as tables and plain values.

    Raises:
        UsageError: an option is out of range or contradicts another or the set, a trajectory is
            missing or surplus, or the output exists.
        DataError: a file is damaged or does not fit, forces are absent or not finite, or a rigid
            group spans two beads.
        MissingDependencyError: aggforce, a GPU or the package of a format is absent.
        NumericalError: the Gram matrix is singular.
    """
    reporter = reporter or NullReporter()
    device = _check(options)
    files = [split_selection(t)[0] for t in trajectories]
    check_writable(output, force=options.force, inputs=[mapped, *files])
    with CGSet(mapped) as cg:
        _check_set(cg, reporter)
        size = sum(file.stat().st_size for file in files)
        if size > SILENT:
            reporter.info(f"hashing {size_text(size)} of trajectories to recognise them")
        found = digests(trajectories)
        rows = rows_of_molecules(cg)
        used = np.unique(np.concatenate([some.source for some in rows]))
        matched = match_sources(found, cg.sources, used, str(mapped))
        paths = {k: absolute(path) for k, path in matched.items()}
        job = _look(cg, rows, paths, options, reporter)
        if options.dry_run:
            return _plan(job, output)
        record = _provenance(trajectories, mapped, found, options, cg)
        with (
            crew(
                *(prepare, (paths,)),
                workers=options.workers,
                scheduler=options.scheduler,
                reporter=reporter,
                inputs=[file.absolute() for file in files],
            ) as workers,
            closing(MapStore()) as weights,
        ):
            reports = _fit(job, workers, weights, device)
            told = _told(reports, options)
            metadata = {**cg.metadata, "force_map": told, "provenance": record}
            molecules = Projected(cg.molecules, weights)
            with CGWriter(
                *(output, molecules, cg.species_table, cg.sources, metadata), force=options.force
            ) as writer:
                blocks = projected(workers, cg, weights, job.n_atoms)
                if options.noise is not None:
                    blocks = noisy(blocks, cg, weights, job.recipes, options.seed)
                _write(job, blocks, reports, writer)
    lines = [f"wrote {output}: {job.n_frames} frames with forces"]
    data = {"output": str(output), "frames": job.n_frames, **told}
    return Summary(data, tables(reports), lines)


def _check(options: Options) -> Any:
    """Refuse what cannot be, before any file is opened; the torch device, if one is asked for."""
    if options.l2 != "cv" and not (options.l2 >= 0.0 and np.isfinite(options.l2)):
        raise UsageError(
            f"--l2 must be 0 or more, or cv, found {options.l2}",
            remedy=f"it is the weight of |W|^2 in {UNITS}",
        )
    if options.l2 == "cv" and options.method == "basic":
        raise UsageError(
            "--l2 cv chooses the regularisation of the optimal map, found --method basic",
            remedy="leave one of them out",
        )
    if options.constraints not in CHOICES and not Path(options.constraints).exists():
        raise UsageError(
            f"--constraints must be {', '.join(CHOICES)} or a file, found {options.constraints!r}",
            remedy="check the path",
        )
    if not 0.0 <= options.holdout < 1.0:
        raise UsageError(
            f"--holdout must be 0 or more and below 1, found {options.holdout:g}",
            remedy="0.2 holds a fifth of the frames out, 0 fits on all of them",
        )
    if options.noise is not None and not 0.0 < options.noise <= MOST_NOISE:
        raise UsageError(
            f"--noise must be above 0 and at most {MOST_NOISE:g} angstrom, found {options.noise:g}"
        )
    if options.temperature is not None and options.noise is None:
        raise UsageError(
            "--temperature is that of the noise, and --noise is not given",
            remedy="choose frames of one temperature with `mlff cg-map --temperature`",
        )
    if options.temperature is not None and not 0.0 < options.temperature <= 10_000.0:
        raise UsageError(
            f"--temperature must be above 0 and at most 10000 K, found {options.temperature:g}"
        )
    if options.seed < 0:
        raise UsageError(f"--seed must be 0 or more, found {options.seed}")
    check_crew(options.workers, options.scheduler)
    if options.engine == "aggforce":
        if options.noise is not None:
            raise UsageError(
                "--noise is made by the native engine, found --engine aggforce",
                remedy="leave one of them out",
            )
        require_aggforce()
    if options.device == "cpu":
        return None
    if options.workers != 1 or options.scheduler is not None:
        raise UsageError(
            f"--device {options.device} is used by this process alone, found --workers "
            f"{options.workers}{' and --scheduler' if options.scheduler else ''}",
            remedy="leave --workers and --scheduler out",
        )
    return require_device(options.device)


def _check_set(cg: CGSet, reporter: Reporter) -> None:
    for note in cg.notes:
        reporter.warning(note)
    where = str(cg.path)
    if not len(cg.molecules) or not cg.sources or cg.molecules[0].mapping is None:
        raise DataError(
            "a set needs its mappings and the sources of its frames, this one has none",
            where=where,
            remedy="make it with `mlff cg-map`",
        )
    if cg.has_forces:
        raise DataError(
            "the set has forces already",
            where=where,
            remedy="use what `mlff cg-map` wrote, before forces were projected",
        )


def _look(
    cg: CGSet, rows: list[Rows], paths: Mapping[int, str], options: Options, reporter: Reporter
) -> _Job:
    """Find everything wrong that can be found before forces are read, and what is rigid."""
    names = [cg.molecules[k].name for k in range(len(rows))]
    recipes = []
    for some, name in zip(rows, names, strict=True):
        kelvin, notes = ensemble_temperature(some, name, options.noise, options.temperature)
        for note in notes:
            reporter.warning(note)
        recipes.append(Recipe(options.method, options.l2, options.engine, options.noise, kelvin))
    rigid = []
    with ForceSources(paths) as sources:
        looked = [check_trajectories(cg.molecules[k], rows[k], sources) for k in range(len(rows))]
        for note in dict.fromkeys(sources.notes):
            reporter.warning(note)
        for k, some in enumerate(rows):
            beads = cg.molecules[k]
            found = find_rigid(options.constraints, beads, some, sources, looked[k], names)
            for note in found.notes:
                reporter.warning(f"{beads.name}: {note}")
            if beads.mapping is None:
                raise DataError(f"molecule {beads.name} has no mapping", where=str(cg.path))
            check_groups(beads.mapping, found.groups, f"{cg.path}, molecule {beads.name}")
            rigid.append(found)
    n_atoms = [found.n_atoms for found in looked]
    return _Job(cg, names, rows, recipes, n_atoms, rigid, options, reporter)


def _fit(job: _Job, workers: Crew, weights: MapStore, device: Any) -> list[dict[str, Any]]:
    """First pass: every molecule's force map goes to `weights`, what is known of it is returned."""
    reports = []
    with job.reporter.progress(job.n_frames, "reading forces", "frames") as bar:
        for k, rows in enumerate(job.rows):
            beads, rigid = job.cg.molecules[k], job.rigid[k]
            assert beads.mapping is not None
            where = f"{job.cg.path}, molecule {beads.name}"
            split = _split(job, k)
            folds, held_out = gram_matrices(
                *(workers, rows, split, beads.atom_index, rigid.groups, job.n_atoms[k], bar, device)
            )
            fit = fit_force_map(beads.mapping, rigid.groups, folds, held_out, job.recipes[k], where)
            weights.append(fit.chosen.matrix)
            sizes = {"beads": beads.n_beads, "atoms": beads.n_atoms}
            told = {"constraints": rigid.plain(), **fit_report(fit, split)}
            reports.append({"molecule": beads.name, **sizes, **told})
            for note in judgement(reports[-1]):
                job.reporter.warning(f"{beads.name}: {note}")
    return reports


def _split(job: _Job, k: int) -> Split:
    order, options = job.rows[k].order, job.options
    where = f"{job.cg.path}, molecule {job.names[k]}"
    return split_frames(order, options.holdout, options.seed, folds=options.l2 == "cv", where=where)


def _write(
    job: _Job, blocks: Iterable[CGBlock], reports: Sequence[dict[str, Any]], writer: CGWriter
) -> None:
    """Second pass: write the blocks; what no model of the beads can learn goes to the reports."""
    samples = {k: FrameSample(job.options.seed, rows.rows) for k, rows in enumerate(job.rows)}
    with job.reporter.progress(job.n_frames, "projecting forces", "frames") as bar:
        for block in blocks:
            writer.append(block)
            sample = samples[block.molecule]
            sample.add(block)
            if sample.complete and "unlearnable" not in reports[block.molecule]:
                reports[block.molecule]["unlearnable"] = sample.bound()
                sample.clear()
            bar.advance(len(block.R))


def _told(reports: Sequence[Mapping[str, Any]], options: Options) -> dict[str, Any]:
    """The report as the file keeps it; complete when the last frame has been written."""
    return {
        "units": UNITS,
        "mean_square_force": "per component, mean over beads and frames",
        "method": options.method,
        "engine": options.engine,
        "seed": options.seed,
        "molecules": reports,
    }


def _provenance(
    trajectories: Sequence[Path | str],
    mapped: Path | str,
    found: Mapping[str, str],
    options: Options,
    cg: CGSet,
) -> dict[str, Any]:
    """Where the set comes from; what it said of its own origin is carried along."""
    inputs: list[Path | str] = [*trajectories, mapped]
    known = {Path(t): found[str(t)] for t in trajectories}
    if options.constraints not in CHOICES:
        inputs.append(options.constraints)
    packages = ["numpy", "scipy"] + (["aggforce"] if options.engine == "aggforce" else [])
    record = provenance(
        command_line(["mlff", "project-forces", *trajectories, mapped], options, Options()),
        inputs,
        seed=options.seed,
        packages=packages,
        digests=known,
    )
    before = cg.metadata.get("provenance")
    return {**record, "origins": {str(mapped): before}} if before else record


def _plan(job: _Job, output: Path | str) -> Summary:
    """What would be done."""
    options = job.options
    noise = f", noise of {options.noise:g} A" if options.noise is not None else ""
    lines = [
        f"would fit the {options.method} force map ({options.engine}{noise}) of "
        f"{', '.join(job.names)} and write {job.n_frames} frames to {output}"
    ]
    for k, name in enumerate(job.names):
        split, rigid = _split(job, k), job.rigid[k].plain()
        n = len(np.unique(job.rows[k].source))
        lines.append(
            f"{name}: {split.n_training} frames to fit on and {split.n_held_out} held out, of {n} "
            f"{'trajectory' if n == 1 else 'trajectories'}; {rigid['groups']} rigid groups of "
            f"{rigid['atoms']} atoms ({rigid['relied_on']})"
        )
    data = {"output": str(output), "frames": job.n_frames, "molecules": job.names, "dry_run": True}
    return Summary(data, lines=lines)
