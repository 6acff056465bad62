"""The only place that prints: results to stdout, everything else to stderr.

On a terminal progress is a live bar; elsewhere (a pipe, a batch job's log) it is a plain line now
and then, so that logs stay readable.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from mlff_cli.cli.progress import Bar, Lines
from mlff_cli.cli.progress import cell as text_of
from mlff_cli.core.reporting import NullProgress, Progress, Summary, Table


class _Stderr(Console):
    """Drops what nobody takes: a log's reader that left must not end a training of days."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, unless the disk of a log is full."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Send all that follows nowhere; Rich would end the process."""
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class ConsoleReporter:
    """A reporter on the terminal.

    Args:
        verbosity: -1 warnings only, 0 normal, 1 with details.
        progress: show bars or progress lines.
    """

    def __init__(self, verbosity: int = 0, *, progress: bool = True) -> None:
        self.verbosity = verbosity
        self._progress = progress and verbosity >= 0
        self.err = _Stderr(stderr=True, highlight=False, soft_wrap=True)

    def info(self, message: str) -> None:
        """A line the user should see."""
        if self.verbosity >= 0:
            # a terminal would break long lines inside words and numbers
            self.err.print(escape(message), soft_wrap=not self.err.is_terminal)

    def detail(self, message: str) -> None:
        """A line for the curious (`-v`)."""
        if self.verbosity >= 1:
            self.err.print(f"[dim]{escape(message)}[/dim]")

    def warning(self, message: str) -> None:
        """A line the user must not miss."""
        self.err.print(f"[yellow]warning:[/yellow] {escape(message)}")

    def error(self, message: str) -> None:
        """Why the command stopped."""
        self.err.print(f"[bold red]error:[/bold red] {escape(message)}")

    def progress(self, total: int | None, description: str, unit: str = "") -> Progress:
        """Start a bar on a terminal, or plain lines elsewhere."""
        if not self._progress:
            return NullProgress()
        if self.err.is_terminal:
            return Bar(self.err, total, description, unit)
        return Lines(self.info, total, description, unit)


def print_summary(summary: Summary, *, as_json: bool, quiet: bool) -> None:
    """Print a stage's result to stdout: JSON for programs, tables and lines for people."""
    if as_json:
        json.dump(summary.data, sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
        return
    if quiet:
        return
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=120)
    for table in summary.tables:
        out.print(_rich(table))
        for note in table.notes:
            out.print(f"  {escape(note)}")
    for line in summary.lines:
        out.print(escape(line), soft_wrap=True)


def _rich(table: Table) -> RichTable:
    """Numbers to the right, words to the left."""
    shown = RichTable(
        title=escape(table.title),
        title_justify="left",
        header_style="bold",
        show_header=any(table.columns),  # facts, name and value, need none
    )
    for i, column in enumerate(table.columns):
        numeric = all(_numeric(row[i]) for row in table.rows)
        shown.add_column(escape(column), justify="right" if numeric else "left")
    for row in table.rows:
        shown.add_row(*(escape(text_of(cell)) for cell in row))
    return shown


def _numeric(cell: Any) -> bool:
    if isinstance(cell, str):
        try:
            float(cell.split()[0]) if cell.strip() else 0.0
        except ValueError:
            return cell in ("-", "")
        return True
    return isinstance(cell, int | float) or cell is None
