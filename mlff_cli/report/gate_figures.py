"""Figures of the energy gate: a panel per rule for one run, courses over each other for several."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlff_cli.report.gate_energies import WORDS
from mlff_cli.report.gate_rules import Judgement
from mlff_cli.report.gate_run import EPOCH_500, GateRun
from mlff_cli.report.gate_shares import MOST_REGULARIZED, MOST_SKIPS
from mlff_cli.report.gate_verdicts import Verdict
from mlff_cli.report.gate_volume import CLAMPED, MOSTLY_CLAMPED
from mlff_cli.report.parity import FAINT, INK
from mlff_cli.report.transport_curves import (
    FORWARD,
    INVERSE,
    SKIPPED,
    SMALL,
    TOTAL,
    finish_panel,
    plot_course,
)

INCHES = (10.5, 12.4)
DPI = 110
COLOURS: dict[Verdict, str] = {
    "healthy": "#2c7a4b",
    "warning": "#8a6410",
    "failed": "#b3402a",
    "not judged": "#6b7280",
}
RUNS = ("#2d5f8b", "#c8553d", "#4f8f5b", "#8a6bb1", "#b98b2f", "#3d9aa1", "#a34f74", "#6b7280")
DIRECTION = {"fwd": FORWARD, "inv": INVERSE}
UNITS = {
    "regularized share": "% of samples",
    "skip rate": "% of batches",
    "loss": "nats",
    "energies": "medians, kJ/mol",
    "direction balance": "gap of medians, kJ/mol",
    "log-det": "ln|det J|, nats",
    "saturation": "clamped, % of samples",
}


def gate_figure(run: GateRun, judgements: Sequence[Judgement]) -> Figure:
    """A run by all rules; the last panel is E_max in force.

    Args:
        run: the run.
        judgements: of all rules, in the order of the table.
    """
    figure, axes = _sheet()
    for axis, judgement in zip(axes, judgements, strict=False):
        name = judgement.rule.name
        values = PANELS.get(name, _course)(axis, run, judgement)
        _bounds(axis, run, name)
        finish_panel(axis, f"{name.capitalize()} ({UNITS[name]})", _finite(values))
        axis.set_title(
            judgement.verdict, fontsize=SMALL, color=COLOURS[judgement.verdict], loc="right"
        )
    limit = run.values(lambda r: r.E_max)
    axes[-1].plot(run.epochs, limit, color=TOTAL, linewidth=1.3)
    finish_panel(axes[-1], "E_max in force (kJ/mol)", _finite(limit))
    return figure


def comparison_figure(runs: Sequence[GateRun], judged: Sequence[Sequence[Judgement]]) -> Figure:
    """What each rule watches, all runs over each other; the last panel is E_max in force."""
    figure, axes = _sheet()
    for i, axis in enumerate(axes):
        drawn = []
        for k, (run, judgements) in enumerate(zip(runs, judged, strict=True)):
            if i < len(judgements):
                name = judgements[i].rule.name
                y = judgements[i].finding.course * (100.0 if "%" in UNITS[name] else 1.0)
                if name == "skip rate" and len(y):
                    y = _running_mean(y, run.window(20))
                title = f"{name.capitalize()} ({UNITS[name]})"
            else:
                y, title = run.values(lambda r: r.E_max), "E_max in force (kJ/mol)"
            if len(y):
                plot_course(axis, run.epochs.astype(float), y, RUNS[k % len(RUNS)], run.name)
                drawn.append(y)
        finish_panel(axis, title, _finite(np.concatenate(drawn) if drawn else np.empty(0)))
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def _sheet() -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=INCHES)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.075, right=0.985, bottom=0.04, top=0.975, hspace=0.38, wspace=0.19
    )
    return figure, list(figure.subplots(4, 2).flat)


def _finite(values: np.ndarray) -> np.ndarray:
    known: np.ndarray = values[np.isfinite(values)]
    return known


def _course(axis: Axes, run: GateRun, judgement: Judgement) -> np.ndarray:
    y = judgement.finding.course
    if len(y):
        plot_course(axis, run.epochs.astype(float), y, TOTAL, None)
    return y


def _shares(axis: Axes, run: GateRun, judgement: Judgement) -> np.ndarray:
    """Each direction's own share, in percent."""
    drawn = []
    for name, word in WORDS.items():
        samples = run.of(name, lambda d: d.samples)
        part = run.of(name, lambda d: d.clamped)
        if judgement.rule.name == "regularized share":
            part = part + run.of(name, lambda d: d.regularized)
        y = np.divide(100 * part, samples, out=np.full(len(part), np.nan), where=samples > 0)
        if np.isfinite(y).any():
            plot_course(axis, run.epochs.astype(float), y, DIRECTION[name], word)
        drawn.append(y)
    return np.concatenate(drawn)


