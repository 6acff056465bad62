"""Parity figures: predictions against labels, one panel per quantity.

Points are coloured by how many lie near them, so that a crowd shows as a crowd; the inset is the
distribution of the deviations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlff_cli.report.statistics import Errors

MAX_POINTS = 40_000  # drawn; errors are always of all
DENSITY_BINS = 90
INSET_BINS = 41
INK, FAINT, ACCENT = "#1d2733", "#8b97a5", "#c8553d"
COLOURS = "viridis"
STYLE = {"labelsize": 9.5, "titlesize": 10.5, "textsize": 8.5}
PANEL = 3.5  # inches
DPI = 200


@dataclass(frozen=True)
class Panel:
    """One quantity.

    Attributes:
        title: above the panel.
        quantity: on the axes, as "energy - SAE".
        unit: of the values, as "kcal/mol".
        reference: labels, any shape.
        predicted: predictions, the same shape.
    """

    title: str
    quantity: str
    unit: str
    reference: np.ndarray
    predicted: np.ndarray


def write_parity(path: Path, panels: Sequence[Panel], title: str = "") -> None:
    """Draw the panels in a row and write a PNG; the same values give the same bytes.

    Args:
        path: the file; nothing atomic happens here.
        panels: at least one, each with at least one value.
        title: above all panels.
    """
    figure = parity_figure(panels, title)
    # no software version in the file: it would change the bytes and nothing else
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def parity_figure(panels: Sequence[Panel], title: str = "") -> Figure:
    """The figure of `write_parity`.

    A quantity that is zero everywhere, as spin charges of closed shells, gets no panel where others
    have something to show.
    """
    panels = [p for p in panels if np.any(p.reference) or np.any(p.predicted)] or list(panels)
    n = len(panels)
    figure = Figure(figsize=(PANEL * n + 0.2, PANEL + (0.4 if title else 0.15)))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
    axes = figure.subplots(1, n, squeeze=False)[0]
    for i, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        _draw(ax, panel)
        ax.set_title(panel.title, fontsize=STYLE["titlesize"], color=INK, loc="left", pad=7)
        if n > 1:
            ax.set_title(f"({chr(ord('a') + i)})", fontsize=STYLE["titlesize"], loc="right", pad=7)
    if title:
        figure.suptitle(title, fontsize=STYLE["titlesize"] + 0.5, color=INK, weight="bold")
    return figure


def _draw(ax: Any, panel: Panel) -> None:
    r = np.asarray(panel.reference, dtype=np.float64).ravel()
    p = np.asarray(panel.predicted, dtype=np.float64).ravel()
    errors = Errors.of(r, p)
    low, high = float(min(r.min(), p.min())), float(max(r.max(), p.max()))
    margin = 0.05 * (high - low) or 1.0
    low, high = low - margin, high + margin
    if r.size > MAX_POINTS:
        drawn = np.random.default_rng(0).choice(r.size, MAX_POINTS, replace=False)
        r, p = r[drawn], p[drawn]
    near = crowd(r, p, low, high)
    order = np.argsort(near)  # the densest on top
    ax.plot([low, high], [low, high], color=ACCENT, lw=0.9, zorder=3, alpha=0.9)
    size = float(np.clip(900.0 / np.sqrt(r.size + 1), 2.5, 22.0))
    ax.scatter(
        r[order],
        p[order],
        c=near[order],
        s=size,
        cmap=COLOURS,
        linewidths=0,
        alpha=0.85,
        rasterized=True,
        zorder=2,
    )
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    unit = re.sub(r"/A\b", "/\N{LATIN CAPITAL LETTER A WITH RING ABOVE}", panel.unit)
    ax.set_xlabel(f"label, {panel.quantity} ({unit})", fontsize=STYLE["labelsize"])
    ax.set_ylabel(f"predicted ({unit})", fontsize=STYLE["labelsize"])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.tick_params(labelsize=STYLE["textsize"], colors=INK, direction="in", top=True, right=True)
    for spine in ax.spines.values():
        spine.set(color=FAINT, linewidth=0.8)
    r2 = "" if errors.r2 is None else f"\n$R^2$ {errors.r2:.4f}"
    ax.text(
        0.045,
        0.955,
        f"MAE {errors.mae:.3g} {unit}\nRMSE {errors.rmse:.3g} {unit}{r2}\nn = {errors.n:,}",
        transform=ax.transAxes,
        va="top",
        fontsize=STYLE["textsize"],
        color=INK,
        linespacing=1.35,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2.0},
        zorder=5,
    )
    _deviations(ax, panel)


def _deviations(ax: Any, panel: Panel) -> None:
    """Histogram of predicted - label in the empty corner below the diagonal."""
    d = (np.asarray(panel.predicted, float) - np.asarray(panel.reference, float)).ravel()
    width = float(np.percentile(np.abs(d), 99)) or 1.0  # a few outliers must not flatten the rest
    inset = ax.inset_axes([0.63, 0.1, 0.33, 0.24], zorder=4)
    inset.hist(np.clip(d, -width, width), bins=INSET_BINS, range=(-width, width), color="#3b6c8f")
    inset.axvline(0.0, color=ACCENT, lw=0.7)
    inset.set_yticks([])
    inset.set_xticks([-width, 0.0, width], [f"{-width:.2g}", "0", f"{width:.2g}"])
    inset.tick_params(labelsize=6.5, colors=INK, length=2, pad=1.5)
    inset.set_title("deviation", fontsize=6.5, color=INK, pad=2)
    inset.patch.set_alpha(0.8)
    for side, spine in inset.spines.items():
        spine.set_visible(side == "bottom")
        spine.set(color=FAINT, linewidth=0.7)


def crowd(r: np.ndarray, p: np.ndarray, low: float, high: float) -> np.ndarray:
    """Points near each point, on a logarithmic scale, from a smoothed two-dimensional histogram."""
    counts, _, _ = np.histogram2d(r, p, bins=DENSITY_BINS, range=[[low, high], [low, high]])
    kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
    for axis in (0, 1):
        counts = np.apply_along_axis(np.convolve, axis, counts, kernel, mode="same")

    scale = DENSITY_BINS / (high - low)
    i, j = (np.minimum(((x - low) * scale).astype(int), DENSITY_BINS - 1) for x in (r, p))
    near: np.ndarray = np.log1p(counts[i, j])
    return near
