"""Cells that values of collective variables fall into: one axis, or a grid of several.

Every value falls into a cell. A periodic axis wraps; on any other, what lies outside falls into the
outermost cells, so that two ensembles are compared with all of their frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import DataError

MARGIN = 0.05  # of the range of the samples, left free at both ends
LEAST = 1e-6  # width of an axis of a value that does not vary


@dataclass(frozen=True)
class Axis:
    """Equal cells from `low` to `high`.

    Attributes:
        low: where the first begins.
        high: where the last ends.
        bins: how many.
        periodic: whether high is low again.

    Raises:
        DataError: no cells, or an empty range.
    """

    low: float
    high: float
    bins: int
    periodic: bool = False

    def __post_init__(self) -> None:
        if self.bins < 1 or not self.high > self.low:
            raise DataError(
                f"an axis needs cells and a range, found {self.bins} from {self.low} to {self.high}"
            )

    @classmethod
    def of(cls, values: np.ndarray, bins: int) -> Axis:
        """An axis over the range of samples, with a margin.

        Raises:
            DataError: there are no samples, or one is not finite.
        """
        if not np.size(values) or not np.isfinite(values).all():
            raise DataError(f"an axis needs finite values, found {np.size(values)} values")
        low, high = float(np.min(values)), float(np.max(values))
        margin = max(MARGIN * (high - low), LEAST)
        return cls(low - margin, high + margin, bins)

    @property
    def edges(self) -> np.ndarray:
        """(bins + 1,) borders of the cells."""
        return np.linspace(self.low, self.high, self.bins + 1)

    @property
    def centres(self) -> np.ndarray:
        """(bins,) middles of the cells."""
        edges = self.edges
        middle: np.ndarray = 0.5 * (edges[1:] + edges[:-1])
        return middle

    def cells(self, values: np.ndarray) -> np.ndarray:
        """Cell of every value, of the same shape, int64."""
        place = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        if self.periodic:
            place = place - np.floor(place)
        # cut before the cast, which would turn what is too large for it into anything
        found = np.clip(place * self.bins, 0, self.bins - 1).astype(np.int64)
        return np.asarray(found)


def circle(bins: int) -> Axis:
    """The axis of a dihedral in radian, -pi to pi."""
    return Axis(-np.pi, np.pi, bins, periodic=True)


def grid_cells(values: Sequence[np.ndarray], axes: Sequence[Axis]) -> np.ndarray:
    """Cell (T,) of a grid, the last axis running fastest.

    Args:
        values: of each axis, (T,).
        axes: one or more.
    """
    shape = tuple(axis.bins for axis in axes)
    each = tuple(axis.cells(v) for axis, v in zip(axes, values, strict=True))
    return np.asarray(np.ravel_multi_index(each, shape))


def counted(cells: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """Frames in every cell of a grid: float64 of shape (bins of the axes)."""
    shape = tuple(axis.bins for axis in axes)
    total = int(np.prod(shape))
    return np.bincount(cells, minlength=total).astype(np.float64).reshape(shape)
