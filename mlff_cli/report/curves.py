"""Figure of a training run against its steps: losses, errors per fidelity, learning rates.

Validation is drawn in full colour, training (the mean while it went on) pale. A ring marks the
validation whose weights become the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mlff_cli.core.artifacts import atomic_path
from mlff_cli.report.parity import FAINT, INK

INCHES = (10.5, 6.6)
DPI = 110
MAX_POINTS = 600  # per line; more than the pixels show only cost time
SHORT = 25  # points up to which each is marked
COLOURS = ("#2d5f8b", "#c8553d", "#4f8f5b", "#8a6bb1", "#b98b2f", "#3d9aa1", "#a34f74", "#6b7280")
PALE = 0.4
SMALL, MEDIUM = 8.5, 10.5
ERRORS = (("E_rmse", "Energy RMSE"), ("F_rmse", "Forces RMSE"), ("q_rmse", "Charges RMSE"))

Rows = Sequence[Mapping[str, Any]]


def plot_curves(
    path: Path | str,
    rows: Rows,
    units: Mapping[str, str],
    names: Mapping[str, str] | None = None,
    noise: Mapping[str, float] | None = None,
) -> None:
    """Write the figure as PNG; the same rows give the same bytes.

    Args:
        path: the file; replaced, at once, when it exists.
        rows: one mapping per logged step, with "step", "epoch" and any of train/*, val/*, lr_*.
        units: unit by name.
        names: of the learning rates `lr_0`, ...: their parameter groups.
        noise: error that noise of the labels makes at most, by name, as val/F_rmse.
    """
    figure = curves_figure(rows, units, names, noise)
    with atomic_path(path, force=True) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def curves_figure(
    rows: Rows,
    units: Mapping[str, str],
    names: Mapping[str, str] | None = None,
    noise: Mapping[str, float] | None = None,
) -> Figure:
    """The figure of `plot_curves`."""
    figure = Figure(figsize=INCHES)
    FigureCanvasAgg(figure)
    # fixed margins: a layout engine takes a third of the drawing's time
    figure.subplots_adjust(
        left=0.075, right=0.985, bottom=0.075, top=0.95, hspace=0.32, wspace=0.19
    )
    axes = figure.subplots(2, 2)
    _losses(axes[0, 0], rows)
    present = {name for row in rows for name in row}
    shown = [kind for kind in ERRORS if _of_metric(present, kind[0], rows)][:2]
    for axis, (metric, title) in zip((axes[0, 1], axes[1, 0]), shown, strict=False):
        _errors(axis, rows, metric, title, units, noise or {})
    free = [axes[0, 1], axes[1, 0]][len(shown) :]
    if free and "pretraining/loss" in present:
        _pretraining(free.pop(0), rows)
    for axis in free:
        axis.set_axis_off()
    _learning_rates(axes[1, 1], rows, names or {})
    for axis in (axes[0, 0], *(axes[0, 1], axes[1, 0])[: len(shown)], axes[1, 1]):
        _stages(axis, rows)
    return figure


def best_row(rows: Rows) -> Mapping[str, Any] | None:
    """The row with the lowest validation loss, the first of equals; None without validation."""
    validated = [row for row in rows if "val/loss" in row]
    return min(validated, key=lambda row: row["val/loss"]) if validated else None


def _losses(axis: Axes, rows: Rows) -> None:
    _line(axis, rows, "train/loss", COLOURS[0], "training", pale=True)
    _line(axis, rows, "val/loss", COLOURS[0], "validation")
    best = best_row(rows)
    if best is not None:
        label = f"best: {best['val/loss']:.4g}, epoch {best['epoch']}"
        _ring(axis, best, "val/loss", COLOURS[0], label)
    _finish(axis, "Loss", _values(rows, ("train/loss", "val/loss")))


def _errors(
    axis: Axes,
    rows: Rows,
    metric: str,
    title: str,
    units: Mapping[str, str],
    noise: Mapping[str, float],
) -> None:
    """Training and validation errors of every fidelity, or in total where there is one."""
    chosen = _of_metric({name for row in rows for name in row}, metric, rows)
    best = best_row(rows)
    for i, name in enumerate(chosen):
        colour = COLOURS[i % len(COLOURS)]
        who = name.split("/")[1] if name.count("/") == 2 else "validation"
        _line(axis, rows, name.replace("val/", "train/", 1), colour, None, pale=True)
        label = who if best is None or name not in best else f"{who}: {best[name]:.3g}"
        _line(axis, rows, name, colour, label)
        if best is not None and name in best:
            _ring(axis, best, name, colour, None)
    unit = units.get(chosen[0], "")
    unit = re.sub(r"/A\b", "/\N{LATIN CAPITAL LETTER A WITH RING ABOVE}", unit)
    pale = [name.replace("val/", "train/", 1) for name in chosen]
    values = _values(rows, (*chosen, *pale))
    for name in chosen:
        if name in noise:
            label = f"noise, at most: {noise[name]:.3g}"
            axis.axhline(noise[name], color=INK, linewidth=1.0, linestyle="--", label=label)
            values.append(noise[name])
    _finish(axis, f"{title} ({unit})" if unit else title, values)


def _pretraining(axis: Axes, rows: Rows) -> None:
    """The loss of what came before the first step, by iteration."""
    chosen = [row for row in rows if "pretraining/loss" in row]
    x = [row["pretraining/iteration"] for row in chosen]
    y = [row["pretraining/loss"] for row in chosen]
    axis.plot(x, y, color=COLOURS[0], linewidth=1.5, marker=".", markersize=4)
    _finish(axis, f"Loss of the pre-training ({chosen[0].get('stage', '')})", y)
    axis.set_xlabel("iteration", fontsize=SMALL, color=INK)


def _stages(axis: Axes, rows: Rows) -> None:
    """A thin line where a stage gives way to the next."""
    steps = [row for row in rows if row["step"] > 0]
    for before, after in zip(steps, steps[1:], strict=False):
        if before.get("stage") != after.get("stage"):
            axis.axvline(before["step"], color=FAINT, linewidth=0.8, linestyle=":")


def _learning_rates(axis: Axes, rows: Rows, names: Mapping[str, str]) -> None:
    """Groups whose rates are equal throughout share a line."""
    present = sorted({n for row in rows for n in row if re.fullmatch(r"lr_\d+", n)}, key=_index)
    together: dict[tuple[float, ...], list[str]] = {}
    for name in present:
        together.setdefault(tuple(row[name] for row in rows if name in row), []).append(name)
    for i, (_, equal) in enumerate(together.items()):
        label = ", ".join(names.get(name, name) for name in equal)
        _line(axis, rows, equal[0], COLOURS[i % len(COLOURS)], label)
    _finish(axis, "Learning rate", _values(rows, present))


def _of_metric(present: set[str], metric: str, rows: Rows) -> list[str]:
    """Validation errors of the fidelities, or their total; none where all are zero."""
    each = [n for n in present if re.fullmatch(rf"val/fid\d+/{metric}", n)]
    total = f"val/{metric}"
    if len(each) < 2 and total in present:
        each = [total]
    chosen = sorted(each, key=_index)
    return chosen if any(_values(rows, chosen)) else []


def _index(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found[0]) if found else -1


def _values(rows: Rows, names: Sequence[str]) -> list[float]:
    return [row[name] for row in rows for name in names if name in row]


def _line(
    axis: Axes, rows: Rows, name: str, colour: str, label: str | None, *, pale: bool = False
) -> None:
    points = np.array([(row["step"], row[name]) for row in rows if name in row], dtype=float)
    if not len(points):
        return
    marked = "." if len(points) <= SHORT else None
    x, y = thinned(points).T
    axis.plot(
        x,
        y,
        color=colour,
        alpha=PALE if pale else 1.0,
        linewidth=1.1 if pale else 1.5,
        marker=marked,
        markersize=4,
        label=label,
        zorder=2 if pale else 3,
    )


def thinned(points: np.ndarray) -> np.ndarray:
    """Points (n, 2), the means of neighbours where there are more than MAX_POINTS."""
    if len(points) <= MAX_POINTS:
        return points
    edges = np.linspace(0, len(points), MAX_POINTS + 1).astype(int)[:-1]
    sums: np.ndarray = np.add.reduceat(points, edges, axis=0)
    return sums / np.diff(np.append(edges, len(points)))[:, None]


def _ring(axis: Axes, row: Mapping[str, Any], name: str, colour: str, label: str | None) -> None:
    axis.plot(
        [row["step"]],
        [row[name]],
        linestyle="none",
        marker="o",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.3,
        label=label,
        zorder=4,
    )


def _finish(axis: Axes, title: str, values: Sequence[float]) -> None:
    axis.set_title(title, fontsize=MEDIUM, color=INK, loc="left", pad=6)
    axis.set_xlabel("step", fontsize=SMALL, color=INK)
    if values and min(values) > 0.0:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda v, _: _tick(v))
        spread = max(values) / min(values)
        digits = "" if spread > 200 else "25" if spread > 12 else "23456"  # ticks to name
        axis.yaxis.set_minor_formatter(lambda v, _: _tick(v) if f"{v:e}"[0] in digits else "")
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.tick_params(which="both", labelsize=SMALL, colors=INK, color=FAINT)
    axis.grid(which="major", color=FAINT, alpha=0.25, linewidth=0.7)
    for side, spine in axis.spines.items():
        spine.set(color=FAINT, linewidth=0.8, visible=side in ("left", "bottom"))
    if axis.get_legend_handles_labels()[1]:
        axis.legend(frameon=False, fontsize=SMALL, labelcolor=INK)


def _tick(value: float) -> str:
    """A number on a logarithmic axis: 0.001 to 10000, else 1e-4."""
    plain = 1e-3 <= abs(value) <= 1e4
    return f"{value:g}" if plain else re.sub(r"e([+-])0*", r"e\1", f"{value:.0e}").replace("+", "")
