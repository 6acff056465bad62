"""One distribution to one term: parameters of every functional form from a histogram.

    p(q) = J(q) exp(-U(q) / kT) / Z,   U linear in its parameters: see `coarse.priors.log_linear`

harmonic   U/kT = -(c_1 z + c_2 z^2), z = (r - m)/s:   k = -2 kT c_2/s^2,   r0 = m - s c_1/(2 c_2)
fourier    U/kT = -sum_n c_n cos(n theta) + d_n sin(n theta):   a = -kT c,   b = -kT d
cosine     U/kT = -sum_n c_n cos(n phi) + d_n sin(n phi):   k = kT |(c, d)|, gamma = atan2(-d, -c)
spline     U/kT = -sum_i c_i B_i(q), cubic B-splines with a penalty on third differences of c,
           which leaves a parabola, a Gaussian density, where the data say nothing

The order of a series is the one that minimises -L/n + (parameters) max(ln n / 2n, `GAIN`): BIC, and
no order that earns less than `GAIN` nats per sample and parameter, because frames are correlated
and n is not their number. The penalty of a spline minimises BIC with its effective parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter1d

from mlff_cli.coarse.priors.distributions import Histogram
from mlff_cli.coarse.priors.log_linear import Fit, log_linear
from mlff_cli.data.beads.prior_forms import Cosine, Fourier, Harmonic, PeriodicSpline, Spline

MAX_ORDER = {"angle": 4, "dihedral": 6}
GAIN = 1e-4
BINS = 360  # of a fit; series are smooth on a degree
PSEUDO = 0.1  # samples spread as J alone would spread them: no energy is infinite
ROUGHNESS = 1e-6  # penalty on n^4 c_n^2, for the parts of a series that no data determine
NARROWEST = {"A": 0.005, "radian": 0.02}  # spread; what constraints hold has none of its own
SEGMENTS = 36  # of a spline
PENALTIES = 10.0 ** np.arange(6.0, -2.1, -0.5)
TAIL = 1e-4  # share of the samples outside the sampled range, on either side
FEW = 10  # or so many samples,
MOST = 0.01  # up to this share


@dataclass(frozen=True)
class Range:
    """Where a distribution was sampled: from `low` to `high`; `spread` is the deviation."""

    low: float
    high: float
    mean: float
    spread: float


def sampled_range(histogram: Histogram) -> Range:
    """The range that leaves `TAIL` of the samples, and some `FEW`, outside on either side."""
    q = min(max(TAIL, FEW / histogram.n), MOST)
    x, n = histogram.kind.centres, histogram.counts / histogram.counts.sum()
    mean = float(n @ x)
    spread = float(np.sqrt(n @ (x - mean) ** 2))
    if histogram.kind.periodic:  # on a circle: of the normal density with the same resultant
        resultant = min(abs(complex(n @ np.exp(1j * x))), 1.0)
        spread = float(np.sqrt(-2.0 * np.log(max(resultant, 1e-12))))
    return Range(histogram.quantile(q), histogram.quantile(1.0 - q), mean, spread)


def widened(histogram: Histogram) -> Histogram:
    """The histogram, blurred to the spread `NARROWEST` where it is narrower than that."""
    kind = histogram.kind
    span = sampled_range(histogram)
    lacking = NARROWEST[kind.unit] ** 2 - span.spread**2
    if lacking <= 0.0:
        return histogram
    width = np.sqrt(lacking) * kind.n_bins / (kind.high - kind.low)  # bins
    mode = "wrap" if kind.periodic else "constant"
    counts = gaussian_filter1d(histogram.counts.astype(np.float64), width, mode=mode)
    return Histogram(kind, histogram.types, counts, histogram.beyond)


def fit_harmonic(histogram: Histogram, kt: float) -> Harmonic:
    """Maximum likelihood of k and r0, the Jacobian r^2 included.

    Lengths of several kinds together may be spread as no spring spreads them, so that the best one
    would rest where no bond is: it is then the spring of their mean and variance.
    """
    histogram = widened(histogram)
    span = sampled_range(histogram)
    s = span.spread
    edges, counts = _window(histogram, 6.0 * s, 1200)
    z = (0.5 * (edges[1:] + edges[:-1]) - span.mean) / s
    measure = np.diff(histogram.kind.moment(edges))
    width = (edges[1] - edges[0]) / s
    fit = log_linear(counts, measure, np.stack([z, z**2], 1), start=np.array([0.0, -0.5]))
    c, d = fit.c
    r0 = span.mean - s * c / (2.0 * d) if d < 0.0 else np.inf
    if not span.low <= r0 <= span.high:
        return Harmonic(kt / s**2, span.mean)
    # counting in bins adds width^2/12 to the variance (Sheppard)
    variance = s**2 * (-0.5 / d - width**2 / 12.0)
    return Harmonic(kt / variance, r0)


def fit_fourier(histogram: Histogram, kt: float) -> Fourier:
    """Fourier series of an angle; see the module for its order."""
    c, d = _series(histogram, MAX_ORDER["angle"])
    return Fourier(tuple(-kt * c), tuple(-kt * d))


def fit_cosine(histogram: Histogram, kt: float) -> Cosine:
    """Periodic torsion of a dihedral; see the module for its order."""
    c, d = _series(histogram, MAX_ORDER["dihedral"])
    return Cosine(tuple(kt * np.hypot(c, d)), tuple(np.arctan2(-d, -c)))


def fit_spline(histogram: Histogram, kt: float, low: float, high: float) -> Spline:
    """Cubic spline between `low` and `high`; beyond them it never falls outwards.

    The lowest value is 0.
    """
    edges, counts = _window(widened(histogram), 0.0, BINS)
    first, last = edges[0], edges[-1]
    step = (last - first) / SEGMENTS
    knots = first + step * np.arange(-3, SEGMENTS + 4)
    fit = _smooth(
        counts,
        np.diff(histogram.kind.moment(edges)),
        BSpline.design_matrix(0.5 * (edges[1:] + edges[:-1]), knots, 3).toarray(),
        np.diff(np.eye(SEGMENTS + 3), 3, axis=0),
    )
    curve = BSpline(knots, -kt * fit.c, 3)
    at = np.linspace(low, high, SEGMENTS + 1)
    values = curve(at)
    slopes = float(curve(low, 1)), float(curve(high, 1))
    return Spline(
        low, high, tuple(values - values.min()), slopes=(min(slopes[0], 0.0), max(slopes[1], 0.0))
    )


def fit_periodic_spline(histogram: Histogram, kt: float) -> PeriodicSpline:
    """Cubic spline of period 2 pi; the lowest value is 0."""
    edges, counts = widened(histogram).coarse(BINS, -np.pi, np.pi)
    m = SEGMENTS
    step = 2.0 * np.pi / m
    knots = -np.pi + step * np.arange(-3, m + 4)
    b = BSpline.design_matrix(0.5 * (edges[1:] + edges[:-1]), knots, 3).toarray()
    wrapped = b[:, :m].copy()
    wrapped[:, :3] += b[:, m:]  # the last three functions are the first three again
    counts = counts + PSEUDO / len(counts)
    fit = _smooth(counts, np.diff(edges), wrapped, _differences_of_a_ring(m))
    c = np.concatenate([fit.c, fit.c[:3]])
    values = BSpline(knots, -kt * c, 3)(-np.pi + step * np.arange(m))
    return PeriodicSpline(tuple(values - values.min()))


def _series(histogram: Histogram, orders: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients c, d (N,) of cosines and sines of ln p/J, of the order that the data carry."""
    kind = histogram.kind
    edges, counts = widened(histogram).coarse(BINS, kind.low, kind.high)
    measure = np.diff(kind.moment(edges))
    q = 0.5 * (edges[1:] + edges[:-1])
    samples = float(counts.sum())
    counts = counts + PSEUDO * measure / measure.sum()
    best: tuple[float, np.ndarray] | None = None
    for order in range(1, orders + 1):
        n = np.arange(1, order + 1)
        x = np.concatenate([np.cos(np.outer(q, n)), np.sin(np.outer(q, n))], 1)
        fit = log_linear(counts, measure, x, np.diag(ROUGHNESS * np.tile(n, 2) ** 4.0))
        price = 2 * order * max(0.5 * np.log(samples) / samples, GAIN)
        cost = price - fit.likelihood / samples
        if best is None or cost < best[0]:
            best = cost, fit.c
    assert best is not None
    c, d = np.split(best[1], 2)
    return c, d


