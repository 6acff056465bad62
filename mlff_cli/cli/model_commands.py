"""Commands that make and judge models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlff_cli.cli import options as opt
from mlff_cli.cli.options import Talk, talking
from mlff_cli.cli.run import execute

if TYPE_CHECKING:
    from mlff_cli.core.reporting import Reporter, Summary

app = typer.Typer()
PANEL = "Model"
SAID = Talk()  # stands for what `talking` hands over
BARE = "What a model file knows by itself"
BEADS = "Sets and simulations of beads"
OF_BEADS = "Coarse-grained models"


@app.command(rich_help_panel=PANEL)
@talking
def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Over the files, as trainer.epochs=20 or seed=3."
        ),
    ] = None,
    config: Annotated[
        list[Path] | None, typer.Option("-c", "--config", help="YAML file; later ones win.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="What the files change: default (aimnet2mult's size) or small; cg or cg_small "
            "for coarse-grained models; ic_300_450, aa_300_450 and others for transport."
        ),
    ] = "default",
    model: Annotated[
        Path | None, typer.Option(help="Architecture, instead of the preset's.")
    ] = None,
    load: Annotated[
        Path | None, typer.Option(help="Start from these weights instead of random ones.")
    ] = None,
    save: Annotated[Path, typer.Option(help="Model file to write.")] = Path("model.pt"),
    resume: Annotated[
        str, typer.Option(help="auto: continue an interrupted run; never: start anew.")
    ] = "auto",
    ensemble: Annotated[
        int, typer.Option(min=1, help="Train so many models from different seeds, keep the best.")
    ] = 1,
    lr_find: Annotated[
        bool, typer.Option("--lr-find", help="Range test of the learning rate instead of training.")
    ] = False,
    compile_step: Annotated[
        bool,
        typer.Option("--compile", help="Compile the training step, minutes at first; needs g++."),
    ] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    device: opt.Device = "auto",
    seed: Annotated[
        int | None,
        typer.Option(help="Instead of the configuration's.", rich_help_panel=opt.COMMON),
    ] = None,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Train a model; an interrupted run continues when called again."""
    from mlff_cli.stages import train as stage

    def go(reporter: Reporter) -> Summary:
        chosen = stage.Options(
            save=save,
            configs=tuple(config or ()),
            overrides=tuple(overrides or ()),
            preset=preset,
            model=model,
            load=load,
            resume=opt.choice("--resume", resume, ("auto", "never")),
            force=force,
            seed=seed,
            device=device,
            dtype=opt.choice("--dtype", dtype, ("float32", "float64")),
            dry_run=dry_run,
            compile=compile_step,
            ensemble=ensemble,
            lr_find=lr_find,
        )
        return stage.run(chosen, reporter)

    execute(go, talk)


