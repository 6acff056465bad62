"""`mlff project-forces`: atomic forces become forces on the beads of a mapped set.

The forces are read twice, as streams: once for the Gram matrices that the map is fitted and judged
on, once to apply it. Memory holds matrices of the rigid groups and a piece of the trajectory,
whatever its length. torch is imported for `--device cuda` alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlff_cli.coarse.forces.aggforce_engine import require_aggforce
from mlff_cli.coarse.forces.device_gram import require_device
from mlff_cli.coarse.forces.force_fit import Recipe
from mlff_cli.coarse.forces.force_job import Job, fit, look, write
from mlff_cli.coarse.forces.force_passes import noisy, prepare, projected
from mlff_cli.coarse.forces.force_report import UNITS, tables
from mlff_cli.coarse.forces.force_split import split_frames
from mlff_cli.core.artifacts import check_writable, provenance
from mlff_cli.core.cluster import check_crew, crew
from mlff_cli.core.command_line import command_line
from mlff_cli.core.digests import Digests
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.memory import size_text
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.data.beads.cg_npz import CGSet, is_cg_npz
from mlff_cli.data.beads.cg_writer import CGWriter
from mlff_cli.data.beads.force_rows import rows_of_molecules
from mlff_cli.data.beads.force_sources import absolute, digests, match_sources, paths_as_given
from mlff_cli.data.beads.map_store import Projected, map_store
from mlff_cli.data.trajectories.opening import split_selection, trajectory_format

MOST_NOISE = 5.0  # angstrom; beads are 3.8 A apart
LEAST_NOISE = 1e-6  # angstrom: with less the force of the noise drowns all others
SILENT = 1 << 30  # bytes hashed without a word
CONSTRAINTS = (
    "auto finds what the simulation kept rigid, topology takes bonds to hydrogen and rigid water, "
    "a file lists groups of atoms"
)
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
    _check_order(trajectories, mapped)
    with CGSet(mapped) as cg, Digests([*files, mapped]) as hashes:
        _check_set(cg, reporter)
        rows = rows_of_molecules(cg)
        splits = [
            split_frames(
                *(some.order, options.holdout, options.seed),
                folds=options.l2 == "cv",
                where=f"{cg.path}, molecule {cg.molecules[k].name}",
            )
            for k, some in enumerate(rows)
        ]
        found = _digests(trajectories, files, hashes, reporter)
        used = np.unique(np.concatenate([some.source for some in rows]))
        paths = match_sources(found, cg.sources, used, str(mapped))
        recipe = Recipe(
            options.method, options.l2, options.engine, options.noise, options.temperature
        )
        job = look(cg, rows, splits, paths, recipe, options.constraints, reporter)
        if options.dry_run:
            return _plan(job, output, options)
        record = _provenance(trajectories, mapped, found, hashes, options, cg)
        with (
            paths_as_given(trajectories),
            crew(
                *(prepare, ({k: absolute(path) for k, path in paths.items()},)),
                workers=options.workers,
                scheduler=options.scheduler,
                reporter=reporter,
                inputs=[file.absolute() for file in files],
            ) as workers,
            map_store(output) as maps,
        ):
            reports = fit(job, workers, maps, device, reporter)
            told = _told(reports, options)
            metadata = {**cg.metadata, "force_map": told, "provenance": record}
            molecules = Projected(cg.molecules, maps)
            with CGWriter(
                *(output, molecules, cg.species_table, cg.sources, metadata), force=options.force
            ) as writer:
                blocks = projected(workers, cg, maps, job.n_atoms)
                if options.noise is not None:
                    blocks = noisy(blocks, cg, maps, job.recipes, options.seed)
                write(job, blocks, reports, writer, options.seed, reporter)
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
        is_word = options.constraints == Path(options.constraints).stem
        raise UsageError(
            f"--constraints must be {', '.join(CHOICES)} or a file, found {options.constraints!r}",
            remedy=CONSTRAINTS if is_word else "check the path",
        )
    if not 0.0 <= options.holdout < 1.0:
        raise UsageError(
            f"--holdout must be 0 or more and below 1, found {options.holdout:g}",
            remedy="0.2 holds a fifth of the frames out, 0 fits on all of them",
        )
    if options.noise is not None and not LEAST_NOISE <= options.noise <= MOST_NOISE:
        raise UsageError(
            f"--noise must be {LEAST_NOISE:g} to {MOST_NOISE:g} angstrom, found {options.noise:g}"
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


def _check_order(trajectories: Sequence[Path | str], mapped: Path | str) -> None:
    """Refuse a trajectory where the mapped set should be, and a set among the trajectories."""
    first = [str(path) for path in trajectories if _is_set(path)]
    kind = None if _is_set(mapped) else trajectory_format(mapped)
    if kind == "npz" and _is_set(mapped) is None:
        kind = None  # damaged, whatever it was
    if first or kind:
        found = [f"a trajectory ({kind}) in its place"] if kind else []
        found += [f"{', '.join(first)} among the trajectories"] if first else []
        raise UsageError(
            "the mapped set comes last, behind the trajectories that it was mapped from; found "
            f"{' and '.join(found)}",
            where=str(mapped),
            remedy="mlff project-forces TRAJECTORIES MAPPED -o OUTPUT",
        )


def _is_set(path: Path | str) -> bool | None:
    """Whether a file is a coarse-grained set; None where it is no readable NPZ file."""
    try:
        return is_cg_npz(split_selection(path)[0])
    except DataError:  # told by whoever opens it
        return None


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


def _digests(
    trajectories: Sequence[Path | str], files: Sequence[Path], hashes: Digests, reporter: Reporter
) -> dict[str, str]:
    """SHA-256 of every trajectory, by which it is recognised."""
    size = sum(file.stat().st_size for file in set(files))
    say = reporter.info if size > SILENT else reporter.detail
    say(f"hashing {size_text(size)} of trajectories to recognise them")
    return digests(trajectories, hashes.of)


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
    hashes: Digests,
    options: Options,
    cg: CGSet,
) -> dict[str, Any]:
    """Where the set comes from; what it said of its own origin is carried along."""
    inputs: list[Path | str] = [*trajectories, mapped]
    known = {Path(t): found[str(t)] for t in trajectories} | {Path(mapped): hashes.of(mapped)}
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


def _plan(job: Job, output: Path | str, options: Options) -> Summary:
    """What would be done."""
    noise = f", noise of {options.noise:g} A" if options.noise is not None else ""
    lines = [
        f"would fit the {options.method} force map ({options.engine}{noise}) of "
        f"{', '.join(job.names)} and write {job.n_frames} frames to {output}"
    ]
    for k, name in enumerate(job.names):
        split, rigid = job.splits[k], job.rigid[k].plain()
        n = len(np.unique(job.rows[k].source))
        lines.append(
            f"{name}: {split.n_training} frames to fit on and {split.n_held_out} held out, of {n} "
            f"{'trajectory' if n == 1 else 'trajectories'}; {rigid['groups']} rigid groups of "
            f"{rigid['atoms']} atoms ({rigid['relied_on']})"
        )
    data = {"output": str(output), "frames": job.n_frames, "molecules": job.names, "dry_run": True}
    return Summary(data, lines=lines)
