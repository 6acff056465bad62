"""Commands from trajectories of atoms to a force-matching data set with a prior."""

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
PANEL = "Coarse-graining"
SAID = Talk()  # stands for what `talking` hands over


@app.command("cg-map", rich_help_panel=PANEL)
@talking
def cg_map(
    topology: Annotated[Path, typer.Argument(help="PDB, or any topology that mdtraj reads.")],
    trajectories: Annotated[list[str], typer.Argument(help="Trajectories of this one molecule.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="CG NPZ to write.")],
    mapping: Annotated[
        str,
        typer.Option(help="ca, heavy-backbone, cacb, com, atom names as N,CA,C, or a YAML file."),
    ] = "ca",
    species: Annotated[str, typer.Option(help="residue: 20 types; class: four.")] = "residue",
    termini: Annotated[bool, typer.Option(help="Ends of chains are species of their own.")] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the molecule.", show_default="the topology file's")
    ] = None,
    residues: Annotated[Path | None, typer.Option(help="YAML of non-standard residues.")] = None,
    disulfides: Annotated[bool, typer.Option(help="Bonds between their beads.")] = True,
    stride: Annotated[int, typer.Option(min=1, help="Take every so many frames.")] = 1,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Of these, draw so many at random.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Take the frames of one temperature, K.")
    ] = None,
    workers: opt.FewWorkers = 1,
    scheduler: opt.Scheduler = None,
    seed: opt.Seed = 0,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Map atoms to beads."""
    from mlff_cli.stages import cg_map as stage

    def go(reporter: Reporter) -> Summary:
        chosen = stage.Options(
            mapping=mapping,
            species=opt.choice("--species", species, ("residue", "class")),
            termini=termini,
            stride=stride,
            frames=frames,
            temperature=temperature,
            name=name,
            residues=residues,
            disulfides=disulfides,
            workers=workers,
            scheduler=scheduler,
            seed=seed,
            force=force,
            dry_run=dry_run,
        )
        return stage.run(topology, trajectories, output, chosen, reporter)

    execute(go, talk)


@app.command("project-forces", rich_help_panel=PANEL)
@talking
def project_forces(
    trajectories: Annotated[list[str], typer.Argument(help="Trajectories with forces.")],
    mapped: Annotated[Path, typer.Argument(help="CG NPZ that `mlff cg-map` made of them.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="CG NPZ with forces to write.")],
    method: Annotated[str, typer.Option(help="optimal or basic.")] = "optimal",
    constraints: Annotated[
        str, typer.Option(help="auto, topology, none, or a file of constrained atoms.")
    ] = "auto",
    l2: Annotated[
        str, typer.Option("--l2", help="Regularisation, or cv: by cross-validation.")
    ] = "0",
    noise: Annotated[
        float | None, typer.Option(help="Noise on mapped positions, angstrom.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of a noise-augmented map, K.", show_default="the trajectory's"),
    ] = None,
    holdout: Annotated[float, typer.Option(help="Share of the frames to judge the map on.")] = 0.2,
    engine: Annotated[str, typer.Option(help="native or aggforce.")] = "native",
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel=opt.COMMON)
    ] = "cpu",
    workers: opt.FewWorkers = 1,
    scheduler: opt.Scheduler = None,
    seed: opt.Seed = 0,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Project atomic forces onto beads, with the least noise that constraints allow."""
    from mlff_cli.stages import project_forces as stage

    def go(reporter: Reporter) -> Summary:
        chosen = stage.Options(
            method=opt.choice("--method", method, ("optimal", "basic")),
            constraints=constraints,
            l2="cv" if l2 == "cv" else opt.number("--l2", l2, "a number or cv"),
            engine=opt.choice("--engine", engine, ("native", "aggforce")),
            noise=noise,
            temperature=temperature,
            holdout=holdout,
            device=device,
            workers=workers,
            scheduler=scheduler,
            seed=seed,
            force=force,
            dry_run=dry_run,
        )
        return stage.run(trajectories, mapped, output, chosen, reporter)

    execute(go, talk)


@app.command("fit-prior", rich_help_panel=PANEL)
@talking
def fit_prior(
    data: Annotated[Path, typer.Argument(help="CG NPZ.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="YAML of parameters to write.")],
    form: Annotated[str, typer.Option(help="parametric or spline.")] = "parametric",
    temperature: Annotated[float | None, typer.Option(help="K.", show_default="the data's")] = None,
    by_type: Annotated[
        bool, typer.Option(help="Fit each residue type that has data enough.")
    ] = True,
    min_samples: Annotated[
        int, typer.Option(min=1, help="How much is enough; the others are pooled.")
    ] = 1000,
    subtract: Annotated[
        Path | None, typer.Option(help="Also write the set less the prior's forces.")
    ] = None,
    figure: Annotated[bool, typer.Option(help="Draw every fitted distribution.")] = True,
    seed: opt.Seed = 0,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Fit bonded terms and repulsion by Boltzmann inversion."""
    from mlff_cli.stages import fit_prior as stage

    def go(reporter: Reporter) -> Summary:
        chosen = stage.Options(
            form=opt.choice("--form", form, ("parametric", "spline")),
            temperature=temperature,
            by_type=by_type,
            min_samples=min_samples,
            subtract=subtract,
            figure=figure,
            seed=seed,
            force=force,
            dry_run=dry_run,
        )
        return stage.run(data, output, chosen, reporter)

    execute(go, talk)
