"""How many frames of a run make one independent frame.

    C(t) = sum_d <x_d(i) x_d(i+t)> / sum_d <x_d^2>,   x less its mean over all series
    g = 1 + 2 sum_t (1 - t/T) C(t),                    t = 1, 2, ... while C(t) > 0

g is the statistical inefficiency (J. D. Chodera, W. C. Swope, J. W. Pitera, C. Seok, K. A. Dill,
J. Chem. Theory Comput. 3, 26, 2007); a mean over T frames is as sure as one over T/g independent
ones. Columns d belong to one observable, as cosine and sine of a dihedral: its correlation is that
of their sum, which does not depend on where the angle's zero is. Several series are runs of one
ensemble: their products are pooled, weighted by how many there are of each t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from mlff_cli.core.errors import DataError

FEW = 3  # lags that count whatever the sign of C: noise must not end the sum at once


def autocorrelation(series: Sequence[np.ndarray]) -> np.ndarray:
    """C(t) for t = 0 to the longest series less one.

    Args:
        series: (T_k, d) or (T_k,) each, one or more, columns as the module says.

    Returns:
        (max T_k,) float64, C(0) = 1; 1, 0, 0, ... where nothing varies.

    Raises:
        DataError: there is no frame.
    """
    columns = [np.asarray(s, np.float64).reshape(len(s), -1) for s in series if len(s)]
    if not columns:
        raise DataError("a correlation needs frames, found none")
    mean = np.concatenate(columns).mean(axis=0)
    longest = max(map(len, columns))
    products, pairs = np.zeros(longest), np.zeros(longest)
    for x in columns:
        n = len(x)
        spectrum = rfft(x - mean, next_fast_len(2 * n, real=True), axis=0)
        power = (spectrum * spectrum.conj()).real.sum(axis=1)
        products[:n] += irfft(power, next_fast_len(2 * n, real=True))[:n]
        pairs[:n] += n - np.arange(n)
    c = products / pairs
    if c[0] <= np.finfo(float).tiny:
        return np.asarray((np.arange(longest) == 0).astype(np.float64))
    return np.asarray(c / c[0])


def statistical_inefficiency(series: Sequence[np.ndarray]) -> float:
    """G in frames, 1 or more, of one observable.

    Args:
        series: see `autocorrelation`.
    """
    c = autocorrelation(series)
    frames = len(c)
    t = np.arange(1, frames)
    below = np.flatnonzero((c[1:] <= 0) & (t > FEW))
    end = int(below[0]) if len(below) else frames - 1
    return max(1.0, float(1.0 + 2.0 * ((1.0 - t[:end] / frames) * c[1 : end + 1]).sum()))


def slowest(observables: Mapping[str, Sequence[np.ndarray]]) -> tuple[str, float]:
    """The observable with the largest g, and that g.

    Args:
        observables: by name, series as `autocorrelation` takes them.

    Raises:
        DataError: there is no observable.
    """
    if not observables:
        raise DataError("an observable is needed, found none")
    found = {name: statistical_inefficiency(series) for name, series in observables.items()}
    name = max(found, key=lambda n: found[n])
    return name, found[name]


def decorrelated(lengths: Sequence[int], g: float) -> np.ndarray:
    """Frames a distance of g apart in each series, as rows of all series laid end to end.

    Args:
        lengths: of the series.
        g: statistical inefficiency in frames.

    Returns:
        (m,) int64, ascending; the first frame of every series among them.
    """
    starts = np.cumsum([0, *lengths])
    taken = [
        start + np.floor(np.arange(0.0, n, max(g, 1.0))).astype(np.int64)
        for start, n in zip(starts, lengths, strict=False)
    ]
    return np.concatenate([np.zeros(0, np.int64), *taken])


def independent_blocks(
    lengths: Sequence[int], g: float, *, per_sample: int, samples: int
) -> np.ndarray:
    """Frames in whole blocks that are independent of one another, as rows of all series in a line.

    Args:
        lengths: of the series.
        g: statistical inefficiency in frames.
        per_sample: frames that are taken of every g.
        samples: length of a block in units of g.

    Returns:
        (m,) int64, ascending, a multiple of `per_sample * samples`; what is left at the end of a
        series makes no block.
    """
    size = per_sample * samples
    starts = np.cumsum([0, *lengths])
    taken = [np.zeros(0, np.int64)]
    for start, n in zip(starts, lengths, strict=False):
        rows = np.floor(np.arange(0.0, n, max(g, 1.0) / per_sample)).astype(np.int64)
        taken.append(start + rows[: len(rows) // size * size])
    return np.concatenate(taken)