def _skips(axis: Axes, run: GateRun, judgement: Judgement) -> np.ndarray:
    """Means of 20 epochs over the epochs themselves: one batch is skipped or not."""
    y = 100 * judgement.finding.course
    if not len(y):
        return y
    axis.plot(run.epochs, y, ".", color=SKIPPED, markersize=2.5, label="epoch", zorder=2)
    w = run.window(20)
    plot_course(axis, run.epochs.astype(float), _running_mean(y, w), TOTAL, f"mean of {w}")
    return y


def _running_mean(y: np.ndarray, w: int) -> np.ndarray:
    """Means of each value and the w - 1 before it, where they are known, shape (n,)."""
    known = np.isfinite(y)
    sums, n = (
        np.convolve(v, np.ones(w))[: len(y)] for v in (np.where(known, y, 0.0), known.astype(float))
    )
    means: np.ndarray = np.divide(sums, n, out=np.full(len(y), np.nan), where=n > 0)
    return means


def _energies(axis: Axes, run: GateRun, judgement: Judgement) -> np.ndarray:
    """Medians, with what lies between q05 and q95."""
    drawn = []
    for name, word in WORDS.items():
        low, middle, high = (
            run.of(name, quantile)
            for quantile in (lambda d: d.q05, lambda d: d.q50, lambda d: d.q95)
        )
        if np.isfinite(middle).any():
            plot_course(axis, run.epochs.astype(float), middle, DIRECTION[name], word)
        axis.fill_between(run.epochs, low, high, color=DIRECTION[name], alpha=0.16, linewidth=0)
        drawn += [middle, low, high]
    return np.concatenate(drawn)


def _logdets(axis: Axes, run: GateRun, judgement: Judgement) -> np.ndarray:
    drawn = []
    for name, word in WORDS.items():
        y = run.of(name, lambda d: d.logdet)
        if np.isfinite(y).any():
            plot_course(axis, run.epochs.astype(float), y, DIRECTION[name], word)
        drawn.append(y)
    return np.concatenate(drawn)


PANELS: dict[str, Callable[[Axes, GateRun, Judgement], np.ndarray]] = {
    "regularized share": _shares,
    "skip rate": _skips,
    "energies": _energies,
    "log-det": _logdets,
    "saturation": _shares,
}
BOUNDS: dict[str, tuple[float, ...]] = {
    "regularized share": (MOST_REGULARIZED,),
    "skip rate": (MOST_SKIPS,),
    "saturation": (CLAMPED, MOSTLY_CLAMPED),
}


def _bounds(axis: Axes, run: GateRun, name: str) -> None:
    """Dashed lines where a warning or a failure begins, and where the rule begins to look."""
    for bound, colour in zip(
        BOUNDS.get(name, ()), (COLOURS["warning"], COLOURS["failed"]), strict=False
    ):
        axis.axhline(100 * bound, color=colour, linewidth=0.9, linestyle="--")
    if name == "regularized share":
        later = np.flatnonzero(run.after(EPOCH_500))
        if len(later):
            axis.axvline(run.epochs[later[0]], color=FAINT, linewidth=0.8, linestyle=":")
    if name == "direction balance" or (name == "loss" and _crosses(axis)):
        axis.axhline(0.0, color=INK, linewidth=0.4, alpha=0.4)


def _crosses(axis: Axes) -> bool:
    """Whether what is drawn meets 0, where a loss is suspicious; else the line hides its course."""
    low, high = axis.dataLim.intervaly
    return bool(low <= 0.0 <= high)