def _smooth(counts: np.ndarray, measure: np.ndarray, b: np.ndarray, differences: np.ndarray) -> Fit:
    """Penalised fit; the penalty with the least BIC."""
    square = differences.T @ differences
    price = np.log(counts.sum())
    start, best = np.zeros(b.shape[1]), None
    for penalty in PENALTIES:
        fit = log_linear(counts, measure, b, penalty * square, start)
        start = fit.c
        cost = price * fit.freedom - 2.0 * fit.likelihood
        if best is None or cost < best[0]:
            best = cost, fit
    assert best is not None
    return best[1]


def _differences_of_a_ring(m: int) -> np.ndarray:
    """(m, m) third differences of values on a ring."""
    one: Callable[[np.ndarray], np.ndarray] = lambda a: np.roll(a, -1, axis=0) - a  # noqa: E731
    ring: np.ndarray = one(one(one(np.eye(m))))
    return ring


def _window(histogram: Histogram, margin: float, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges and counts of about `bins` bins from the first count to the last, and a margin."""
    found = np.flatnonzero(histogram.counts)
    edges = histogram.kind.edges
    low = max(edges[found[0]] - margin, histogram.kind.low)
    high = min(edges[found[-1] + 1] + margin, histogram.kind.high)
    return histogram.coarse(bins, low, high)
