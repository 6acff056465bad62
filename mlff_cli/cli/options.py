"""Options that mean the same everywhere, declared once, and what they carry into a command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

COMMON = "Common"

Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing output.", rich_help_panel=COMMON)
]
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of every random choice.", rich_help_panel=COMMON)
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print a machine-readable summary.", rich_help_panel=COMMON),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Only warnings and errors.", rich_help_panel=COMMON)
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="More details.", rich_help_panel=COMMON)
]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", help="No progress bars.", rich_help_panel=COMMON)
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Validate, print the plan, touch nothing.", rich_help_panel=COMMON
    ),
]
Workers = Annotated[
    int,
    typer.Option("--workers", min=0, help="Processes; 0 takes every core.", rich_help_panel=COMMON),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", rich_help_panel=COMMON)
]
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]


@dataclass(frozen=True)
class Talk:
    """How a command speaks: what `--json -q -v --no-progress` said."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    no_progress: bool = False

    @property
    def verbosity(self) -> int:
        """-1 quiet, 0 normal, 1 detailed."""
        return -1 if self.quiet else int(self.verbose)


def comma_list(values: list[str] | None) -> list[str]:
    """Repeated options and comma-separated lists are one thing: `--a 1,2 --a 3` is 1, 2, 3."""
    return [v.strip() for value in values or [] for v in value.split(",") if v.strip()]
