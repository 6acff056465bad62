"""Verdicts of the energy gate as tables for the terminal, as plain values, and as a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlff_cli.core.reporting import Table
from mlff_cli.data.gate_log import Direction
from mlff_cli.report.gate_rules import RULES, Judgement, verdict_of
from mlff_cli.report.gate_run import GateRun
from mlff_cli.report.gate_verdicts import percent, plain_number

BARS = "▁▂▃▄▅▆▇█"
GAP = "·"
WIDTH = 24  # characters of a sparkline
DECADES = 1e3  # span from which a sparkline is logarithmic

Judged = tuple[GateRun, Sequence[Judgement]]


def sparkline(course: np.ndarray, width: int = WIDTH) -> str:
    """A course in a few characters, the means of equal parts; absent values are dots.

    A course that is constant is a low line. Spans above 1000 of positive values are logarithmic.

    >>> sparkline(np.arange(8.0)), sparkline(np.array([1.0, np.nan, 1.0]))
    ('▁▂▃▄▅▆▇█', '▁·▁')
    """
    known = course[np.isfinite(course)]
    if not len(known):
        return ""
    y = course.astype(float)
    if known.min() > 0.0 and known.max() / known.min() > DECADES:
        y = np.log(y)
    parts = np.array_split(y, min(width, len(y)))
    means = [float(np.mean(p[np.isfinite(p)])) if np.isfinite(p).any() else np.nan for p in parts]
    low, high = np.nanmin(means), np.nanmax(means)
    top = len(BARS) - 1
    scale = top / (high - low) if high > low else 0.0
    return "".join(BARS[round((m - low) * scale)] if np.isfinite(m) else GAP for m in means)


def verdict_table(run: GateRun, judgements: Sequence[Judgement]) -> Table:
    """Rules of one run, with sparklines; remedies stand below."""
    last = run.records[-1]
    facts = [f"{len(run.records):,} epochs"] + ([f"mode {last.mode}"] if last.mode else [])
    rows = [
        [j.rule.name, j.verdict, sparkline(j.finding.course), j.finding.figure] for j in judgements
    ]
    notes = [f"{j.rule.name}: {j.remedy}" for j in judgements if j.remedy]
    title = f"{run.name}: {verdict_of(list(judgements))} ({', '.join(facts)})"
    return Table(title, ["rule", "verdict", "course", "figure"], rows, notes)


def comparison_rows(judged: Sequence[Judged]) -> list[list[Any]]:
    """Facts and verdicts, a row each, with a cell per run."""
    totals = [totals_of(run) for run, _ in judged]
    rows: list[list[Any]] = [
        [name, *(_fact(told.get(key), share) for told in totals)] for name, key, share in FACTS
    ]
    for i, rule in enumerate(RULES):
        rows.append([rule.name, *(judgements[i].verdict for _, judgements in judged)])
    return rows


def comparison_table(judged: Sequence[Judged]) -> Table:
    """Several runs beside each other."""
    columns = ["", *(run.name for run, _ in judged)]
    return Table("comparison", columns, comparison_rows(judged))


FACTS = (
    ("epochs", "epochs", False),
    ("mode", "mode", False),
    ("E_cut (kJ/mol)", "E_cut", False),
    ("E_max at the end (kJ/mol)", "E_max", False),
    ("skipped batches", "skip_rate", True),
    ("regularized samples", "regularized_share", True),
    ("clamped samples", "clamped_share", True),
    ("loss at the end (nats)", "last_loss", False),
    ("excess at the end (nats)", "last_excess_nats", False),
    ("forward median at the end (kJ/mol)", "fwd_q50", False),
    ("inverse median at the end (kJ/mol)", "inv_q50", False),
)


def totals_of(run: GateRun) -> dict[str, Any]:
    """Sums over a run and where it ends, plain; None where the log does not say."""
    batches, skipped = _sum(run.values(lambda r: r.batches)), _sum(run.values(lambda r: r.skipped))
    samples = _both(run, lambda d: d.samples)
    regularized = _both(run, lambda d: d.regularized)
    clamped = _both(run, lambda d: d.clamped)
    last = run.records[-1]
    return {
        "epochs": len(run.records),
        "last_epoch": last.epoch,
        "planned_epochs": run.planned,
        "mode": last.mode,
        "E_cut": plain_number(last.E_cut),
        "E_max": plain_number(last.E_max),
        "batches": batches,
        "skipped": skipped,
        "skip_rate": _ratio(skipped, batches),
        "samples": samples,
        "regularized": regularized,
        "clamped": clamped,
        "nonfinite": _both(run, lambda d: d.nonfinite),
        "regularized_share": _ratio(regularized, samples),
        "clamped_share": _ratio(clamped, samples),
        "last_loss": _end(run.values(lambda r: r.loss)),
        "last_excess_nats": _end(run.values(lambda r: r.excess_nats)),
        "fwd_q50": _end(run.of("fwd", lambda d: d.q50)),
        "inv_q50": _end(run.of("inv", lambda d: d.q50)),
    }


def _both(run: GateRun, value: Callable[[Direction], float | None]) -> int | None:
    return _sum(np.concatenate([run.of("fwd", value), run.of("inv", value)]))


def _sum(values: np.ndarray) -> int | None:
    known = values[np.isfinite(values)]
    return int(known.sum()) if len(known) else None


def _ratio(part: int | None, whole: int | None) -> float | None:
    return part / whole if part is not None and whole else None


def _end(values: np.ndarray) -> float | None:
    """The last value that is there."""
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None


def _fact(value: Any, share: bool) -> Any:
    if value is None:
        return "-"
    if share:
        return percent(value)
    return f"{value:.5g}" if isinstance(value, float) else str(value)
