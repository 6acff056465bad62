"""The four panels of a transport training: total loss, directions, energy terms, log-determinants.

Per direction d: loss_d = energy_d - logdet_d, means over a batch, in kT and nats. The total is what
was minimised: where samples are regularized it weighs their log-determinants as well. An epoch
whose batches were all skipped has no loss: a gap in the lines, and a mark below them. Excess nats,
where they were measured, stand beside the total.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mlff_cli.core.artifacts import atomic_path
from mlff_cli.data.gate_log import EpochRecord
from mlff_cli.report.parity import FAINT, INK

INCHES = (10.5, 6.6)
DPI = 110
MAX_POINTS = 1200  # per line; more than the pixels show only cost time
SHORT = 50  # points up to which each is marked
TOTAL, FORWARD, INVERSE, EXCESS, SKIPPED = "#3b4754", "#2d5f8b", "#c8553d", "#4f8f5b", "#b98b2f"
SMALL, MEDIUM = 8.5, 10.5
DECADE = 10.0  # below it a logarithmic axis has too few ticks to be read
LOGARITHMIC = 1e4  # magnitude from which a linear axis hides where a run ends

Value = Callable[[EpochRecord], float | None]


def draw_transport_curves(records: Sequence[EpochRecord], path: Path | str) -> None:
    """Write the figure as PNG; the same records give the same bytes.

    Args:
        records: one per epoch, in order; `data.gate_log.epochs_of` makes them.
        path: the file; replaced, at once, when it exists.

    Raises:
        StorageError: the disk is full or the folder not writable.
    """
    figure = transport_figure(records)
    with atomic_path(path, force=True) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def transport_figure(records: Sequence[EpochRecord]) -> Figure:
    """The figure of `draw_transport_curves`."""
    figure = Figure(figsize=INCHES)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.075, right=0.985, bottom=0.075, top=0.95, hspace=0.34, wspace=0.26
    )
    axes = figure.subplots(2, 2)
    panels: tuple[tuple[Axes, str, tuple[tuple[str, str, Value], ...]], ...] = (
        (
            axes[0, 0],
            "Total loss (nats)",
            (("training", TOTAL, lambda r: r.loss),),
        ),
        (
            axes[0, 1],
            "Loss by direction (nats)",
            (
                ("forward", FORWARD, lambda r: direction_loss(r, "fwd")),
                ("inverse", INVERSE, lambda r: direction_loss(r, "inv")),
            ),
        ),
        (
            axes[1, 0],
            "Energy term \N{GREEK SMALL LETTER BETA}U (kT)",
            (
                ("forward", FORWARD, lambda r: r.fwd.energy),
                ("inverse", INVERSE, lambda r: r.inv.energy),
            ),
        ),
        (
            axes[1, 1],
            "ln|det J| (nats)",
            (
                ("forward", FORWARD, lambda r: r.fwd.logdet),
                ("inverse", INVERSE, lambda r: r.inv.logdet),
            ),
        ),
    )
    for axis, title, lines in panels:
        drawn = [course for line in lines if (course := _line(axis, records, *line)) is not None]
        _skipped(axis, records)
        finish_panel(axis, title, np.concatenate(drawn) if drawn else np.empty(0))
    _excess(axes[0, 0], records)
    return figure


def _excess(axis: Axes, records: Sequence[EpochRecord]) -> None:
    """Excess nats on a scale of their own: they end near 0 wherever the loss ends."""
    points = [(r.epoch, r.excess_nats) for r in records if r.excess_nats is not None]
    if not points:
        return
    beside = axis.twinx()
    x, y = thinned(*np.array(points, dtype=float).T)
    beside.plot(
        x, y, color=EXCESS, linewidth=1.0, alpha=0.7, marker="." if len(x) <= SHORT else None
    )
    if y.min() > 0.0 and y.max() > DECADE * y.min():
        beside.set_yscale("log")
        for formatter in (beside.yaxis.set_major_formatter, beside.yaxis.set_minor_formatter):
            formatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "125" else "")
    elif y.max() > LOGARITHMIC:
        beside.set_yscale("symlog", linthresh=1.0)
    beside.set_ylabel("validation excess (nats)", fontsize=SMALL, color=EXCESS)
    beside.tick_params(which="both", labelsize=SMALL, colors=EXCESS)
    for spine in beside.spines.values():
        spine.set_visible(False)


def all_skipped(record: EpochRecord) -> bool:
    """Whether no batch of an epoch made a step."""
    return bool(record.batches) and record.skipped == record.batches


def direction_loss(record: EpochRecord, name: str) -> float | None:
    """Energy term minus log-determinant of a direction, nats."""
    d = record.fwd if name == "fwd" else record.inv
    return None if d.energy is None or d.logdet is None else d.energy - d.logdet


def course_of(records: Sequence[EpochRecord], value: Value) -> np.ndarray:
    """A number over the run, shape (n,): NaN where it is absent or the epoch was skipped."""
    found = [None if all_skipped(r) else value(r) for r in records]
    return np.array([v if v is not None and math.isfinite(v) else np.nan for v in found])


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbours where there are more than MAX_POINTS; a gap stays one."""
    if len(x) <= MAX_POINTS:
        return x, y
    edges = np.linspace(0, len(x), MAX_POINTS + 1).astype(int)[:-1]
    known = np.isfinite(y)
    n = np.add.reduceat(known.astype(float), edges)
    sums = np.add.reduceat(np.where(known, y, 0.0), edges)
    means = np.divide(sums, n, out=np.full(len(edges), np.nan), where=n > 0)
    return x[edges], means