@app.command(rich_help_panel=PANEL)
@talking
def evaluate(
    model: Annotated[Path, typer.Argument(help="Compiled artifact, model file or checkpoint.")],
    data: Annotated[
        list[str],
        typer.Argument(
            help="Labelled data; for fidelity K of a model file K=FILE, or in order. Sets of "
            "beads; trajectories for a flow."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="JSON of metrics; figures are named after it.")
    ] = Path("evaluation.json"),
    units: Annotated[str, typer.Option(help="Of energies: kcal/mol or eV.")] = "kcal/mol",
    figures: Annotated[bool, typer.Option(help="Draw figures.")] = True,
    split: Annotated[
        Path | None,
        typer.Option(
            help="split.npz of the run folder: only frames that were held out.",
            rich_help_panel=BEADS,
        ),
    ] = None,
    simulation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Trajectory of beads, whose free energies are judged.", rich_help_panel=BEADS
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Set or trajectory it is compared with.",
            show_default="the first data",
            rich_help_panel=BEADS,
        ),
    ] = None,
    molecule: Annotated[
        str | None, typer.Option(help="Which, where there are several.", rich_help_panel=BEADS)
    ] = None,
    native: Annotated[
        Path | None,
        typer.Option(
            help="Structure of RMSD and native contacts.",
            show_default="the reference's first frame",
            rich_help_panel=BEADS,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="K of the frames to compare.", show_default="the only one", rich_help_panel=BEADS
        ),
    ] = None,
    bins: Annotated[
        int, typer.Option(min=2, help="Of each axis of a free energy.", rich_help_panel=BEADS)
    ] = 36,
    discard: Annotated[
        float,
        typer.Option(help="Beginning of each simulation left out, ps.", rich_help_panel=BEADS),
    ] = 0.0,
    lag: Annotated[
        int,
        typer.Option(
            min=1, help="Of the slow modes, frames of the reference.", rich_help_panel=BEADS
        ),
    ] = 10,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Errors per fidelity; forces and free energies of beads; acceptance of a flow."""
    from mlff_cli.stages import evaluate as stage

    def go(reporter: Reporter) -> Summary:
        chosen = stage.Options(
            units=units,
            device=device,
            figures=figures,
            force=force,
            dry_run=dry_run,
            split=split,
            simulation=tuple(simulation or ()),
            reference=reference,
            molecule=molecule,
            native=native,
            temperature=temperature,
            bins=bins,
            discard=discard,
            lag=lag,
            seed=seed,
        )
        return stage.run(model, data, output, chosen, reporter)

    execute(go, talk)


@app.command("compile", rich_help_panel=PANEL)
@talking
def compile_(
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Model file, checkpoint, or bare weights; several are an ensemble of beads.",
            show_default="model.pt",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="Stem: _fid0.jpt and _fid0_meta.yaml follow; of beads .jpt and _meta.yaml, or the "
            "folder for LAMMPS.",
        ),
    ] = Path("compiled_model"),
    fidelity_level: Annotated[
        int | None, typer.Option(help="Which fidelity; needed where there are several.")
    ] = None,
    dispersion: Annotated[str, typer.Option(help="none or d3bj.")] = "none",
    dispersion_functional: Annotated[
        str | None, typer.Option(help="Whose parameters.", show_default="the level of theory's")
    ] = None,
    dispersion_s6: Annotated[float | None, typer.Option(help="Custom D3(BJ) parameter.")] = None,
    dispersion_s8: Annotated[float | None, typer.Option(help="Custom D3(BJ) parameter.")] = None,
    dispersion_a1: Annotated[float | None, typer.Option(help="Custom D3(BJ) parameter.")] = None,
    dispersion_a2: Annotated[
        float | None, typer.Option(help="Custom D3(BJ) parameter, Bohr.")
    ] = None,
    dispersion_s9: Annotated[
        float | None, typer.Option(help="1 adds the three-body term.", show_default="0")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="jpt (TorchScript); of beads also lammps, a folder.")
    ] = "jpt",
    dtype: Annotated[str, typer.Option(help="Of the network: float32 or float64.")] = "float32",
    molecule: Annotated[
        str | None,
        typer.Option(help="Which, where the model knows several.", rich_help_panel=OF_BEADS),
    ] = None,
    structure: Annotated[
        Path | None,
        typer.Option(
            help="Set, trajectory or PDB to start from; a set may hold a new molecule.",
            rich_help_panel=OF_BEADS,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="cpu or cuda, of Allegro in LAMMPS.", rich_help_panel=OF_BEADS),
    ] = "cpu",
    model: Annotated[
        Path | None,
        typer.Option(help="model.yaml of bare weights.", rich_help_panel=BARE),
    ] = None,
    sae: Annotated[
        Path | None, typer.Option(help="Atomic energies of this fidelity.", rich_help_panel=BARE)
    ] = None,
    num_fidelities: Annotated[
        int | None, typer.Option(help="Fidelities in the model.", rich_help_panel=BARE)
    ] = None,
    fidelity_offset: Annotated[
        int | None, typer.Option(help="Distance between fidelities.", rich_help_panel=BARE)
    ] = None,
    use_fidelity_readouts: Annotated[
        str | None,
        typer.Option(
            metavar="true|false", help="Each fidelity has its readouts.", rich_help_panel=BARE
        ),
    ] = None,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Compile one fidelity, or beads, into a verified, self-contained artifact."""
    from mlff_cli.stages import compile as stage

    def go(reporter: Reporter) -> Summary:
        chosen = stage.Options(
            fidelity_level=fidelity_level,
            fidelity_offset=fidelity_offset,
            num_fidelities=num_fidelities,
            use_fidelity_readouts=opt.truth("--use-fidelity-readouts", use_fidelity_readouts),
            model=model,
            sae=sae,
            dispersion=dispersion,
            dispersion_functional=dispersion_functional,
            dispersion_s6=dispersion_s6,
            dispersion_s8=dispersion_s8,
            dispersion_a1=dispersion_a1,
            dispersion_a2=dispersion_a2,
            dispersion_s9=dispersion_s9,
            format=format_,
            dtype=dtype,
            molecule=molecule,
            structure=structure,
            device=device,
            force=force,
            dry_run=dry_run,
        )
        return stage.run(opt.comma_list(weights) or ["model.pt"], output, chosen, reporter)

    execute(go, talk)


@app.command(rich_help_panel=PANEL)
@talking
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Run folders, model files, artifacts, evaluation JSON files."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="Of the page.")] = "mlff report",
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """One self-contained page of runs and evaluations."""
    from mlff_cli.stages import report as stage

    chosen = stage.Options(title, force, dry_run)
    execute(lambda reporter: stage.run(sources, output, chosen, reporter), talk)
