"""Figure of a training run: losses, errors per fidelity, learning rates against steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlff_cli.core.artifacts import atomic_path

INCHES = (11.0, 7.0)
DPI = 110


def plot_curves(
    path: Path | str, rows: Sequence[Mapping[str, Any]], units: Mapping[str, str]
) -> None:
    """Draw the rows of a run's metrics.

    Args:
        path: PNG to write; replaced when it exists.
        rows: one mapping per logged step, with "step" and any of train/*, val/*, lr_*.
        units: unit by name.
    """
    figure = Figure(figsize=INCHES)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.08, top=0.95, hspace=0.3, wspace=0.18)
    names = sorted({name for row in rows for name in row})
    _panel(axes[0, 0], rows, [n for n in ("train/loss", "val/loss") if n in names], "loss")
    errors = (("E", axes[0, 1], "energy RMSE"), ("F", axes[1, 0], "forces RMSE"))
    for letter, axis, title in errors:
        chosen = [n for n in names if n.startswith("val/fid") and n.endswith(f"/{letter}_rmse")]
        unit = units.get(chosen[0], "") if chosen else ""
        _panel(axis, rows, chosen, f"{title} ({unit})" if unit else title)
    _panel(axes[1, 1], rows, [n for n in names if n.startswith("lr_")], "learning rate")
    with atomic_path(path, force=True) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def _panel(axis: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str], title: str) -> None:
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        x, y = zip(*points, strict=True)
        axis.plot(x, y, label=name, linewidth=1.4, marker="o" if len(points) < 3 else None)
    axis.set(title=title, xlabel="step")
    if names:
        axis.legend(frameon=False, fontsize=8)
        positive = all(row[name] > 0 for row in rows for name in names if name in row)
        axis.set_yscale("log" if positive else "linear")
    axis.grid(alpha=0.25)
