"""The molecules of a set and how their forces are mapped: looked over, fitted, written.

look        the trajectories fit, and what is rigid; no force is read
fit         first pass: Gram matrices, and every molecule's force map
write       second pass: W f, and what no model of the beads can learn
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlff_cli.coarse.forces.force_fit import Recipe, check_groups, fit_force_map
from mlff_cli.coarse.forces.force_inputs import check_trajectories, ensemble_temperature, find_rigid
from mlff_cli.coarse.forces.force_passes import gram_matrices
from mlff_cli.coarse.forces.force_report import fit_report, judgement
from mlff_cli.coarse.forces.force_split import HELD_OUT, Split
from mlff_cli.coarse.forces.frame_sample import FrameSample
from mlff_cli.coarse.forces.rigid_groups import RigidGroups
from mlff_cli.core.errors import DataError
from mlff_cli.core.reporting import Reporter
from mlff_cli.core.tasks import Crew
from mlff_cli.data.beads.cg_npz import CGBlock, CGSet
from mlff_cli.data.beads.cg_writer import CGWriter
from mlff_cli.data.beads.force_rows import Rows
from mlff_cli.data.beads.force_sources import ForceSources
from mlff_cli.data.beads.map_store import MapStore


@dataclass(frozen=True)
class Job:
    """A set and how its molecules are treated; lists go by molecule.

    Attributes:
        cg: the set.
        names: of the molecules.
        rows: their frames.
        splits: which are fitted on, and which are held out.
        recipes: the maps that are wanted.
        n_atoms: of the trajectories.
        rigid: rigid groups.
    """

    cg: CGSet
    names: list[str]
    rows: list[Rows]
    splits: list[Split]
    recipes: list[Recipe]
    n_atoms: list[int]
    rigid: list[RigidGroups]

    @property
    def n_frames(self) -> int:
        """Frames of all molecules."""
        return sum(len(rows.rows) for rows in self.rows)


def look(
    cg: CGSet,
    rows: list[Rows],
    splits: list[Split],
    paths: Mapping[int, str],
    recipe: Recipe,
    constraints: str,
    reporter: Reporter,
) -> Job:
    """Find everything wrong that can be found before forces are read, and what is rigid.

    Args:
        cg: the set.
        rows: frames of every molecule.
        splits: of these frames.
        paths: trajectory by row of the set's `sources`.
        recipe: what is wanted; its temperature is the user's, each molecule gets its own.
        constraints: see `force_inputs.find_rigid`.
        reporter: who listens.

    Raises:
        UsageError: noise needs one temperature.
        DataError: a trajectory is damaged or does not fit, or a rigid group spans two beads.
    """
    names = [cg.molecules[k].name for k in range(len(rows))]
    recipes, rigid = [], []
    for some, name in zip(rows, names, strict=True):
        kelvin, notes = ensemble_temperature(some, name, recipe.sigma, recipe.temperature)
        for note in notes:
            reporter.warning(note)
        recipes.append(dataclasses.replace(recipe, temperature=kelvin))
    with ForceSources(paths) as sources:
        looked = [check_trajectories(cg.molecules[k], rows[k], sources) for k in range(len(rows))]
        for note in dict.fromkeys(sources.notes):
            reporter.warning(note)
        for k, some in enumerate(rows):
            beads = cg.molecules[k]
            found = find_rigid(constraints, beads, some, sources, looked[k], names)
            for note in found.notes:
                reporter.warning(f"{beads.name}: {note}")
            if beads.mapping is None:
                raise DataError(f"molecule {beads.name} has no mapping", where=str(cg.path))
            check_groups(beads.mapping, found.groups, f"{cg.path}, molecule {beads.name}")
            rigid.append(found)
    n_atoms = [found.n_atoms for found in looked]
    return Job(cg, names, rows, splits, recipes, n_atoms, rigid)


def fit(
    job: Job, workers: Crew, maps: MapStore, device: Any, reporter: Reporter
) -> list[dict[str, Any]]:
    """First pass: every molecule's force map goes to `maps`, what is known of it is returned.

    Args:
        job: the molecules.
        workers: a crew of `force_passes.prepare`.
        maps: is given W of every molecule.
        device: of torch, for Gram matrices; None for the CPU.
        reporter: who listens.

    Raises:
        DataError: a force is not finite.
        NumericalError: a Gram matrix is singular.
    """
    reports = []
    with reporter.progress(job.n_frames, "reading forces", "frames") as bar:
        for k, (rows, split, rigid) in enumerate(zip(job.rows, job.splits, job.rigid, strict=True)):
            beads = job.cg.molecules[k]
            assert beads.mapping is not None
            where = f"{job.cg.path}, molecule {beads.name}"
            folds, held_out = gram_matrices(
                *(workers, rows, split, beads.atom_index, rigid.groups, job.n_atoms[k], bar, device)
            )
            fitted = fit_force_map(
                beads.mapping, rigid.groups, folds, held_out, job.recipes[k], where
            )
            maps.append(fitted.chosen.matrix)
            sizes = {"beads": beads.n_beads, "atoms": beads.n_atoms}
            told = {"constraints": rigid.plain(), **fit_report(fitted, split)}
            reports.append({"molecule": beads.name, **sizes, **told})
            for note in judgement(reports[-1]):
                reporter.warning(f"{beads.name}: {note}")
    return reports


def write(
    job: Job,
    blocks: Iterable[CGBlock],
    reports: Sequence[dict[str, Any]],
    writer: CGWriter,
    seed: int,
    reporter: Reporter,
) -> None:
    """Second pass: write the blocks; what no model of the beads can learn goes to the reports.

    Args:
        job: the molecules.
        blocks: with forces, in the order of the set.
        reports: of `fit`; are completed.
        writer: of the output.
        seed: of the frames that the bound is computed from.
        reporter: who listens.
    """
    samples = []
    for rows, split, report in zip(job.rows, job.splits, reports, strict=True):
        fitted = report["map"] != "basic"
        judged = rows.rows[split.part == HELD_OUT] if fitted else rows.rows
        samples.append(FrameSample(seed, judged, "held-out frames" if fitted else "all frames"))
        report["unlearnable"] = samples[-1].bound() if samples[-1].complete else None
    with reporter.progress(job.n_frames, "projecting forces", "frames") as bar:
        for block in blocks:
            writer.append(block)
            sample = samples[block.molecule]
            sample.add(block)
            if sample.complete and reports[block.molecule]["unlearnable"] is None:
                reports[block.molecule]["unlearnable"] = sample.bound()
                sample.clear()
            bar.advance(len(block.R))
