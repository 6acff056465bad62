"""Which frames are of one temperature: one rule for trajectories and coarse-grained sets.

Sorted temperatures that follow one another by `SAME` or less are one: thermostats and float32
round. Replicas of an exchange are kelvins apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAME = 0.5  # K
SHOWN = 8


@dataclass(frozen=True)
class Temperatures:
    """Temperatures that differ, and whose frames are whose.

    Attributes:
        kelvin: ascending, each the median of its frames' different values.
        group: (T,) place in `kelvin` of every frame; -1 of one without a temperature.
    """

    kelvin: tuple[float, ...]
    group: np.ndarray

    @classmethod
    def of(cls, told: np.ndarray) -> Temperatures:
        """Group frames.

        Args:
            told: (T,) K of every frame, NaN where it is not known.
        """
        known = np.isfinite(told)
        values, inverse = np.unique(told[known].astype(np.float64), return_inverse=True)
        number = np.cumsum(np.diff(values, prepend=values[:1]) > SAME)
        group = np.full(len(told), -1)
        group[known] = number[inverse] if len(values) else 0
        middle = [np.median(values[number == k]) for k in np.unique(number)]
        return cls(tuple(round(float(t), 3) for t in middle), group)

    def number(self, wanted: float) -> int | None:
        """Place in `kelvin` of a temperature: the nearest, `SAME` away at most; None for none."""
        apart = [abs(t - wanted) for t in self.kelvin]
        return int(np.argmin(apart)) if apart and min(apart) <= SAME else None

    def rows(self, wanted: float) -> np.ndarray:
        """Frames of a temperature, ascending; none where there is no such temperature."""
        k = self.number(wanted)
        found: np.ndarray = np.flatnonzero(self.group == k) if k is not None else np.zeros(0, int)
        return found

    @property
    def n_unknown(self) -> int:
        """Frames without a temperature."""
        return int((self.group < 0).sum())

    def __str__(self) -> str:
        return listed(self.kelvin)


def listed(kelvin: Sequence[float]) -> str:
    """The first of several temperatures, in words."""
    shown = ", ".join(f"{t:g}" for t in kelvin[:SHOWN])
    return shown + (f" and {len(kelvin) - SHOWN} more" if len(kelvin) > SHOWN else "")
