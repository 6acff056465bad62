"""Free energies of a reference and a simulation: planes side by side, profiles over one another.

A plane is a row: reference, simulation, and their difference where both have frames. Cells without
a frame are left white. A profile has bands of one standard error. What stands above is the
Jensen-Shannon divergence of equal numbers of frames in independent blocks, beside its floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator

from mlff_cli.physics.ensembles.collective_variables import Variable
from mlff_cli.physics.ensembles.histograms import Axis
from mlff_cli.physics.ensembles.landscapes import Landscape
from mlff_cli.report.sheet import FAINT, INK, save, sheet

MOST_PLANES, MOST_PROFILES = 6, 24  # drawn; the JSON file has them all
COLUMNS = 4  # of profiles
PLANE, PROFILE = (3.1, 2.75), (2.75, 2.1)  # inches
SHOWN_KT = 9.0  # of a free energy, above its lowest
LEAST_SPAN = 0.5  # kcal/mol, of the colours of a difference
REFERENCE, SIMULATION = "#3b6c8f", "#c8553d"
ENERGY, DIFFERENCE = "viridis", "RdBu_r"
SYMBOLS = {"phi": r"$\phi$", "psi": r"$\psi$", "omega": r"$\omega$", "gamma": r"$\gamma$"}


def write_planes(path: Path, landscapes: Sequence[Landscape], title: str) -> None:
    """Draw planes, the first `MOST_PLANES`, and write a PNG; the same values, the same bytes.

    Args:
        path: the file; nothing atomic happens here.
        landscapes: of two variables each, one or more.
        title: above all.
    """
    shown = list(landscapes[:MOST_PLANES])
    figure, axes = sheet(len(shown), 3, PLANE, title)
    for row, landscape in zip(axes, shown, strict=True):
        _plane(figure, row, landscape)
    save(figure, path)


def write_profiles(path: Path, landscapes: Sequence[Landscape], title: str) -> None:
    """Draw profiles, the first `MOST_PROFILES`, and write a PNG; the same values, the same bytes.

    Args:
        path: the file; nothing atomic happens here.
        landscapes: of one variable each, one or more.
        title: above all.
    """
    shown = list(landscapes[:MOST_PROFILES])
    columns = min(COLUMNS, len(shown))
    figure, axes = sheet(-(-len(shown) // columns), columns, PROFILE, title)
    for k, ax in enumerate(axes.flat):
        if k < len(shown):
            _profile(ax, shown[k], left=k % columns == 0)
        else:
            ax.set_axis_off()
    figure.legend(
        handles=[
            Line2D([], [], color=REFERENCE, lw=1.5, label="reference"),
            Line2D([], [], color=SIMULATION, lw=1.5, label="simulation"),
        ],
        fontsize=8,
        frameon=False,
        loc="upper right",
        ncols=1 if columns == 1 else 2,
        borderaxespad=0.2,
    )
    save(figure, path)


def _plane(figure: Figure, axes: Any, landscape: Landscape) -> None:
    reference, simulation = landscape.free_energies
    delta, _ = landscape.difference
    top = min(SHOWN_KT * landscape.kt, float(reference[np.isfinite(reference)].max()) or 1.0)
    common = np.abs(delta[np.isfinite(delta)])
    span = max(float(np.percentile(common, 95)) if common.size else 0.0, LEAST_SPAN)
    g = landscape.inefficiency
    drawn = (
        ("reference", _frames(landscape.reference, g[0]), reference, (0.0, top), ENERGY),
        ("simulation", _frames(landscape.simulation, g[1]), simulation, (0.0, top), ENERGY),
        ("difference", _told(landscape), delta, (-span, span), DIFFERENCE),
    )
    edges = [_scaled(a.edges, v) for a, v in zip(landscape.axes, landscape.variables, strict=True)]
    for ax, (name, told, values, (low, high), colours) in zip(axes, drawn, strict=True):
        mesh = ax.pcolormesh(
            *edges,
            np.ma.masked_invalid(values.T),
            cmap=colours,
            vmin=low,
            vmax=high,
            rasterized=True,
        )
        ax.set_title(name, fontsize=8.5, color=INK, loc="left", pad=12)
        ax.text(0.0, 1.015, told, transform=ax.transAxes, fontsize=6.5, color=FAINT, va="bottom")
        for which, variable, axis in zip("xy", landscape.variables, landscape.axes, strict=True):
            _axis(ax, which, variable, axis)
        bar = figure.colorbar(
            mesh, ax=ax, fraction=0.05, pad=0.02, extend="max" if low == 0.0 else "both"
        )
        bar.ax.tick_params(labelsize=6.5, colors=INK, length=2)
        bar.outline.set_visible(False)
        bar.set_label("kcal/mol", fontsize=7, color=INK, labelpad=2)
        _plain(ax)


def _frames(counts: np.ndarray, g: float) -> str:
    return f"{int(counts.sum()):,} frames, {counts.sum() / g:,.0f} independent"


def _profile(ax: Any, landscape: Landscape, *, left: bool) -> None:
    (variable,), (axis,) = landscape.variables, landscape.axes
    x = _scaled(axis.centres, variable)
    top = SHOWN_KT * landscape.kt
    pairs = zip(landscape.free_energies, landscape.uncertainties, strict=True)
    for colour, (f, s) in zip((REFERENCE, SIMULATION), pairs, strict=True):
        f, s = (np.where(np.isfinite(v), v, np.nan) for v in (f, s))
        ax.fill_between(x, f - s, f + s, color=colour, alpha=0.25, lw=0)
        ax.plot(x, f, color=colour, lw=1.3)
    ax.set_ylim(-0.05 * top, top)
    _axis(ax, "x", variable, axis)
    if left:
        ax.set_ylabel("F (kcal/mol)", fontsize=7.5, color=INK, labelpad=2)
    ax.set_title(_told(landscape), fontsize=6.5, color=FAINT, loc="left", pad=4)
    _plain(ax)


def _told(landscape: Landscape) -> str:
    found = landscape.comparison
    if found is None:
        return "too few independent frames"
    return (
        f"JSD {found.divergence.mean:.3g}, floor {found.floor.mean:.3g} "
        f"({found.ratio:.2g} x; {found.frames} frames)"
    )


def _scaled(values: np.ndarray, variable: Variable) -> np.ndarray:
    return np.degrees(values) if variable.periodic else values


def _axis(ax: Any, which: str, variable: Variable, axis: Axis) -> None:
    first, _, rest = variable.name.partition(" ")
    label = f"{SYMBOLS[first]} {rest}" if first in SYMBOLS else variable.name
    unit = {"A": "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}", "degree": "degrees"}
    told = f"{label} ({unit[variable.unit]})" if variable.unit else label
    low, high = _scaled(np.array([axis.low, axis.high]), variable)
    getattr(ax, f"set_{which}label")(told, fontsize=7.5, color=INK, labelpad=1.5)
    getattr(ax, f"set_{which}lim")(low, high)
    locator = MultipleLocator(90) if variable.periodic else MaxNLocator(5)
    getattr(ax, f"{which}axis").set_major_locator(locator)


def _plain(ax: Any) -> None:
    ax.tick_params(labelsize=6.5, colors=INK, direction="in", length=2.5, pad=2.5)
    for spine in ax.spines.values():
        spine.set(color=FAINT, linewidth=0.7)
