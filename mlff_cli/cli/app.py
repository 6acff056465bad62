"""Every command: parse, call its stage, turn errors into exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlff_cli.cli import options as opt
from mlff_cli.cli.options import Talk, comma_list
from mlff_cli.cli.run import execute
from mlff_cli.core.errors import UsageError

if TYPE_CHECKING:
    from mlff_cli.core.reporting import Reporter, Summary

app = typer.Typer(
    name="mlff",
    help="Machine-learned force fields from raw data to a deployed, verified model.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
DATA = "Data"
MODEL = "Model"


def main() -> None:
    """Run the command line."""
    app(prog_name="mlff")


def _version(value: bool) -> None:
    if value:
        from mlff_cli.core.artifacts import version

        typer.echo(f"mlff {version('mlff-cli')}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Machine-learned force fields from raw data to a deployed, verified model."""


@app.command(rich_help_panel=DATA)
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
        list[str] | None, typer.Option(help="Labels to keep, as energy,forces [default: all].")
    ] = None,
    workers: opt.Workers = 0,
    seed: opt.Seed = 0,
    force: opt.Force = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_progress: opt.NoProgress = False,
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
        force=force,
    )
    talk = Talk(json, quiet, verbose, no_progress)
    execute(lambda reporter: stage.run(structures, output, chosen, reporter), talk)


@app.command("calc-sae", rich_help_panel=DATA)
def calc_sae(
    data: Annotated[Path, typer.Argument(help="Grouped HDF5.")],
    output: Annotated[Path, typer.Argument(help="YAML of atomic energies, {Z: eV}.")],
    samples: Annotated[
        int | None, typer.Option(min=1, help="Fit on so many molecules, drawn at random.")
    ] = None,
    percentiles: Annotated[
        str, typer.Option(help="Molecules whose residual lies outside are dropped.")
    ] = "2,98",
    seed: opt.Seed = 0,
    force: opt.Force = False,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    no_progress: opt.NoProgress = False,
) -> None:
    """Fit self-atomic energies by robust least squares."""
    from mlff_cli.stages import calc_sae as stage

    def go(reporter: Reporter) -> Summary:
        chosen = stage.Options(samples, _pair(percentiles), seed, force, dry_run)
        return stage.run(data, output, chosen, reporter)

    execute(go, Talk(json, quiet, verbose, no_progress))


def _pair(text: str) -> tuple[float, float]:
    """Two numbers from 'low,high'."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--percentiles takes two numbers, found {text!r}", remedy="write --percentiles 2,98"
        ) from None
    return low, high


if __name__ == "__main__":
    main()
