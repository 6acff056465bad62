"""The only place that prints: results to stdout, everything else to stderr.

On a terminal progress is a live bar; elsewhere (a pipe, a batch job's log) it is a plain line now
and then, so that logs stay readable.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from mlff_cli.core.reporting import NullProgress, Progress, Summary, Table

PLAIN_INTERVAL = 10.0  # seconds between progress lines where there is no terminal


class ConsoleReporter:
    """A reporter on the terminal.

    Args:
        verbosity: -1 warnings only, 0 normal, 1 with details.
        progress: show bars or progress lines.
    """

    def __init__(self, verbosity: int = 0, *, progress: bool = True) -> None:
        self.verbosity = verbosity
        self._progress = progress and verbosity >= 0
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def info(self, message: str) -> None:
        """A line the user should see."""
        if self.verbosity >= 0:
            self.err.print(escape(message))

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
            return _Bar(self.err, total, description, unit)
        return _Lines(self, total, description, unit)


class _Bar:
    """A live bar with the fields behind it."""

    def __init__(self, console: Console, total: int | None, description: str, unit: str) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[more]}"),
            console=console,
        )
        self._task = self._bar.add_task(escape(description), total=total, more="")

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Move the bar; without fields the last ones stay."""
        if fields:
            self._bar.update(self._task, advance=n, more=escape(_text(fields)))
        else:
            self._bar.update(self._task, advance=n)


class _Lines:
    """Progress as plain lines, at most one every few seconds."""

    def __init__(
        self, reporter: ConsoleReporter, total: int | None, description: str, unit: str
    ) -> None:
        self._reporter = reporter
        self._total = total
        self._name = description
        self._unit = unit
        self._done = self._said = 0
        self._fields: dict[str, Any] = {}

    def __enter__(self) -> _Lines:
        self._start = self._last = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None and self._done > self._said:
            self._line()

    def advance(self, n: int = 1, **fields: Any) -> None:
        """Count, and say so when the last line is old enough."""
        self._done += n
        self._fields.update(fields)
        if time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        self._said = self._done
        elapsed = self._last - self._start
        parts = [f"{self._name}: {self._done}"]
        if self._total:
            parts[0] += f"/{self._total} ({100 * self._done / self._total:.0f} %)"
        parts[0] += f" {self._unit}".rstrip()
        parts.append(f"elapsed {clock(elapsed)}")
        if self._total and 0 < self._done < self._total:
            parts.append(f"ETA {clock(elapsed * (self._total - self._done) / self._done)}")
        if self._fields:
            parts.append(_text(self._fields))
        self._reporter.info(", ".join(parts))


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


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


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
        shown.add_row(*(escape(_cell(cell)) for cell in row))
    return shown


def _numeric(cell: Any) -> bool:
    if isinstance(cell, str):
        try:
            float(cell.split()[0]) if cell.strip() else 0.0
        except ValueError:
            return cell in ("-", "")
        return True
    return isinstance(cell, int | float) or cell is None


def _cell(cell: Any) -> str:
    if cell is None:
        return "-"
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _text(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_cell(value)}" for name, value in fields.items())
