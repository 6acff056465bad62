"""Figures of learning rates: a range test's curve, and the courses of schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlff_cli.core.artifacts import atomic_path

DPI = 90
COLUMNS = 4
PANEL = (2.3, 1.35)  # inches of one schedule
FEWEST_POINTS = 400  # of a schedule's line: what its jumps need


def plot_range_test(
    path: Path | str,
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    *,
    steepest: float | None = None,
    diverged: float | None = None,
    suggestion: float | None = None,
) -> None:
    """Draw the loss against the learning rate.

    Args:
        path: PNG to write; replaced when it exists.
        rates: learning rate of every step.
        losses: loss of every step, by that of the initial weights on the same batch.
        smoothed: the same without the scatter.
        steepest: rate of the steepest descent.
        diverged: rate at which the loss diverged.
        suggestion: the suggested rate.
    """
    figure = Figure(figsize=(6.5, 4.0))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot(rates, losses, ".", color="0.7", markersize=5, label="batches")
    axis.plot(rates, smoothed, color="C0", linewidth=1.6, label="smoothed")
    marks = (
        (steepest, "steepest descent", "C2", ":"),
        (diverged, "divergence", "C3", ":"),
        (suggestion, "suggestion", "C1", "-"),
    )
    for at, name, colour, style in marks:
        if at is not None:
            axis.axvline(at, color=colour, linestyle=style, label=f"{name} {at:.2g}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss, by that of the initial weights")
    if smoothed:  # an exploding end would hide the rest
        low, start = min(smoothed), smoothed[0]
        room = max(start - low, 0.1 * abs(start)) or 1.0
        axis.set_ylim(low - room, start + 2 * room)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8)
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.13, top=0.96)
    with atomic_path(path, force=True) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def plot_schedules(
    path: Path | str, courses: Mapping[str, Sequence[float]], epoch_length: int
) -> None:
    """Draw the learning rate of several schedules, one panel each.

    Args:
        path: PNG to write; replaced when it exists.
        courses: by name the learning rate of every iteration.
        epoch_length: iterations per epoch.
    """
    rows = math.ceil(len(courses) / COLUMNS)
    figure = Figure(figsize=(PANEL[0] * COLUMNS, PANEL[1] * rows + 0.3))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    longest = max(len(rates) for rates in courses.values())
    for axis, (name, rates) in zip(axes.flat, courses.items(), strict=False):
        every = max(1, len(rates) // FEWEST_POINTS)
        steps = range(0, len(rates), every)
        axis.plot([s / epoch_length for s in steps], [rates[s] for s in steps], linewidth=1.1)
        if len(rates) < longest:  # it ended the run
            axis.plot(len(rates) / epoch_length, rates[-1], "x", color="C3", markersize=5)
        axis.set_title(name, fontsize=8, pad=2)
        axis.tick_params(labelsize=6)
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(courses) :]:
        axis.set_visible(False)
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("learning rate", fontsize=8)
    figure.subplots_adjust(left=0.085, right=0.99, bottom=0.07, top=0.97, hspace=0.3, wspace=0.06)
    with atomic_path(path, force=True) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
