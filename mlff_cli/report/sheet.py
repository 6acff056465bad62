"""A figure of panels under one title, written so that equal data give equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT = "#1d2733", "#8b97a5"
DPI = 170
HEAD = 0.35  # inches of the title


def sheet(
    rows: int, columns: int, size: tuple[float, float], title: str, *, margin: float = 0.3
) -> tuple[Figure, Any]:
    """A figure and its axes (rows, columns).

    Args:
        rows: of panels.
        columns: of panels.
        size: width and height of a panel, inches.
        title: above all of them.
        margin: width beside them, inches.
    """
    width, height = size[0] * columns + margin, size[1] * rows + HEAD
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.set_layout_engine(
        "constrained", rect=(0, 0, 1, 1 - HEAD / height), w_pad=0.06, h_pad=0.06
    )
    figure.text(0.012, 1 - 0.08 / height, title, fontsize=10.5, color=INK, weight="bold", va="top")
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without the software's version, which would change the bytes and nothing else."""
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
