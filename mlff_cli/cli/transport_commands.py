"""The command that judges transport trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlff_cli.cli import options as opt
from mlff_cli.cli.options import Talk, talking
from mlff_cli.cli.run import execute

app = typer.Typer()
PANEL = "Model"
SAID = Talk()  # stands for what `talking` hands over


@app.command("gate-report", rich_help_panel=PANEL)
@talking
def gate_report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders, model files or gate.jsonl; several are compared."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Page (.html), figure (.png) or .json to write."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 6 when a rule failed.")
    ] = False,
    strict_warnings: Annotated[
        bool, typer.Option("--strict-warnings", help="Exit with 6 when a rule failed or warned.")
    ] = False,
    dry_run: opt.DryRun = False,
    force: opt.Force = False,
    talk: Talk = SAID,
) -> None:
    """Judge a transport training by the log of its energy gate."""
    from mlff_cli.stages import gate_report as stage

    chosen = stage.Options(
        strict=strict, strict_warnings=strict_warnings, force=force, dry_run=dry_run
    )
    execute(lambda reporter: stage.run(runs, output, chosen, reporter), talk)
