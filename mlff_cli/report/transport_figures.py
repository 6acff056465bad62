"""Figures of an evaluated flow: backbones, energies, works.

A triptych is a row per residue: what was sampled at the source, what the flow made of it, and what
was sampled at the target, all as free energies on one colour scale. Energies are densities before
the flow, behind it, and of the ensemble that it should be. Works are densities of both directions;
they cross at the free-energy difference (G. E. Crooks, Phys. Rev. E 60, 2721, 1999), and the nearer
they lie to each other, the more swaps are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, MultipleLocator

from mlff_cli.physics.ensembles.free_energy import free_energy
from mlff_cli.physics.ensembles.landscapes import Landscape
from mlff_cli.report.sheet import FAINT, INK, save, sheet

MOST_ROWS = 6  # residues drawn; the JSON file has them all
PANEL, MARGIN = (2.9, 2.75), 0.4  # inches; beside the panels there are labels of colour bars
BEFORE, BEHIND, WANTED = "#8b97a5", "#c8553d", "#3b6c8f"
COLOURS = "viridis"
SHOWN_KT = 8.0  # of a free energy, above its lowest
SHOWN_SHARE = (0.002, 0.998)  # quantiles that an axis reaches to
BINS = 45


@dataclass(frozen=True, eq=False)
class Plane:
    """A residue's row.

    Attributes:
        there: the target, and what the flow made of the source.
        source: frames in every cell at the source.
        kelvin: of the source.
        target: K.
    """

    there: Landscape
    source: np.ndarray
    kelvin: float
    target: float


@dataclass(frozen=True, eq=False)
class EnergyPanel:
    """Energies in kJ/mol of frames before a flow, behind it, and of the ensemble it leads to.

    Attributes:
        here: K before.
        there: K behind.
        before: (n,).
        behind: (n,); not finite ones are counted and not drawn.
        wanted: (m,).
    """

    here: float
    there: float
    before: np.ndarray
    behind: np.ndarray
    wanted: np.ndarray


@dataclass(frozen=True, eq=False)
class WorkPanel:
    """Works of one map.

    Attributes:
        name: of the map.
        forward: (n,).
        reverse: (m,).
        acceptance: of a swap.
        effective: ESS / n, forward and reverse.
    """

    name: str
    forward: np.ndarray
    reverse: np.ndarray
    acceptance: float
    effective: tuple[float, float]


def write_triptychs(path: Path, planes: Sequence[Plane], title: str) -> None:
    """Draw Ramachandran planes and write a PNG; the same values, the same bytes.

    Args:
        path: the file; nothing atomic happens here.
        planes: one or more; the first `MOST_ROWS` are drawn.
        title: above all.
    """
    shown = list(planes[:MOST_ROWS])
    figure, axes = sheet(len(shown), 3, PANEL, f"Backbone, {title}", margin=MARGIN)
    for row, plane in zip(axes, shown, strict=True):
        counts = (plane.source, plane.there.simulation, plane.there.reference)
        told = (
            f"source, {plane.kelvin:g} K",
            f"transported to {plane.target:g} K",
            f"target, {plane.target:g} K",
        )
        below = ("", _compared(plane.there), "")
        edges = [np.degrees(a.edges) for a in plane.there.axes]
        for k, (ax, n, name, more) in enumerate(zip(row, counts, told, below, strict=True)):
            f = np.ma.masked_invalid(free_energy(n, 1.0).T)
            mesh = ax.pcolormesh(*edges, f, cmap=COLOURS, vmin=0, vmax=SHOWN_KT, rasterized=True)
            ax.set_title(name, fontsize=8.5, color=INK, loc="left", pad=12)
            text = more or f"{int(n.sum()):,} frames"
            ax.text(0, 1.015, text, transform=ax.transAxes, fontsize=6.5, color=FAINT, va="bottom")
            _dihedral_axes(ax, [v.name for v in plane.there.variables], left=k == 0)
            _plain(ax)
        bar = figure.colorbar(mesh, ax=list(row), fraction=0.02, pad=0.01, extend="max")
        bar.ax.tick_params(labelsize=6.5, colors=INK, length=2)
        bar.outline.set_visible(False)
        bar.set_label("F / kT", fontsize=7, color=INK, labelpad=2)
    save(figure, path)


def write_energies(path: Path, panels: Sequence[EnergyPanel], title: str) -> None:
    """Draw potential energies and write a PNG; the same values, the same bytes.

    Args:
        path: the file; nothing atomic happens here.
        panels: one for each direction.
        title: above all.
    """
    figure, axes = sheet(1, len(panels), (3.9, 2.7), f"Potential energies, {title}", margin=MARGIN)
    for ax, panel in zip(axes[0], panels, strict=True):
        good = panel.behind[np.isfinite(panel.behind)]
        lost = len(panel.behind) - len(good)
        edges = _edges([panel.before, panel.wanted, good])
        for values, colour, name, filled in (
            (panel.before, BEFORE, f"sampled, {panel.here:g} K", True),
            (good, BEHIND, "behind the flow", False),
            (panel.wanted, WANTED, f"sampled, {panel.there:g} K", False),
        ):
            _density(ax, values, edges, colour, name, filled=filled)
        _outside(ax, good, edges, lost)
        ax.set_xlabel("U (kJ/mol)", fontsize=7.5, color=INK, labelpad=1.5)
        ax.set_title(f"{panel.here:g} K to {panel.there:g} K", fontsize=8.5, color=INK, loc="left")
        _density_axes(ax)
    save(figure, path)


def write_works(path: Path, panels: Sequence[WorkPanel], title: str) -> None:
    """Draw works of both directions and write a PNG; the same values, the same bytes.

    Args:
        path: the file; nothing atomic happens here.
        panels: one for each map.
        title: above all.
    """
    figure, axes = sheet(1, len(panels), (2.9, 2.7), f"Reduced works, {title}", margin=MARGIN)
    for ax, panel in zip(axes[0], panels, strict=True):
        forward = panel.forward[np.isfinite(panel.forward)]
        reverse = -panel.reverse[np.isfinite(panel.reverse)]
        edges = _edges([forward, reverse])
        _density(ax, reverse, edges, WANTED, r"$-w_R$", filled=True)
        _density(ax, forward, edges, BEHIND, r"$w_F$")
        lost = len(panel.forward) + len(panel.reverse) - len(forward) - len(reverse)
        _outside(ax, np.concatenate([forward, reverse]), edges, lost)
        accepted = panel.acceptance
        share = f"{100 * accepted:.1f} %" if accepted >= 1e-3 else f"{accepted:.1e}"
        ess = ", ".join(f"{e:.2g}" for e in panel.effective)
        ax.set_title(panel.name, fontsize=8.5, color=INK, loc="left", pad=12)
        told = f"swaps done {share}; ESS {ess}"
        ax.text(0, 1.015, told, transform=ax.transAxes, fontsize=6.5, color=FAINT, va="bottom")
        ax.set_xlabel("work (kT)", fontsize=7.5, color=INK, labelpad=1.5)
        _density_axes(ax)
    save(figure, path)


def _compared(plane: Landscape) -> str:
    c = plane.comparison
    if c is None:
        return "too few independent frames to compare"
    return f"JSD {c.divergence.mean:.2g}, floor {c.floor.mean:.2g} ({c.ratio:.2g} x)"


def _edges(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Cells from the lowest to the highest of the samples' outer quantiles."""
    ends = [np.quantile(s, SHOWN_SHARE) for s in samples if len(s)]
    low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (0.0, 1.0)
    margin = 0.03 * max(high - low, 1e-6)
    return np.linspace(low - margin, high + margin, BINS + 1)


