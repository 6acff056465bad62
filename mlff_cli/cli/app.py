"""The command line: every command under its panel, and how the program starts."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlff_cli.cli import (
    coarse_commands,
    data_commands,
    model_commands,
    sampling_commands,
    simulation_commands,
    transport_commands,
)

app = typer.Typer(
    name="mlff",
    help="Machine-learned force fields from raw data to a deployed, verified model.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (
    data_commands,
    sampling_commands,
    coarse_commands,
    model_commands,
    transport_commands,
    simulation_commands,
):
    app.add_typer(commands.app)


def main() -> None:
    """Run the command line."""
    # Threads that spin while they wait take the cores that the others need: training on a busy
    # machine was three to five times slower. Set before the first OpenMP library loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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


if __name__ == "__main__":
    main()