def plot_course(axis: Axes, x: np.ndarray, y: np.ndarray, colour: str, label: str | None) -> None:
    """A line with gaps; a point that stands alone between gaps is marked."""
    x, y = thinned(x, y)
    known = np.isfinite(y)
    before, after = np.append(False, known[:-1]), np.append(known[1:], False)
    axis.plot(x, y, color=colour, linewidth=1.3, label=label, zorder=3)
    alone = known & ~before & ~after
    axis.plot(x[alone], y[alone], ".", color=colour, markersize=3, zorder=3)


def _line(
    axis: Axes, records: Sequence[EpochRecord], label: str, colour: str, value: Value
) -> np.ndarray | None:
    y = course_of(records, value)
    if not np.isfinite(y).any():
        return None
    plot_course(axis, np.array([r.epoch for r in records], dtype=float), y, colour, label)
    known: np.ndarray = y[np.isfinite(y)]
    return known


def _skipped(axis: Axes, records: Sequence[EpochRecord]) -> None:
    """Marks below the lines, at the epochs that have no loss."""
    epochs = [r.epoch for r in records if all_skipped(r)]
    if epochs:
        transform = axis.get_xaxis_transform()
        axis.plot(
            epochs,
            np.full(len(epochs), 0.012),
            "|",
            color=SKIPPED,
            markersize=6,
            transform=transform,
            label=f"skipped: {len(epochs):,}",
            zorder=2,
        )


def finish_panel(axis: Axes, title: str, values: np.ndarray, *, unit: str = "epoch") -> None:
    """Title, scale, grid and legend, as all panels of a run have them.

    Args:
        axis: the panel.
        title: above it.
        values: all that is drawn, finite, (n,); they choose the scale.
        unit: of the horizontal axis.
    """
    axis.set_title(title, fontsize=MEDIUM, color=INK, loc="left", pad=6)
    axis.set_xlabel(unit, fontsize=SMALL, color=INK)
    if len(values) and np.abs(values).max() > LOGARITHMIC:
        if values.min() > 0.0:
            axis.set_yscale("log")
        else:
            axis.set_yscale("symlog", linthresh=100.0)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.tick_params(which="both", labelsize=SMALL, colors=INK, color=FAINT)
    axis.grid(which="major", color=FAINT, alpha=0.25, linewidth=0.7)
    for side, spine in axis.spines.items():
        spine.set(color=FAINT, linewidth=0.8, visible=side in ("left", "bottom"))
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=SMALL, labelcolor=INK, framealpha=0.85, edgecolor="none")
    if not len(values):
        axis.text(0.5, 0.5, "not logged", transform=axis.transAxes, ha="center", color=FAINT)
