"""`mlff fit-prior`: the energy of a bead model that is known before learning.

One pass over the set counts distances, angles and dihedrals by type; every distribution is then
fitted on its own. A prior holds chains together and beads apart; what the terms do to each other is
left to the model that is trained on top of it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlff_cli.coarse.distributions import Distributions, typed_rows
from mlff_cli.coarse.force_map import GAS_CONSTANT
from mlff_cli.coarse.prior_fit import DAMPING, Fitted, PriorFit, fit_prior
from mlff_cli.coarse.set_terms import MoleculeTerms, molecule_terms, molecules, type_names
from mlff_cli.core.artifacts import atomic_path, check_writable, provenance, sha256
from mlff_cli.core.errors import DataError, MLFFError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary, Table
from mlff_cli.data.cg_npz import CGSet
from mlff_cli.data.cg_writer import write_cg
from mlff_cli.data.prior_file import PriorFile, write_prior
from mlff_cli.data.prior_forms import Cosine, Form, Fourier, Harmonic, SoftSphere
from mlff_cli.report.prior_figures import page_paths, pages, write_page

SAME_TEMPERATURE = 0.5  # K; frames nearer than that are of one ensemble


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
        seed: recorded; nothing is drawn.
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
        rows, temperature = _frames(cg, options)
        known = _terms(cg, reporter)
        if options.dry_run:
            plan = f"would fit {len(rows)} frames of {data} at {temperature:g} K, write {output}"
            facts = {"frames": len(rows), "temperature": temperature, "output": str(output)}
            return Summary(facts, lines=[plan])
        counted = _count(cg, rows, known, reporter)
        kt = GAS_CONSTANT * temperature
        try:
            fit = fit_prior(
                counted,
                kt,
                form=options.form,
                by_type=options.by_type,
                min_samples=options.min_samples,
            )
        except MLFFError as error:
            error.where = error.where or str(data)
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
            for number, (path, panels) in enumerate(zip(figures, drawn, strict=True), 1):
                temporary = together.enter_context(atomic_path(path, force=options.force))
                title = f"{data.name}, {temperature:g} K, {options.form}"
                write_page(temporary, panels, kt, title, number, len(drawn))
            temporary = together.enter_context(atomic_path(output, force=options.force))
            write_prior(temporary, prior, force=True)
            if options.subtract:
                _subtract(cg, prior, known, sha256(temporary), output, options, reporter)
    outputs = [output, *figures, *([options.subtract] if options.subtract else [])]
    return _summary(fit, len(rows), temperature, notes, outputs)


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


def _frames(cg: CGSet, options: Options) -> tuple[np.ndarray, float]:
    """Rows of the frames to use, and their temperature in K."""
    told = cg.per_frame("temperature").astype(np.float64)
    known = np.isfinite(told)
    wanted = options.temperature
    if not known.any():
        if wanted is None:
            raise UsageError(
                "the temperature of the frames is needed, the set does not say it",
                where=str(cg.path),
                remedy="pass --temperature, as --temperature 300",
            )
        return np.arange(cg.n_frames), wanted
    found = _temperatures(told[known])
    if wanted is None:
        if len(found) > 1:
            raise UsageError(
                f"one temperature is needed, the set has {_listed(found)} K",
                where=str(cg.path),
                remedy=f"pass --temperature {found[0]:g} to use the frames of that one",
            )
        wanted = found[0]
    near = known & (np.abs(told - wanted) <= SAME_TEMPERATURE)
    if not near.any():
        raise UsageError(
            f"no frame has the temperature {wanted:g} K, the set has {_listed(found)} K",
            where=str(cg.path),
            remedy=f"pass --temperature {found[0]:g}",
        )
    return np.flatnonzero(near), wanted


def _temperatures(told: np.ndarray) -> list[float]:
    """Temperatures that differ, ascending; each the middle of those that do not."""
    values = np.unique(told)
    groups = np.split(values, np.flatnonzero(np.diff(values) > SAME_TEMPERATURE) + 1)
    return [round(float(np.median(g)), 3) for g in groups]


def _listed(temperatures: list[float]) -> str:
    shown = ", ".join(f"{t:g}" for t in temperatures[:8])
    return shown + (f" and {len(temperatures) - 8} more" if len(temperatures) > 8 else "")


def _terms(cg: CGSet, reporter: Reporter) -> list[MoleculeTerms]:
    """Terms of every molecule; what was assumed of a set without bonds is said."""
    known = molecule_terms(cg)
    if not len(cg.molecules):
        reporter.warning(
            f"{cg.path} names no bonds and no types: consecutive beads are taken as bonded, types "
            f"are {', '.join(type_names(cg)[:3])}{', ...' if len(type_names(cg)) > 3 else ''} by "
            "their number"
        )
    if all(k.terms.n_beads == 1 for k in known):
        raise DataError(
            "a prior needs two beads or more in a molecule, found one",
            where=str(cg.path),
            remedy="choose a finer mapping in `mlff cg-map`",
        )
    if not any(len(k.terms.bonds) for k in known):
        raise DataError(
            "a prior needs bonds, found none between the beads",
            where=str(cg.path),
            remedy="give the topology of `mlff cg-map` its bonds (CONECT records, or a PSF)",
        )
    return known


def _count(
    cg: CGSet, rows: np.ndarray, known: list[MoleculeTerms], reporter: Reporter
) -> Distributions:
    typed = [typed_rows(k.terms, k.types, k.disulfides) for k in known]
    counted = Distributions()
    with reporter.progress(len(rows), "distributions", "frames") as bar:
        for block in cg.blocks(rows, forces=False):
            counted.add(block.R, typed[block.molecule], block.rows)
            bar.advance(len(block.R))
    return counted


def _told(fit: PriorFit, counted: Distributions) -> list[str]:
    """What a user must not miss."""
    notes = list(fit.notes)
    if fit.broken and counted.longest:
        length, frame, beads = counted.longest
        kinds = ", ".join(f"{name} ({n})" for name, n in list(fit.broken.items())[:6])
        notes.append(
            f"{sum(fit.broken.values())} bonds are longer than twice the median of their type and "
            f"were left out: {kinds}; the longest, {length:.1f} A, joins beads {beads[0]} and "
            f"{beads[1]} in frame {frame}. Chains may be broken or not whole: run `mlff check`"
        )
    return notes


def _prior(cg: CGSet, fit: PriorFit, temperature: float, options: Options) -> PriorFile:
    command = ["mlff", "fit-prior", str(cg.path), "--form", options.form]
    if options.temperature is not None:
        command += ["--temperature", f"{options.temperature:g}"]
    if not options.by_type:
        command += ["--no-by-type"]
    command += ["--min-samples", str(options.min_samples)]
    mapping = cg.metadata.get("mapping")
    record = provenance(command, [cg.path], seed=options.seed, packages=["numpy", "scipy"])
    return PriorFile(
        species=tuple(type_names(cg)),
        terms=fit.terms(),
        temperature=temperature,
        mapping=mapping if isinstance(mapping, str) else "unknown",
        form="spline" if options.form == "spline" else "parametric",
        damping=DAMPING,
        provenance=record,
    )


def _subtract(
    cg: CGSet,
    prior: PriorFile,
    known: list[MoleculeTerms],
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
            **provenance(
                ["mlff", "fit-prior", str(cg.path), "--subtract"], [cg.path], seed=options.seed
            ),
            "origin": cg.metadata.get("provenance"),
        },
    }
    sources = cg.sources
    with reporter.progress(cg.n_frames, "subtract", "frames") as bar:

        def stream() -> Any:
            for block in subtract_prior(cg.blocks(), prior, [(k.terms, k.types) for k in known]):
                yield block
                bar.advance(len(block.R))

        write_cg(
            options.subtract,
            molecules(cg),
            type_names(cg),
            sources,
            metadata,
            stream(),
            force=options.force,
        )


def _summary(
    fit: PriorFit, frames: int, temperature: float, notes: list[str], outputs: list[Path]
) -> Summary:
    entries = [
        {
            "term": f.kind,
            "types": list(f.types),
            "form": f.entry.parameters.form,
            "samples": f.entry.samples,
            "overlap": f.overlap,
            "range": list(f.range) if f.range else None,
        }
        for f in fit.fitted
    ]
    rows = [_row(f, fit) for f in fit.fitted if f.label == "pooled"]
    columns = ["term", "samples", "pooled parameters", "types of their own", "pooled types"]
    few = [
        f"{kind}: {', '.join(types[:8])}{f' and {len(types) - 8} more' if len(types) > 8 else ''} "
        "with too few samples for parameters of their own"
        for kind, types in fit.few.items()
    ]
    data = {
        "outputs": [str(p) for p in outputs],
        "frames": frames,
        "temperature": temperature,
        "entries": entries,
        "pooled_for_want_of_samples": fit.few,
        "broken_bonds": fit.broken,
        "warnings": notes,
    }
    lines = [*map(str, outputs), f"{frames} frames at {temperature:g} K"]
    return Summary(data, [Table("Prior", columns, rows, few)], lines)


def _row(f: Fitted, fit: PriorFit) -> list[Any]:
    own = sum(1 for g in fit.fitted if g.kind == f.kind and g.label != "pooled")
    return [f.kind, f.entry.samples, _words(f.entry.parameters), own, len(fit.few.get(f.kind, []))]


def _words(form: Form) -> str:
    """Parameters in a few words."""
    if isinstance(form, Harmonic):
        return f"k {form.k:.4g} kcal/mol/A^2, r0 {form.r0:.4g} A"
    if isinstance(form, SoftSphere):
        return f"sigma {form.sigma:.4g} A, eps {form.epsilon:.4g} kcal/mol"
    if isinstance(form, Fourier):
        return f"series of order {len(form.a)}"
    if isinstance(form, Cosine):
        return "k " + ", ".join(f"{k:.3g}" for k in form.k) + " kcal/mol"
    return f"cubic spline of {len(form.values)} knots"
