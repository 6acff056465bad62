"""Every fitted distribution over its histogram: pages of small panels.

Bars are the samples, the line over them is p = J exp(-U/kT)/Z of the fitted term alone, the thin
line is U on the right axis. Where a wall stands is shaded. Above a panel: samples, and the share of
them that p covers. Pairs have no p of their own, as their distances depend on all other terms:
sigma is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, MultipleLocator

from mlff_cli.coarse.priors.distributions import Histogram
from mlff_cli.coarse.priors.prior_curves import boltzmann, energy
from mlff_cli.coarse.priors.prior_entries import Fitted
from mlff_cli.data.beads.prior_forms import SoftSphere

COLUMNS, ROWS = 5, 5  # the pooled terms are a row
MAX_PAGES = 8
PANEL = (2.3, 1.85)  # inches
DPI = 160
BARS = 60  # at most
DOTTED = (0, (1.5, 1.5))
SHOWN_KT = 8.0  # of the potential, above its lowest value
INK, FAINT, ACCENT, BAR, WALL = "#1d2733", "#8b97a5", "#c8553d", "#a9c0d3", "#efe6d8"
NAMES = {
    "bond": "bond",
    "angle": "angle",
    "dihedral": "dihedral",
    "excluded_volume": "excl. volume",
    "repulsion": "repulsion",
}
PAIRS = ("excluded_volume", "repulsion")


def pages(fitted: Sequence[Fitted]) -> list[list[Fitted]]:
    """What is drawn on which page: pooled terms first, then types, kind by kind.

    Where there is more than `MAX_PAGES` hold, the types with the fewest samples are left out.
    """
    shown = [f for f in fitted if f.histogram is not None and f.histogram.n]
    pooled = [f for f in shown if f.label == "pooled"]
    typed = [f for f in shown if f.label != "pooled"]
    room = MAX_PAGES * COLUMNS * ROWS - len(pooled)
    if len(typed) > room:
        most = sorted(typed, key=lambda f: -f.entry.samples)[:room]
        kept = {id(f) for f in most}
        typed = [f for f in typed if id(f) in kept]
    order = [*pooled, *typed]
    size = COLUMNS * ROWS
    return [order[i : i + size] for i in range(0, len(order), size)]


def page_paths(output: Path, n: int) -> list[Path]:
    """prior.png, prior_2.png, ... beside prior.yaml."""
    return [
        output.with_name(f"{output.stem}{'' if i == 1 else f'_{i}'}.png") for i in range(1, n + 1)
    ]


def write_page(
    path: Path, panels: Sequence[Fitted], kt: float, title: str, number: int = 1, of: int = 1
) -> None:
    """Draw one page and write a PNG; the same values give the same bytes.

    Args:
        path: the file; nothing atomic happens here.
        panels: at most `COLUMNS` times `ROWS`, each with a histogram.
        kt: kcal/mol.
        title: above all panels.
        number: of the page.
        of: so many pages.
    """
    figure = _page(panels, kt, title, number, of)
    # no software version in the file: it would change the bytes and nothing else
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _page(panels: Sequence[Fitted], kt: float, title: str, number: int, of: int) -> Figure:
    rows = -(-len(panels) // COLUMNS)
    head = 0.62
    height = PANEL[1] * rows + head
    figure = Figure(figsize=(PANEL[0] * COLUMNS + 0.2, height))
    FigureCanvasAgg(figure)
    figure.set_layout_engine(
        "constrained", rect=(0, 0, 1, 1 - head / height), w_pad=0.06, h_pad=0.06
    )
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for i, (ax, fitted) in enumerate(zip(axes.flat, panels, strict=False)):
        _draw(ax, fitted, kt, left=i % COLUMNS == 0, right=i % COLUMNS == COLUMNS - 1)
    page = f"   page {number} of {of}" if of > 1 else ""
    top = 1 - 0.08 / height
    figure.text(
        0.012, top, f"Prior of {title}{page}", fontsize=11, color=INK, weight="bold", va="top"
    )
    figure.legend(
        handles=[
            Patch(facecolor=BAR, label="samples"),
            Line2D([], [], color=ACCENT, lw=1.6, label="Boltzmann density of the term"),
            Line2D([], [], color=ACCENT, lw=1.0, ls=DOTTED, label="$\\sigma$ of a pair"),
            Line2D([], [], color=INK, lw=0.9, label="potential U (right axis, kcal/mol)"),
            Patch(facecolor=WALL, label="beyond a wall"),
            Line2D([], [], ls="", marker="", label="above right: samples, share covered"),
        ],
        loc="upper left",
        bbox_to_anchor=(0.006, 1 - 0.27 / height),
        ncols=6,
        frameon=False,
        fontsize=8,
        handlelength=1.5,
        columnspacing=1.5,
        borderaxespad=0.0,
    )
    return figure


def _draw(ax: Any, fitted: Fitted, kt: float, left: bool, right: bool) -> None:
    h, entry = fitted.histogram, fitted.entry
    assert h is not None
    scale = 180.0 / np.pi if h.kind.unit == "radian" else 1.0
    low, high = _limits(h)
    if isinstance(entry.parameters, SoftSphere):
        low = min(low, 0.9 * entry.parameters.sigma)
    edges, counts = h.coarse(int(np.clip(2.0 * np.sqrt(h.n), 12, BARS)), low, high)
    density = counts / (counts.sum() * np.diff(edges))
    ax.stairs(density / scale, edges * scale, fill=True, color=BAR, zorder=1)
    q = np.linspace(low, high, 500)
    u = energy(entry.parameters, q, entry.wall)
    if isinstance(entry.parameters, SoftSphere):
        ax.axvline(entry.parameters.sigma, color=ACCENT, lw=1.0, ls=DOTTED, zorder=3)
    else:
        fine = np.linspace(low, high, 501)
        p = boltzmann(h.kind, entry.parameters, kt, fine, entry.wall) / (fine[1] - fine[0])
        ax.plot(0.5 * (fine[1:] + fine[:-1]) * scale, p / scale, color=ACCENT, lw=1.4, zorder=3)
    ax.set_ylim(0.0, 1.32 * float(density.max()) / scale)
    ax.set_xlim(low * scale, high * scale)
    if entry.wall is not None:
        for a, b in ((low, entry.wall.low), (entry.wall.high, high)):
            if a is not None and b is not None and b > a:
                ax.axvspan(a * scale, b * scale, color=WALL, lw=0, zorder=0)
    _potential(ax, q * scale, u, kt, right)
    _words(ax, fitted, h, left)


def _potential(ax: Any, q: np.ndarray, u: np.ndarray, kt: float, right: bool) -> None:
    twin = ax.twinx()
    top = SHOWN_KT * kt
    shown = u - u.min()
    twin.plot(q, np.where(shown <= 1.2 * top, shown, np.nan), color=INK, lw=0.85, zorder=4)
    twin.set_ylim(0.0, top)
    twin.yaxis.set_major_locator(MaxNLocator(4))
    twin.tick_params(labelsize=6.5, colors=INK, direction="in", length=2.5, pad=2)
    if not right:
        twin.tick_params(labelright=False)
    for spine in twin.spines.values():
        spine.set_visible(False)


def _words(ax: Any, fitted: Fitted, h: Histogram, left: bool) -> None:
    radian = h.kind.unit == "radian"
    label = "all" if fitted.label == "pooled" else fitted.label.removesuffix("-*")
    ax.set_title(
        f"{NAMES[fitted.kind]}  {label}",
        fontsize=8.5,
        color=INK,
        loc="left",
        pad=4,
        weight="bold" if fitted.label == "pooled" else "normal",
    )
    angstrom = "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}"
    told = [_count(h.n)]
    if fitted.overlap is not None:
        told.append(f"{100 * fitted.overlap:.0f} %")
    if isinstance(fitted.entry.parameters, SoftSphere):
        sigma = fitted.entry.parameters.sigma
        ax.text(
            0.95,
            0.93,
            f"$\\sigma$ = {sigma:.2f} {angstrom}",
            transform=ax.transAxes,
            va="top",
            ha="right",
            fontsize=7,
            color=INK,
        )
    ax.set_title("   ".join(told), fontsize=6.5, color=FAINT, loc="right", pad=4)
    name = {"bond": "r", "angle": r"$\theta$", "dihedral": r"$\phi$"}.get(fitted.kind, "r")
    unit = "degrees" if radian else angstrom
    ax.set_xlabel(f"{name} ({unit})", fontsize=7.5, color=INK, labelpad=1.5)
    if left:
        ax.set_ylabel("density", fontsize=7.5, color=INK, labelpad=2)
    ax.set_yticks([])
    ax.tick_params(labelsize=7, colors=INK, direction="in", length=2.5, pad=2.5)
    ax.xaxis.set_major_locator(MultipleLocator(90) if h.kind.periodic else MaxNLocator(5))
    for spine in ax.spines.values():
        spine.set(color=FAINT, linewidth=0.7)


def _count(n: int) -> str:
    """A number in three or four characters, as 36k."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= 10 * size:
            return f"{n / size:.0f}{letter}"
        if n >= size:
            return f"{n / size:.1f}{letter}"
    return str(n)


def _limits(h: Histogram) -> tuple[float, float]:
    """What is shown of the axis: all samples and a margin."""
    if h.kind.periodic:
        return h.kind.low, h.kind.high
    low, high = h.quantile(2e-4), h.quantile(1.0 - 2e-4)
    if h.kind.name in PAIRS:
        return max(0.75 * h.quantile(0.005), 0.0), h.kind.high
    margin = max(0.15 * (high - low), 0.01)
    return max(low - margin, h.kind.low), min(high + margin, h.kind.high)
