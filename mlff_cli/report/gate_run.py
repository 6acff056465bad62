"""A gate log as arrays over its epochs, and the parts and windows that rules speak of.

Lengths are those of a run of 1500 epochs and scale with the run:

    share of the run s(e) = (e - e_0 + 1) / total          [early <= 0.07 < middle <= 0.67 < late]
    window of k epochs    = max(20, k / 1500 * n) records  [n: records that the whole run has]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlff_cli.data.gate_log import DIRECTIONS, Direction, EpochRecord

REFERENCE_EPOCHS = 1500  # of the run that the windows were stated for
SMALLEST_WINDOW = 20  # records
LARGEST = 1e100  # of any number: a diverging run writes what a float64 just holds
EPOCH_100, EPOCH_500, LATE = 0.07, 1 / 3, 0.67  # shares of the run

Name = Literal["fwd", "inv"]


@dataclass(frozen=True)
class GateRun:
    """A run's epochs.

    Attributes:
        name: what it is called in tables and figures.
        records: one per epoch, in order; at least one.
        planned: epochs the run was to have, where it is not finished.
    """

    name: str
    records: Sequence[EpochRecord]
    planned: int | None = None

    @property
    def epochs(self) -> np.ndarray:
        """Which epoch, shape (n,)."""
        return np.array([r.epoch for r in self.records])

    @property
    def share(self) -> np.ndarray:
        """Share of the run that is done after each record, shape (n,)."""
        done = self.epochs - self.epochs[0] + 1
        shares: np.ndarray = done / max(float(done[-1]), float(self.planned or 0))
        return shares

    def after(self, share: float) -> np.ndarray:
        """Records after a share of the run, as a mask of shape (n,)."""
        mask: np.ndarray = self.share > share + 1e-9
        return mask

    def window(self, epochs: int) -> int:
        """Records of a window.

        Args:
            epochs: of a run of 1500.
        """
        n = len(self.records) / float(self.share[-1])  # records that the whole run will have
        return max(SMALLEST_WINDOW, round(epochs / REFERENCE_EPOCHS * n))

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys that no record holds; `q50` stands for `fwd.q50` and `inv.q50`."""
        own = EpochRecord.__dataclass_fields__
        names = [
            name for k in keys for name in ([k] if k in own else [f"{d}.{k}" for d in DIRECTIONS])
        ]
        return [k for k in names if all(k in r.missing for r in self.records)]

    def values(self, value: Callable[[EpochRecord], float | None]) -> np.ndarray:
        """A number over the run, shape (n,): NaN where it is absent.

        Beyond +-LARGEST it is that: differences, sums and squares of it are numbers still.
        """
        found = (value(r) for r in self.records)
        numbers = np.array([math.nan if v is None else float(v) for v in found])
        bounded: np.ndarray = np.where(
            np.isfinite(numbers), np.clip(numbers, -LARGEST, LARGEST), numbers
        )
        return bounded

    def of(self, direction: Name, value: Callable[[Direction], float | None]) -> np.ndarray:
        """A number of a direction over the run, shape (n,)."""
        return self.values(lambda r: value(r.fwd if direction == "fwd" else r.inv))

    def both(self, value: Callable[[Direction], float | None]) -> np.ndarray:
        """The sum of a number over both directions, shape (n,)."""
        total: np.ndarray = self.of("fwd", value) + self.of("inv", value)
        return total

    @property
    def stopped(self) -> np.ndarray:
        """Epochs all of whose batches were skipped, mask of shape (n,)."""
        batches, skipped = self.values(lambda r: r.batches), self.values(lambda r: r.skipped)
        mask: np.ndarray = (batches > 0) & (skipped == batches)
        return mask

    @property
    def warming(self) -> np.ndarray:
        """Epochs in which the learning rate still warms up, mask of shape (n,).

        Where the log does not say, the first 7 % are taken for it.
        """
        if self.missing(["warmup"]):
            return ~self.after(EPOCH_100)
        return np.array([_warming(r) for r in self.records])

    @property
    def falling(self) -> np.ndarray:
        """Epochs in which E_max falls to its final value, mask of shape (n,)."""
        limit = self.values(lambda r: r.E_max)
        known = limit[np.isfinite(limit)]
        if not len(known):
            return np.zeros(len(limit), dtype=bool)
        mask: np.ndarray = (limit < known.max() * (1 - 1e-9)) & (limit > known.min() * (1 + 1e-9))
        return mask

    @property
    def strict(self) -> np.ndarray:
        """Epochs with the lowest E_max, mask of shape (n,); all of them where none is logged."""
        limit = self.values(lambda r: r.E_max)
        if not np.isfinite(limit).any():
            return np.ones(len(limit), dtype=bool)
        mask: np.ndarray = limit <= np.nanmin(limit) * (1 + 1e-9)
        return mask


def _warming(record: EpochRecord) -> bool:
    if isinstance(record.warmup, bool) or record.warmup is None:
        return bool(record.warmup)
    return record.epoch <= record.warmup


def longest(mask: np.ndarray) -> tuple[int, int]:
    """Length and start of the longest row of true values.

    >>> longest(np.array([True, False, True, True]))
    (2, 2)
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(int), [0]))))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    i = int(np.argmax(ends - starts))
    return int(ends[i] - starts[i]), int(starts[i])
