"""Exact order statistics and percentiles of a stream that is too long to keep.

A float64 maps to a 64-bit integer of the same order (all bits flipped if negative, else the sign
bit set). Histograms of the leading 16 bits, then of the next 16, narrow each rank down to one bin;
once the bins are small their values are collected and sorted. One pass for a short stream, two as a
rule, four at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

COLLECT = 1 << 20  # values kept in memory at most
_LEVEL = 16  # bits decided per pass
_SIGN = np.uint64(1 << 63)

Stream = Callable[[], Iterable[np.ndarray]]


def order_key(values: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of the float64 `values` (n,)."""
    bits = np.ascontiguousarray(values, dtype="float64").view("uint64")
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def value_of(key: int) -> float:
    """The float64 whose `order_key` is `key`."""
    bits = key ^ (1 << 63) if key >> 63 else key ^ ((1 << 64) - 1)
    return float(np.array([bits], dtype="uint64").view("float64")[0])


def order_statistics(
    stream: Stream, n: int, ranks: Sequence[int], *, collect: int = COLLECT
) -> list[float]:
    """Values at the given ranks of the sorted stream.

    Args:
        stream: called once per pass; yields the same finite values in each.
        n: how many values it yields.
        ranks: positions from 0 in ascending order of value.
        collect: values that may be kept in memory.

    Returns:
        One value per rank, bit for bit as sorting would give.
    """
    inside = list(ranks)  # rank within the bin
    prefix = [0] * len(ranks)  # leading bits of the bin
    bits = 0
    size = {0: n}  # values in each bin
    while bits < 64 and sum(size.values()) > collect:
        histograms = {p: np.zeros(1 << _LEVEL, dtype="int64") for p in prefix}
        for values in stream():
            key = order_key(values)
            for p, histogram in histograms.items():
                digit = (_within(key, p, bits) >> np.uint64(48 - bits)) & np.uint64(0xFFFF)
                histogram += np.bincount(digit.astype("int64"), minlength=1 << _LEVEL)
        size = {}
        for i, p in enumerate(tuple(prefix)):
            below = np.cumsum(histograms[p])
            digit_i = int(np.searchsorted(below, inside[i], side="right"))
            inside[i] -= int(below[digit_i - 1]) if digit_i else 0
            prefix[i] = (p << _LEVEL) | digit_i
            size[prefix[i]] = int(histograms[p][digit_i])
        bits += _LEVEL
    if bits == 64:  # nothing but ties are left in the bins
        return [value_of(p) for p in prefix]
    return _collect(stream, prefix, inside, bits)


def _within(key: np.ndarray, prefix: int, bits: int) -> np.ndarray:
    """The keys whose leading `bits` are `prefix`."""
    return key[(key >> np.uint64(64 - bits)) == np.uint64(prefix)] if bits else key


def _collect(
    stream: Stream, prefix: Sequence[int], inside: Sequence[int], bits: int
) -> list[float]:
    kept: dict[int, list[np.ndarray]] = {p: [] for p in prefix}
    for values in stream():
        key = order_key(values)
        for p, parts in kept.items():
            parts.append(_within(key, p, bits))
    ordered = {p: np.concatenate(parts) for p, parts in kept.items()}
    for keys in ordered.values():
        keys.sort()
    return [value_of(int(ordered[p][i])) for p, i in zip(prefix, inside, strict=True)]


def percentiles(
    stream: Stream, n: int, q: Sequence[float], *, collect: int = COLLECT
) -> list[float]:
    """Percentiles with linear interpolation, equal to `numpy.percentile` of the whole.

    Args:
        stream: as in `order_statistics`.
        n: how many values it yields, at least one.
        q: percentages, 0 to 100.
        collect: values that may be kept in memory.

    Returns:
        One value per percentage.
    """
    position = [(n - 1) * p / 100.0 for p in q]
    lower = [int(h) for h in position]
    upper = [min(k + 1, n - 1) for k in lower]
    found = order_statistics(stream, n, [*lower, *upper], collect=collect)
    low, high = found[: len(q)], found[len(q) :]
    return [a + (h - k) * (b - a) for a, b, h, k in zip(low, high, position, lower, strict=True)]
