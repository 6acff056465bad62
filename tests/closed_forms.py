"""Learning rate schedules as formulas, written without ignite and torch.

s counts ticks of a schedule from 0: iterations, or epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def cosine(s: float, start: float, end: float, size: float) -> float:
    """Half a cosine wave from start to end; periodic and even beyond."""
    return (start + end) / 2 + (start - end) / 2 * math.cos(math.pi * s / size)


def line(s: float, start: float, end: float, size: float) -> float:
    """A straight line from start to end, level afterwards."""
    return start + (end - start) * min(s / size, 1.0)


def cycle(s: int, size: int, factor: float = 1.0) -> tuple[int, int, int]:
    """Index of the cycle that s is in, position in it, its length; cycles grow by a factor."""
    k = 0
    while s >= size:
        s, k, size = s - size, k + 1, int(size * factor)
    return k, s, size


def triangle(s: float, outside: float, middle: float, size: float) -> float:
    """From `outside` to `middle` and back, once per `size`."""
    return middle + (outside - middle) * abs(2 * ((s / size) % 1.0) - 1)


def polygon(s: float, points: Sequence[tuple[float, float]]) -> float:
    """Straight lines between points, level outside."""
    if s <= points[0][0]:
        return points[0][1]
    for (a, u), (b, v) in zip(points, points[1:], strict=False):
        if s < b:
            return u + (v - u) * (s - a) / (b - a)
    return points[-1][1]


def one_cycle(
    s: int, top: float, total: int, up: float = 0.3, div: float = 25.0, final: float = 1e4
) -> float:
    """Up from top / div in the share `up` of the run, down to top / div / final, both by cosine."""
    peak = up * total - 1
    if s <= peak:
        return cosine(s, top / div, top, peak)
    return cosine(s - peak, top, top / div / final, total - 1 - peak)


def plateau(
    metric: Sequence[float], start: float, factor: float, patience: int, threshold: float = 1e-4
) -> list[float]:
    """Learning rate after every validation: reduced when more than `patience` brought no better."""
    rates, best, waited = [start], math.inf, 0
    for value in metric:
        better = value < best * (1 - threshold)
        best, waited = (value, 0) if better else (best, waited + 1)
        reduce = waited > patience
        rates.append(rates[-1] * factor if reduce else rates[-1])
        waited = 0 if reduce else waited
    return rates


def warm(s: int, steps: int) -> float:
    """Linear warm-up."""
    return min(1.0, (s + 1) / steps) if steps else 1.0
