"""What the rules of the gate measure: rises of a noisy course, and trends of rare events.

Rise of a course y: with medians m_k of consecutive blocks of w records, the last one exact,

    rise = m_last - min_k m_k,    noise s = 1.4826 median |y_i - y_(i-1)| / sqrt 2,
    standard error of a difference of two medians = sqrt 2 * 1.2533 s / sqrt w

Differences of neighbours and not deviations from the median measure the noise, because a steady
drift is no noise. Cochran-Armitage trend of skipped batches s_i of b_i at time t_i, p = S/B:

    T = sum t_i (s_i - b_i p),   var T = p (1-p) [sum b_i t_i^2 - (sum b_i t_i)^2 / B],   z = T/sd

(P. Armitage, Biometrics 11, 375 (1955)). Skips come in bursts: var T is multiplied by their
dispersion, chi^2 per degree of freedom of blocks of records about the fitted line, where above 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ERRORS = 5.0  # standard errors from which a rise is one: the lowest of many blocks was chosen


@dataclass(frozen=True)
class Rise:
    """The end of a course against its lowest block.

    Attributes:
        lowest: median of the lowest block.
        last: median of the last block.
        error: standard error of their difference.
        at: index of the lowest block's first record.
        w: records of a block.
    """

    lowest: float
    last: float
    error: float
    at: int
    w: int

    @property
    def height(self) -> float:
        """How far the end lies above the lowest block."""
        return self.last - self.lowest

    def above(self, least: float) -> bool:
        """Whether it is more than noise and more than `least`."""
        return self.height > max(ERRORS * self.error, least)


def rise_of(y: np.ndarray, w: int) -> Rise | None:
    """The rise of a course; None when it is shorter than two blocks.

    Args:
        y: finite values (n,).
        w: records of a block.
    """
    k = len(y) // w if w else 0
    if k < 2:
        return None
    start = len(y) - k * w
    medians = np.median(y[start:].reshape(k, w), axis=1)
    lowest = int(np.argmin(medians))
    noise = 1.4826 * float(np.median(np.abs(np.diff(y)))) / math.sqrt(2)
    error = math.sqrt(2) * 1.2533 * noise / math.sqrt(w)
    return Rise(float(medians[lowest]), float(medians[-1]), error, start + lowest * w, w)


def skip_trend(
    times: np.ndarray, batches: np.ndarray, skipped: np.ndarray, block: int
) -> tuple[float, float] | None:
    """Cochran-Armitage trend; None where nothing or everything was skipped.

    Args:
        times: (n,).
        batches: at each time (n,).
        skipped: of them (n,).
        block: records that are added up to measure how far skips come in bursts.

    Returns:
        Slope of the share of skipped batches by time, and its two-sided p-value.
    """
    t, b, s = (np.asarray(v, dtype=np.float64) for v in (times, batches, skipped))
    total, p = b.sum(), s.sum() / b.sum() if b.sum() else 0.0
    spread = (b * t**2).sum() - (b * t).sum() ** 2 / total if total else 0.0
    if not 0.0 < p < 1.0 or spread <= 0.0:
        return None
    statistic = (t * (s - b * p)).sum()
    slope = statistic / spread
    mean = (b * t).sum() / total
    expected = b * np.clip(p + slope * (t - mean), 1e-6, 1 - 1e-6)
    edges = np.arange(0, len(t) - block + 1, block)
    dispersion = 1.0
    if len(edges) > 2:
        seen, right, n = (np.add.reduceat(v, edges) for v in (s, expected, b))
        chi = (seen - right) ** 2 / (right * (1 - right / n))
        dispersion = max(1.0, float(chi.sum()) / (len(edges) - 2))
    z = statistic / math.sqrt(p * (1 - p) * spread * dispersion)
    return float(slope), math.erfc(abs(z) / math.sqrt(2))


def steepest(y: np.ndarray, w: int) -> np.ndarray:
    """Least-squares slopes of all windows of w records, shape (n - w + 1,)."""
    t = np.arange(w) - (w - 1) / 2
    slopes: np.ndarray = np.convolve(y, t[::-1], mode="valid") / (t**2).sum()
    return slopes


def moving_sum(y: np.ndarray, w: int) -> np.ndarray:
    """Sums over all windows of w records, shape (n - w + 1,)."""
    total = np.concatenate(([0.0], np.cumsum(y)))
    sums: np.ndarray = total[w:] - total[:-w]
    return sums
