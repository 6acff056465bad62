"""The numbers of a run: `metrics.csv` for people and spreadsheets, `metrics.jsonl` for programs.

Both hold one row per logged step. The CSV's header gives units, as `val/E_rmse [kcal/mol]`; the
first line of the JSONL is `{"kind": "units", ...}`, the rows have plain names and no NaN. A number
gets its column when it appears for the first time, so that labels nobody has leave none behind.
What the user is told goes into `train.log` as well.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlff_cli.core.artifacts import storage_error, write_text
from mlff_cli.core.reporting import Progress, Reporter

ITERATION = "pretraining/iteration"  # column of rows that are written before the first step


class RunLog:
    """Appends rows to both files, flushed one by one.

    Args:
        folder: the run folder.
        columns: names of all numbers that may come, in order.
        units: unit by name, where there is one.
        names: what else a number is called, as `lr_0` by its parameter group; for the JSONL.
        resume_after: keep rows up to this step (a resumed run); None starts anew.
        iteration: of step 0, keep rows up to this iteration of the pre-training.
        facts: further lines of the JSONL's head, {kind: values}.

    Attributes:
        rows: everything written so far.
    """

    def __init__(
        self,
        folder: Path,
        columns: Sequence[str],
        units: Mapping[str, str],
        *,
        names: Mapping[str, str] | None = None,
        resume_after: int | None = None,
        iteration: float = math.inf,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.csv = folder / "metrics.csv"
        self.jsonl = folder / "metrics.jsonl"
        self._columns = tuple(columns)
        self._units = dict(units)
        self.rows: list[dict[str, Any]] = []
        if resume_after is not None and self.jsonl.exists():
            kept = [r for r in read_rows(self.jsonl) if r["step"] <= resume_after]
            self.rows = [r for r in kept if r.get(ITERATION, 0) <= iteration]
        self._present = {name for row in self.rows for name in row}
        self._header: list[str] = []
        self._write_csv()
        first = [{"kind": "units", **{k: u for k, u in units.items() if u}}]
        first += [{"kind": "names", **names}] if names else []
        first += [{"kind": kind, **values} for kind, values in (facts or {}).items() if values]
        lines = [json.dumps(row) + "\n" for row in (*first, *self.rows)]
        write_text(self.jsonl, "".join(lines), force=True)

    def write(self, step: int, epoch: int, values: Mapping[str, float], *, stage: str = "") -> None:
        """Add a row; values that are not finite stay empty.

        Args:
            step: steps done.
            epoch: which, from 1; 0 before the first.
            values: numbers by name.
            stage: of the run, where it has several.

        Raises:
            StorageError: the disk is full.
        """
        finite = {k: v for k, v in values.items() if math.isfinite(v)}
        where = {"step": step, "epoch": epoch, **({"stage": stage} if stage else {})}
        row: dict[str, Any] = {"kind": "metrics", **where, **finite}
        self.rows.append(row)
        if row.keys() <= self._present:
            self._append(self.csv, self._csv_row(row))
        else:  # rare: the first loss, the first validation
            self._present |= row.keys()
            self._write_csv()
        self._append(self.jsonl, json.dumps(row) + "\n")

    def _write_csv(self) -> None:
        """Write the whole file, with the columns that have data: first the announced ones."""
        places = ["step", "epoch", *(["stage"] if "stage" in self._present else [])]
        known = [c for c in self._columns if c in self._present]
        more = sorted(self._present - {"kind", *places, *known})
        self._header = [*places, *known, *more]
        header = [f"{c} [{self._units[c]}]" if self._units.get(c) else c for c in self._header]
        lines = [_csv_line(header), *(self._csv_row(row) for row in self.rows)]
        write_text(self.csv, "".join(lines), force=True)

    def _csv_row(self, row: Mapping[str, Any]) -> str:
        cells = (row.get(c, "") for c in self._header)
        return _csv_line([cell if isinstance(cell, str) else repr(cell) for cell in cells])

    @staticmethod
    def _append(path: Path, text: str) -> None:
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise storage_error(error, path) from error


def _csv_line(cells: Sequence[str]) -> str:
    class Line:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

    line = Line()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.text


def run_columns(
    losses: Sequence[str], metric_units: Mapping[str, str], groups: int
) -> tuple[list[str], dict[str, str]]:
    """Names of the numbers that a run may log, in order, and units of those that have one.

    Args:
        losses: names of the loss's components.
        metric_units: unit of every metric, as `fid0/E_rmse`, "" where there is none.
        groups: how many learning rates there are.
    """
    names = ["loss", *(f"{name}_loss" for name in losses), *metric_units]
    columns = [f"train/{name}" for name in names]
    columns += [f"lr_{i}" for i in range(groups)]
    columns += [f"val/{name}" for name in names]
    parts = ("train", "val")
    return columns, {f"{p}/{name}": u for p in parts for name, u in metric_units.items() if u}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a `metrics.jsonl`; a last line that a killed run left unfinished is dropped."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict):
            break
        if row.get("kind") == "metrics" and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class FileReporter:
    """Passes messages on and keeps them in a file, details included.

    Args:
        reporter: who hears everything.
        path: the file.
        append: keep what is in it.
    """

    def __init__(self, reporter: Reporter, path: Path, *, append: bool) -> None:
        self._reporter = reporter
        self._path = path
        if not append:
            write_text(path, "", force=True)

    def _keep(self, message: str) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(message + "\n")
        except OSError as error:
            raise storage_error(error, self._path) from error

    def info(self, message: str) -> None:
        """Pass on and keep."""
        self._keep(message)
        self._reporter.info(message)

    def detail(self, message: str) -> None:
        """Pass on and keep."""
        self._keep(message)
        self._reporter.detail(message)

    def warning(self, message: str) -> None:
        """Pass on and keep."""
        self._keep(f"warning: {message}")
        self._reporter.warning(message)

    def progress(self, total: int | None, description: str, unit: str = "") -> Progress:
        """Pass on."""
        return self._reporter.progress(total, description, unit)
