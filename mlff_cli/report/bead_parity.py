"""Forces of beads: predictions against labels, and errors type by type.

The first row has a parity panel per mode; points are a sample, the errors beside them are of all
forces. Below stand the RMSE of every type of bead in every mode, the RMS of the reference being
that of the model without any force, and the bound on the noise where it is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlff_cli.report.parity import COLOURS, FAINT, INK, crowd

NAMES = {"full": "full model", "prior": "prior alone", "ml": "Allegro alone", "zero": "no force"}
SHADES = {"full": "#c8553d", "prior": "#3b6c8f", "ml": "#5f9e6e", "zero": "#c9ced6"}
PANEL = 3.3  # inches
DPI = 180
MOST_TYPES = 40  # of bars
PERCENTILE = 99.9  # of the forces that a panel shows
UNIT = "kcal/mol/\N{LATIN CAPITAL LETTER A WITH RING ABOVE}"


@dataclass(frozen=True)
class ForcePanel:
    """One mode.

    Attributes:
        mode: as "full".
        reference: (p,) components of force, kcal/mol/angstrom, a sample.
        predicted: (p,) the same.
        told: lines of text about all forces.
    """

    mode: str
    reference: np.ndarray
    predicted: np.ndarray
    told: Sequence[str]


def write_force_parity(
    path: Path,
    panels: Sequence[ForcePanel],
    by_type: Mapping[str, Mapping[str, float]],
    bound: float | None,
    title: str,
) -> None:
    """Draw and write a PNG; the same values give the same bytes.

    Args:
        path: the file; nothing atomic happens here.
        panels: one or more.
        by_type: RMSE by type, of every mode, kcal/mol/angstrom; `zero` has the RMS of the labels.
        bound: RMSE that noise alone makes at most, kcal/mol/angstrom, or None.
        title: above all.
    """
    columns = len(panels)
    width = max(PANEL * columns + 0.2, 2 * PANEL)
    figure = Figure(figsize=(width, 2 * PANEL + 0.1))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06)
    top, bottom = np.ravel(figure.subfigures(2, 1, height_ratios=[1.15, 0.85], squeeze=False))
    for ax, panel in zip(top.subplots(1, columns, squeeze=False)[0], panels, strict=True):
        _parity(ax, panel)
    _bars(bottom.subplots(), by_type, bound)
    figure.suptitle(title, fontsize=10.5, color=INK, weight="bold")
    # no software version in the file: it would change the bytes and nothing else
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _parity(ax: Any, panel: ForcePanel) -> None:
    r, p = (np.asarray(v, np.float64).ravel() for v in (panel.reference, panel.predicted))
    size = float(np.percentile(np.abs(np.concatenate([r, p])), PERCENTILE)) * 1.1 or 1.0
    near = crowd(r, p, -size, size)
    order = np.argsort(near)  # the densest on top
    ax.plot([-size, size], [-size, size], color=SHADES["full"], lw=0.9, zorder=3)
    ax.scatter(
        r[order],
        p[order],
        c=near[order],
        s=float(np.clip(900.0 / np.sqrt(r.size + 1), 2.0, 20.0)),
        cmap=COLOURS,
        linewidths=0,
        alpha=0.85,
        rasterized=True,
        zorder=2,
    )
    ax.set(xlim=(-size, size), ylim=(-size, size), aspect="equal")
    ax.set_title(NAMES.get(panel.mode, panel.mode), fontsize=9.5, color=INK, loc="left")
    ax.set_xlabel(f"label, force component ({UNIT})", fontsize=8.5, color=INK)
    ax.set_ylabel(f"predicted ({UNIT})", fontsize=8.5, color=INK)
    ax.text(
        0.04,
        0.96,
        "\n".join(panel.told),
        transform=ax.transAxes,
        va="top",
        fontsize=7.5,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2.0},
        zorder=5,
    )
    _plain(ax)


def _bars(ax: Any, by_type: Mapping[str, Mapping[str, float]], bound: float | None) -> None:
    modes = [m for m in ("zero", "prior", "ml", "full") if m in by_type]
    types = list(by_type[modes[0]])[:MOST_TYPES]
    wide = 0.8 / len(modes)
    for k, mode in enumerate(modes):
        x = np.arange(len(types)) - 0.4 + wide * (k + 0.5)
        heights = [by_type[mode][t] for t in types]
        ax.bar(x, heights, wide, color=SHADES[mode], label=NAMES[mode], zorder=2)
    if bound is not None:
        ax.axhline(bound, color=INK, lw=1.0, ls=(0, (4, 2)), label="noise, at most", zorder=3)
    ax.set_xticks(np.arange(len(types)), types, rotation=90 if len(types) > 12 else 0)
    ax.set_ylabel(f"RMSE ({UNIT})", fontsize=8.5, color=INK)
    ax.set_xlim(-0.6, len(types) - 0.4)
    ax.legend(fontsize=7.5, frameon=False, ncols=len(modes) + 1, loc="lower right",
              bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handlelength=1.4)  # fmt: skip
    ax.set_title("by type of bead", fontsize=9.5, color=INK, loc="left")
    _plain(ax)


def _plain(ax: Any) -> None:
    ax.tick_params(labelsize=7.5, colors=INK, direction="in", length=3)
    for spine in ax.spines.values():
        spine.set(color=FAINT, linewidth=0.7)
