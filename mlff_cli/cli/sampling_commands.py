"""The command that samples molecules of atoms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlff_cli.cli import options as opt
from mlff_cli.cli.options import Talk, comma_list, talking
from mlff_cli.cli.run import execute

if TYPE_CHECKING:
    from mlff_cli.core.reporting import Reporter, Summary

app = typer.Typer()
PANEL = "Data"
SAID = Talk()  # stands for what `talking` hands over
FORCEFIELD = "amber14-all.xml,implicit/obc2.xml"


@app.command(rich_help_panel=PANEL)
@talking
def sample(
    output: Annotated[Path, typer.Option("-o", "--output", help="H5MD trajectory to write.")],
    system: Annotated[
        Path | None, typer.Argument(help="PDB or mmCIF file; or give --peptide.")
    ] = None,
    peptide: Annotated[
        str | None, typer.Option(help="Build it: ACE-ALA-NME, or one letters as GYDPETGTWG.")
    ] = None,
    temperature: Annotated[
        list[str] | None,
        typer.Option(
            help="K; several, as 300,330,365, are sampled by replica exchange.", show_default="300"
        ),
    ] = None,
    forcefield: Annotated[
        list[str] | None, typer.Option(help="OpenMM's names.", show_default=FORCEFIELD)
    ] = None,
    constraints: Annotated[str, typer.Option(help="none or hbonds.")] = "none",
    time: Annotated[float, typer.Option(help="Production of each replica, ps.")] = 100.0,
    equilibration: Annotated[float, typer.Option(help="Before it, not written, ps.")] = 10.0,
    interval: Annotated[float, typer.Option(help="Between frames, ps.")] = 1.0,
    timestep: Annotated[
        float | None, typer.Option(help="fs.", show_default="1; 2 with hbonds")
    ] = None,
    friction: Annotated[float, typer.Option(help="Of the Langevin integrator, 1/ps.")] = 1.0,
    exchange_interval: Annotated[
        float, typer.Option(help="Between exchanges of temperatures, ps.")
    ] = 1.0,
    padding: Annotated[
        float, typer.Option(help="Of water, from the solute to its image, nm.")
    ] = 1.0,
    ph: Annotated[float, typer.Option("--ph", help="For missing hydrogens.")] = 7.0,
    platform: Annotated[str, typer.Option(help="auto, or OpenMM's name.")] = "auto",
    threads: Annotated[
        int, typer.Option(min=1, help="Of OpenMM's CPU platform; one repeats to the last bit.")
    ] = 1,
    engine: Annotated[str, typer.Option(help="openmm, or torch: all replicas at once.")] = "openmm",
    replicas: Annotated[int, typer.Option(min=1, help="Copies at every temperature; torch.")] = 1,
    flow: Annotated[
        Path | None, typer.Option(help="Transport model that exchanges go through.")
    ] = None,
    compile_model: Annotated[
        bool, typer.Option("--compile", help="The force field to machine code; torch; needs g++.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float64; torch.")] = "float32",
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Sample all-atom dynamics with forces; an interrupted run continues exactly."""

    def go(reporter: Reporter) -> Summary:
        from mlff_cli.core.runtime import require_openmm

        require_openmm()
        from mlff_cli.stages import sample as stage

        chosen = stage.Options(
            temperatures=opt.numbers("--temperature", temperature) or (300.0,),
            peptide=peptide,
            forcefield=tuple(comma_list(forcefield) or FORCEFIELD.split(",")),
            constraints=opt.choice("--constraints", constraints, ("none", "hbonds")),
            time=time,
            equilibration=equilibration,
            interval=interval,
            timestep=timestep,
            friction=friction,
            exchange_interval=exchange_interval,
            padding=padding,
            ph=ph,
            platform=platform,
            threads=threads,
            engine=opt.choice("--engine", engine, ("openmm", "torch")),
            replicas=replicas,
            flow=flow,
            compile=compile_model,
            dtype=opt.choice("--dtype", dtype, ("float32", "float64")),
            device=device,
            seed=seed,
            force=force,
            dry_run=dry_run,
        )
        return stage.run(system, output, chosen, reporter)

    execute(go, talk)
