"""Commands that make, convert and describe data of molecules."""

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


@app.command(rich_help_panel=PANEL)
@talking
def convert(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Molecules (HDF5, extxyz, SDF, ...), trajectories, or CG NPZ."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help=".h5 (grouped HDF5 or H5MD), .xyz (extxyz), .npz (as the input)."
        ),
    ],
    level_of_theory: Annotated[
        str | None, typer.Option(help="Written where the inputs do not name theirs.")
    ] = None,
    top: Annotated[
        Path | None, typer.Option(help="Topology of trajectories that have none inside.")
    ] = None,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Convert and combine data files."""
    from mlff_cli.stages import convert as stage

    chosen = stage.Options(level_of_theory, force, dry_run, top)
    execute(lambda reporter: stage.run(inputs, output, chosen, reporter), talk)


@app.command(rich_help_panel=PANEL)
@talking
def label(
    structures: Annotated[
        Path, typer.Argument(help="extxyz, SDF, SMILES list (.smi), or any file ASE reads.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Grouped HDF5 to write.")],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="gfn2-xtb, gfn1-xtb, pyscf:XC/BASIS (as pyscf:pbe/def2-svp), ase:MODULE:CLASS.",
        ),
    ],
    conformers: Annotated[
        int, typer.Option(help="Geometries per SMILES, or displaced copies of each structure.")
    ] = 1,
    temperature: Annotated[
        float, typer.Option(help="Mean temperature of thermal displacements, K.")
    ] = 0.0,
    perturb: Annotated[
        float, typer.Option(help="Mean amplitude of Gaussian displacements, angstrom.")
    ] = 0.0,
    labels: Annotated[
        list[str] | None, typer.Option(help="Labels to keep, as energy,forces.", show_default="all")
    ] = None,
    workers: opt.Workers = 0,
    scheduler: opt.Scheduler = None,
    seed: opt.Seed = 0,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Label structures by quantum chemistry; an interrupted run continues."""
    from mlff_cli.stages import label as stage

    chosen = stage.Options(
        method=method,
        conformers=conformers,
        temperature=temperature,
        perturb=perturb,
        labels=tuple(comma_list(labels)) or None,
        seed=seed,
        workers=workers,
        scheduler=scheduler,
        force=force,
        dry_run=dry_run,
    )
    execute(lambda reporter: stage.run(structures, output, chosen, reporter), talk)


@app.command("calc-sae", rich_help_panel=PANEL)
@talking
def calc_sae(
    data: Annotated[Path, typer.Argument(help="Grouped HDF5.")],
    output: Annotated[Path, typer.Argument(help="YAML of atomic energies, {Z: eV}.")],
    samples: Annotated[
        int | None, typer.Option(min=1, help="Fit on so many molecules, drawn at random.")
    ] = None,
    percentiles: Annotated[
        str, typer.Option(help="Molecules whose residual lies outside are dropped.")
    ] = "2,98",
    workers: opt.FewWorkers = 1,
    scheduler: opt.Scheduler = None,
    seed: opt.Seed = 0,
    force: opt.Force = False,
    dry_run: opt.DryRun = False,
    talk: Talk = SAID,
) -> None:
    """Fit self-atomic energies by robust least squares."""
    from mlff_cli.stages import calc_sae as stage

    def go(reporter: Reporter) -> Summary:
        chosen = stage.Options(
            samples=samples,
            percentiles=opt.pair("--percentiles", percentiles),
            seed=seed,
            force=force,
            dry_run=dry_run,
            workers=workers,
            scheduler=scheduler,
        )
        return stage.run(data, output, chosen, reporter)

    execute(go, talk)


@app.command(rich_help_panel=PANEL)
@talking
def info(
    path: Annotated[Path, typer.Argument(help="Data, SAE, model file, artifact or evaluation.")],
    verify: Annotated[bool, typer.Option("--verify", help="Hash again, compare.")] = False,
    talk: Talk = SAID,
) -> None:
    """What a file holds and where it came from, without executing it."""
    from mlff_cli.stages import info as stage

    execute(lambda reporter: stage.run(path, stage.Options(verify), reporter), talk)


@app.command(rich_help_panel=PANEL)
@talking
def check(
    files: Annotated[
        list[str], typer.Argument(help="Coarse-grained NPZ, trajectories, grouped HDF5.")
    ],
    top: Annotated[Path | None, typer.Option(help="Topology of the trajectories.")] = None,
    talk: Talk = SAID,
) -> None:
    """Look data over before anything is made from it; exit 6 when something is wrong."""
    from mlff_cli.stages import check as stage

    execute(lambda reporter: stage.run(files, stage.Options(top), reporter), talk)
