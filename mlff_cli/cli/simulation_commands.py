"""The command that runs models."""

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


@app.command(rich_help_panel=PANEL)
@talking
def simulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="H5MD trajectory to write.")],
    model: Annotated[Path, typer.Argument(help="Coarse-grained model: artifact or model file.")],
    structure: Annotated[
        Path | None,
        typer.Argument(help="Beads to start from: set, trajectory or PDB; else the model's own."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="torch (all replicas at once), openmm, ase or lammps.")
    ] = "torch",
    temperature: Annotated[
        list[str] | None,
        typer.Option(help="K; several, as 300,330,365, exchange.", show_default="300"),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Copies at every temperature.")] = 1,
    time: Annotated[
        float | None, typer.Option(help="Of each replica, ps.", show_default="100")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of each replica, instead of --time.")
    ] = None,
    interval: Annotated[float, typer.Option(help="Between frames, ps.")] = 1.0,
    timestep: Annotated[float | None, typer.Option(help="fs.", show_default="2")] = None,
    friction: Annotated[float, typer.Option(help="Of the Langevin integrator, 1/ps.")] = 1.0,
    exchange_interval: Annotated[
        float, typer.Option(help="Between exchanges of temperatures, ps.")
    ] = 1.0,
    molecule: Annotated[
        str | None, typer.Option(help="Which, where model or structure hold several.")
    ] = None,
    start: Annotated[
        str, typer.Option(help="first or random frame of the structure; model: the model's own.")
    ] = "first",
    mode: Annotated[str, typer.Option(help="full; prior alone; ml: without the prior.")] = "full",
    compile_model: Annotated[
        bool,
        typer.Option("--compile", help="A small molecule's model to machine code; needs g++."),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Of the model on the CPU.", show_default="every core"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of a model file's network.", show_default="float32"),
    ] = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Run dynamics of beads; an interrupted run continues exactly."""

    def go(reporter: Reporter) -> Summary:
        from mlff_cli.stages import simulate as stage

        chosen = stage.Options(
            engine=opt.choice("--engine", engine, ("torch", "openmm", "ase", "lammps")),
            temperatures=opt.numbers("--temperature", temperature) or (300.0,),
            replicas=replicas,
            time=time,
            steps=steps,
            timestep=timestep,
            friction=friction,
            interval=interval,
            exchange_interval=exchange_interval,
            molecule=molecule,
            start=opt.choice("--start", start, ("first", "random", "model")),
            mode=opt.choice("--mode", mode, ("full", "prior", "ml")),
            device=device,
            dtype=None if dtype is None else opt.choice("--dtype", dtype, ("float32", "float64")),
            compile=compile_model,
            threads=threads,
            seed=seed,
            force=force,
            dry_run=dry_run,
        )
        return stage.run(model, structure, output, chosen, reporter)

    execute(go, talk)
