"""`mlff fit-prior`: the energy of a bead model that is known before learning.

One pass over the set counts distances, angles and dihedrals by type; every distribution is then
fitted on its own. A prior holds chains together and beads apart; what the terms do to each other is
left to the model that is trained on top of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.coarse.forces.force_map import GAS_CONSTANT
from mlff_cli.coarse.priors.prior_entries import Fitted, PriorFit
from mlff_cli.coarse.priors.prior_fit import DAMPING, fit_prior
from mlff_cli.coarse.priors.set_distributions import Counted, count_frames
from mlff_cli.coarse.priors.set_terms import (
    MoleculeTerms,
    bare_molecules,
    molecule_terms,
    molecules,
)
from mlff_cli.core.artifacts import atomic_path, check_writable, provenance, sha256
from mlff_cli.core.command_line import command_line
from mlff_cli.core.errors import DataError, MLFFError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.data.beads.cg_npz import CGSet
from mlff_cli.data.beads.cg_temperatures import rows_of_temperature
from mlff_cli.data.beads.cg_writer import write_cg
from mlff_cli.data.beads.prior_file import PriorFile, write_prior
from mlff_cli.data.beads.species_names import species_names
from mlff_cli.physics.terms import Terms
from mlff_cli.report.prior_figures import page_paths, pages, write_page
from mlff_cli.report.prior_summary import prior_summary

OUTPUTS = ("subtract", "figure")  # options that add outputs and change none


@dataclass(frozen=True)
class Options:
    """What `mlff fit-prior` can be told.

    Attributes:
        form: "parametric" (springs, series) or "spline".
        temperature: K; None takes the set's. Of a set of several temperatures, the frames of this
            one are used.
        by_type: also fit every residue type, not only all together.
        min_samples: samples that a type needs for parameters of its own.
        subtract: also write the set with the prior's forces subtracted here (delta learning).
        figure: draw every fitted distribution beside the output.
        seed: of the frames whose pairs are counted, where a set has too many for all.
        force: replace existing outputs.
        dry_run: check everything, fit and write nothing.
    """

    form: str = "parametric"
    temperature: float | None = None
    by_type: bool = True
    min_samples: int = 1000
    subtract: Path | None = None
    figure: bool = True
    seed: int = 0
    force: bool = False
    dry_run: bool = False


def run(
    data: Path | str,
    output: Path | str,
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Fit a prior and write it, with figures.

    Args:
        data: CG NPZ, forces not needed unless they are subtracted from.
        output: YAML file; figures are named after it.
        options: see `Options`.
        reporter: who listens.

    Raises:
        UsageError: an option is out of range, an output exists, no or several temperatures.
        DataError: the set is damaged, a value is not finite, too few frames, no bonded beads, or no
            forces to subtract from.
        NumericalError: a distribution that the form cannot describe at all.
    """
    reporter = reporter or NullReporter()
    data, output = Path(data), Path(output)
    _check(options)
    _check_outputs(data, output, options)
    with CGSet(data) as cg:
        for note in cg.notes:
            reporter.warning(note)
        if options.subtract and not cg.has_forces:
            raise DataError(
                "--subtract takes the prior's forces off those of the set, which has none",
                where=str(data),
                remedy="run `mlff project-forces` first",
            )
        if options.subtract and "subtracted_prior" in cg.metadata:
            raise DataError(
                "--subtract takes one prior off the forces, those of the set lack one already",
                where=str(data),
                remedy="fit the set that it was made from",
            )
        chosen = rows_of_temperature(cg, options.temperature)
        rows, temperature = chosen.rows, chosen.kelvin
        if chosen.left_out:
            reporter.warning(f"{data}: {chosen.left_out}")
        known = _terms(cg, reporter)
        if options.dry_run:
            plan = f"would fit {len(rows)} frames of {data} at {temperature:g} K, write {output}"
            facts = {"frames": len(rows), "temperature": temperature, "output": str(output)}
            return Summary(facts, lines=[plan])
        counted = Counted()
        with reporter.progress(len(rows), "distributions", "frames") as bar:
            count_frames(counted, cg, rows, known, options.seed, bar.advance)
        kt = GAS_CONSTANT * temperature
        try:
            fit = fit_prior(
                counted.distributions,
                kt,
                form=options.form,
                by_type=options.by_type,
                min_samples=options.min_samples,
            )
        except MLFFError as error:
            error.where = error.where or str(data)
            if chosen.left_out:
                error.message += f"; {chosen.left_out}"
            raise
        notes = _told(fit, counted)
        for note in notes:
            reporter.warning(note)
        prior = _prior(cg, fit, temperature, options)
        drawn = pages(fit.fitted) if options.figure else []
        figures = page_paths(output, len(drawn))
        for path in figures:
            check_writable(path, force=options.force, inputs=[data])
        with ExitStack() as together:  # all outputs appear, or none
            if options.figure:
                title = f"{data.name}, {temperature:g} K, {options.form}"
                _figures(figures, drawn, kt, title, options, together, reporter)
            temporary = together.enter_context(atomic_path(output, force=options.force))
            write_prior(temporary, prior, force=True)
            if options.subtract:
                _subtract(cg, prior, known, sha256(temporary), output, options, reporter)
    left = sum(f.histogram is not None and f.histogram.n > 0 for f in fit.fitted)
    left -= sum(map(len, drawn))
    if options.figure and left:
        reporter.info(f"{left} terms, those with the fewest samples, are fitted but not drawn")
    if options.figure and (stale := page_paths(output, len(figures) + 1)[-1]).exists():
        reporter.warning(f"{stale} is a page of an earlier figure, this one has {len(figures)}")
    outputs = [output, *figures, *([options.subtract] if options.subtract else [])]
    return prior_summary(fit, len(rows), counted.n_paired, temperature, notes, outputs)


