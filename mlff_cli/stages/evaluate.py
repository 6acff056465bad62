"""`mlff evaluate`: how far a model is from its reference, in numbers and figures.

What is compared depends on the family: labels of a fidelity; forces of beads and free energies of
a simulation; ensembles behind a flow. The model says which family it is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mlff_cli.core.artifacts import atomic_path, check_writable, provenance, write_json
from mlff_cli.core.errors import DataError, UsageError
from mlff_cli.core.reporting import NullReporter, Reporter, Summary
from mlff_cli.families.coarse_grained_evaluation import MOST_BINS, Asked, BeadEvaluation
from mlff_cli.families.evaluation import Evaluation, family_of
from mlff_cli.families.multifidelity_evaluation import FidelityEvaluation

FORMAT = "mlff-evaluation-1"


@dataclass(frozen=True)
class Options:
    """What `mlff evaluate` can be told.

    Attributes:
        units: of energies and forces in the results: kcal/mol or eV.
        device: auto, cpu, cuda or cuda:N.
        figures: draw figures beside the JSON file.
        force: replace existing outputs.
        dry_run: check everything, compute nothing.
        simulation: of a coarse-grained model: trajectories of beads to compare with the reference.
        reference: trajectory or set that the simulation is compared with; None: the first data.
        molecule: name of the molecule to look at; None: all, and the simulation's is the only one.
        native: structure that RMSD and native contacts refer to; None: the reference's first frame.
        temperature: K of the frames to compare; None: the only one there is.
        bins: of each axis of a free energy.
        discard: ps left out at the beginning of every simulation.
        lag: of the slow modes, in frames of the reference.
        seed: of the frames that divergences are drawn from.
        split: `split.npz` of a coarse-grained model's run folder: forces of the frames that it
            held out alone.
    """

    units: str = "kcal/mol"
    device: str = "auto"
    figures: bool = True
    force: bool = False
    dry_run: bool = False
    simulation: tuple[Path, ...] = ()
    reference: Path | None = None
    molecule: str | None = None
    native: Path | None = None
    temperature: float | None = None
    bins: int = 36
    discard: float = 0.0
    lag: int = 10
    seed: int = 0
    split: Path | None = None

    @property
    def asked(self) -> Asked:
        """What concerns coarse-grained models alone."""
        return Asked(
            tuple(map(Path, self.simulation)),
            None if self.reference is None else Path(self.reference),
            self.molecule,
            None if self.native is None else Path(self.native),
            self.temperature,
            self.bins,
            self.discard,
            self.lag,
            self.seed,
            None if self.split is None else Path(self.split),
        )


def run(
    model: Path | str,
    data: Sequence[str | Path],
    output: Path | str = "evaluation.json",
    options: Options = Options(),  # noqa: B008 - frozen
    reporter: Reporter | None = None,
) -> Summary:
    """Evaluate, write metrics and figures.

    Args:
        model: `.jpt` artifact, model file or checkpoint.
        data: labelled files (of fidelities in order, or each as `K=FILE`), coarse-grained sets, or
            trajectories with both temperatures of a flow.
        output: JSON file; the others are named after it.
        options: see `Options`.
        reporter: who listens.

    Raises:
        UsageError: an option is unknown or does not belong to the model, an output exists.
        DataError: a file is damaged, has nothing to compare with, or the model does not know what
            is in it.
        NumericalError: a prediction is not finite.
    """
    reporter = reporter or NullReporter()
    output = Path(output)
    family = family_of(model)
    evaluation = _evaluation(family, model, data, output, options)
    for target in (output, *evaluation.figures):
        check_writable(target, force=options.force, inputs=[model, *evaluation.inputs])
    if options.dry_run:
        evaluation.check()
        told = {"output": str(output), "data": [str(p) for p in evaluation.inputs]}
        return Summary(told, lines=list(evaluation.plan))

    found = evaluation.carry_out(reporter)
    content = {
        "format": FORMAT,
        "family": family,
        "model": str(model),
        **found.content,
        "provenance": provenance(
            found.command, [model, *evaluation.inputs], packages=found.packages
        ),
    }
    with ExitStack() as together:  # all outputs appear, or none
        for target, draw in found.figures.items():
            draw(together.enter_context(atomic_path(target, force=options.force)))
        write_json(output, content, force=options.force)
    lines = [str(output), *map(str, found.figures)]
    return Summary(content, tables=found.tables, lines=lines)


def _evaluation(
    family: str, model: Path | str, data: Sequence[str | Path], output: Path, options: Options
) -> Evaluation:
    device, figures = options.device, options.figures
    if family == "multifidelity":
        if options.asked != Asked():
            raise UsageError(
                "simulations and free energies belong to coarse-grained models, this one is of "
                "the family multifidelity",
                where=str(model),
                remedy="leave --simulation and what goes with it out",
            )
        return FidelityEvaluation(
            model, data, output, units=options.units, device=device, figures=figures
        )
    if family == "coarse-grained":
        if options.units != "kcal/mol":
            raise UsageError(
                f"coarse-grained models are evaluated in kcal/mol, found --units {options.units}",
                remedy="leave --units out",
            )
        return BeadEvaluation(
            model, data, output, device=device, figures=figures, asked=options.asked
        )
    if family == "transport":
        return _transport(model, data, output, options)
    raise DataError(f"models of the family {family!r} cannot be evaluated", where=str(model))


def _transport(
    model: Path | str, data: Sequence[str | Path], output: Path, options: Options
) -> Evaluation:
    asked = options.asked
    kept = Asked(bins=asked.bins, discard=asked.discard, seed=asked.seed)
    if asked != kept or options.units != Options().units:
        raise UsageError(
            "a flow is evaluated in kJ/mol on trajectories with both of its temperatures; of the "
            "options for coarse-grained models it takes --bins, --discard and --seed",
            where=str(model),
            remedy="leave the others out",
        )
    if not 1 <= asked.bins <= MOST_BINS or asked.discard < 0:
        raise UsageError(
            f"--bins is 1 to {MOST_BINS} and --discard 0 ps or more, found {asked.bins} and "
            f"{asked.discard:g}"
        )
    # here, because it brings OpenMM, which the other families do without
    from mlff_cli.families.transport_evaluation import TransportEvaluation

    return TransportEvaluation(
        model,
        data,
        output,
        device=options.device,
        figures=options.figures,
        bins=asked.bins,
        discard=asked.discard,
        seed=asked.seed,
    )