def _density(
    ax: Any, values: np.ndarray, edges: np.ndarray, colour: str, name: str, *, filled: bool = False
) -> None:
    if not len(values):
        return
    counts, _ = np.histogram(values, edges)
    density = counts / (len(values) * np.diff(edges))
    ax.stairs(density, edges, color=colour, fill=filled, alpha=0.35 if filled else 1.0,
              lw=0 if filled else 1.3, label=name)  # fmt: skip


def _outside(ax: Any, values: np.ndarray, edges: np.ndarray, lost: int) -> None:
    """Say what is not drawn."""
    beyond = int(((values < edges[0]) | (values > edges[-1])).sum())
    told = [f"{beyond} beyond"] * (beyond > 0) + [f"{lost} not finite"] * (lost > 0)
    if told:
        ax.text(0.02, 0.97, ", ".join(told), transform=ax.transAxes, fontsize=6, color=FAINT,
                ha="left", va="top")  # fmt: skip


def _density_axes(ax: Any) -> None:
    ax.set_yticks([])
    ax.set_ylim(bottom=0, top=1.35 * ax.get_ylim()[1])  # room for the legend
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.legend(fontsize=6.5, frameon=False, loc="upper right", borderaxespad=0.2, labelcolor=INK)
    _plain(ax)


def _dihedral_axes(ax: Any, names: Sequence[str], *, left: bool) -> None:
    symbols = {"phi": r"$\phi$", "psi": r"$\psi$"}
    for which, name in zip("xy", names, strict=True):
        kind, _, rest = name.partition(" ")
        if which == "x" or left:
            label = f"{symbols.get(kind, kind)} {rest} (degrees)"
            getattr(ax, f"set_{which}label")(label, fontsize=7.5, color=INK, labelpad=1.5)
        getattr(ax, f"set_{which}lim")(-180, 180)
        getattr(ax, f"{which}axis").set_major_locator(MultipleLocator(90))


def _plain(ax: Any) -> None:
    ax.tick_params(labelsize=6.5, colors=INK, direction="in", length=2.5, pad=2.5)
    for spine in ax.spines.values():
        spine.set(color=FAINT, linewidth=0.7)