def _check(options: Options) -> None:
    if options.form not in ("parametric", "spline"):
        raise UsageError(f"--form is parametric or spline, found {options.form!r}")
    t = options.temperature
    if t is not None and not (np.isfinite(t) and t > 0.0):
        raise UsageError(f"--temperature must be above 0 K, found {t:g}")
    if options.min_samples < 1:
        raise UsageError(f"--min-samples must be at least 1, found {options.min_samples}")


def _check_outputs(data: Path, output: Path, options: Options) -> None:
    """Refuse outputs before any work; further pages of a figure are known only after it."""
    outputs = [output, *(page_paths(output, 1) if options.figure else [])]
    if options.subtract:
        outputs.append(Path(options.subtract))
    for path in outputs:
        check_writable(path, force=options.force, inputs=[data])
    if len({p.absolute() for p in outputs}) < len(outputs):
        raise UsageError(
            f"outputs need names of their own, found {', '.join(map(str, outputs))}",
            remedy="name the prior *.yaml and the set *.npz",
        )


def _terms(cg: CGSet, reporter: Reporter) -> Sequence[MoleculeTerms]:
    """Terms of every molecule; what was assumed of a set without bonds is said."""
    known, names = molecule_terms(cg), species_names(cg)
    if not len(cg.molecules):
        reporter.warning(
            f"{cg.path} names no bonds and no types: consecutive beads are taken as bonded, types "
            f"are {', '.join(names[:3])}{', ...' if len(names) > 3 else ''} by their number"
        )
    if all(len(layout.columns) == 1 for layout in cg.layouts):
        raise DataError(
            "a prior needs two beads or more in a molecule, found one",
            where=str(cg.path),
            remedy="choose a finer mapping in `mlff cg-map`",
        )
    if not any(len(m.bonds) for m in bare_molecules(cg)):
        raise DataError(
            "a prior needs bonds, found none between the beads",
            where=str(cg.path),
            remedy="give the topology of `mlff cg-map` its bonds (CONECT records, or a PSF)",
        )
    return known


def _told(fit: PriorFit, counted: Counted) -> list[str]:
    """What a user must not miss."""
    notes = list(fit.notes)
    if counted.n_untold:
        notes.append(
            f"{counted.n_untold} dihedrals of D-amino acids have types that do not tell their "
            "hand: their curves are those of both hands together. One bead a residue and "
            "`--species residue` of `mlff cg-map` tell it"
        )
    longest = counted.distributions.longest
    if fit.broken and longest:
        length, frame, beads = longest
        kinds = ", ".join(f"{name} ({n})" for name, n in list(fit.broken.items())[:6])
        notes.append(
            f"{sum(fit.broken.values())} bonds are longer than twice the median of their type and "
            f"were left out: {kinds}; the longest, {length:.1f} A, joins beads {beads[0]} and "
            f"{beads[1]} in frame {frame}. Chains may be broken or not whole: run `mlff check`"
        )
    return notes


def _command(cg: CGSet, options: Options) -> str:
    return command_line(["mlff", "fit-prior", cg.path], options, Options(), OUTPUTS)


def _mapping(cg: CGSet) -> str:
    """Name of the mapping that all molecules share."""
    each = [cg.metadata, *cg.metadata.get("molecules", [])]
    names = {str(m["mapping"]) for m in each if isinstance(m.get("mapping"), str)}
    return names.pop() if len(names) == 1 else "unknown"


def _prior(cg: CGSet, fit: PriorFit, temperature: float, options: Options) -> PriorFile:
    command = _command(cg, options)
    record = provenance(command, [cg.path], seed=options.seed, packages=["numpy", "scipy"])
    return PriorFile(
        species=tuple(species_names(cg)),
        terms=fit.terms(),
        temperature=temperature,
        mapping=_mapping(cg),
        form="spline" if options.form == "spline" else "parametric",
        damping=DAMPING,
        provenance=record,
    )


def _figures(
    paths: list[Path],
    drawn: list[list[Fitted]],
    kt: float,
    title: str,
    options: Options,
    together: ExitStack,
    reporter: Reporter,
) -> None:
    """Draw the pages; they appear when `together` ends."""
    with reporter.progress(len(drawn), "figure", "pages") as bar:
        for number, (path, panels) in enumerate(zip(paths, drawn, strict=True), 1):
            temporary = together.enter_context(atomic_path(path, force=options.force))
            write_page(temporary, panels, kt, title, number, len(drawn))
            bar.advance()


def _subtract(
    cg: CGSet,
    prior: PriorFile,
    known: Sequence[MoleculeTerms],
    digest: str,
    output: Path,
    options: Options,
    reporter: Reporter,
) -> None:
    """Write the set less the prior's forces."""
    # torch is needed for this alone
    from mlff_cli.potentials.prior_delta import subtract_prior

    assert options.subtract is not None
    metadata = {
        **cg.metadata,
        "subtracted_prior": {"path": str(output), "sha256": digest},
        "provenance": {
            **provenance(_command(cg, options), [cg.path], seed=options.seed),
            "origin": cg.metadata.get("provenance"),
        },
    }
    sources = cg.sources
    with reporter.progress(cg.n_frames, "subtract", "frames") as bar:

        def bound(k: int) -> tuple[Terms, Sequence[str]]:
            return known[k].terms, known[k].types

        def stream() -> Any:
            for block in subtract_prior(cg.blocks(), prior, bound):
                yield block
                bar.advance(len(block.R))

        write_cg(
            options.subtract,
            molecules(cg),
            species_names(cg),
            sources,
            metadata,
            stream(),
            force=options.force,
        )
