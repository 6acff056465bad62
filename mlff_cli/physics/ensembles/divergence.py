"""How far two ensembles are from each other, beside how far two samples of one ensemble are.

    JSD(p, q) = 1/2 sum p ln(p/m) + 1/2 sum q ln(q/m),   m = (p + q)/2          nats, 0 to ln 2

(J. Lin, IEEE Trans. Inf. Theory 37, 145, 1991.) Histograms of few frames differ by chance alone,
and the more the fewer frames they have. So a divergence says something only beside its floor: the
divergence of two halves of the reference with as many frames. `compare` draws n frames of each side
and n others of the reference, n being the largest for which there are so many, many times; the
frames have to be independent (`decorrelation`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles.free_energy import shares

DRAWS = 100
LEAST = 2  # frames that a half needs


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """JSD of two distributions, or of counts, over the same cells; nats.

    Raises:
        DataError: the shapes differ, or one of them has no frame.
    """
    if np.shape(p) != np.shape(q):
        raise DataError(f"distributions need the same cells, found {np.shape(p)} and {np.shape(q)}")
    a, b = shares(p), shares(q)
    m = 0.5 * (a + b)
    return max(0.0, 0.5 * (_relative(a, m) + _relative(b, m)))


def _relative(p: np.ndarray, m: np.ndarray) -> float:
    there = p > 0
    return float((p[there] * np.log(p[there] / m[there])).sum())


@dataclass(frozen=True)
class Spread:
    """A value that was found by drawing frames many times.

    Attributes:
        mean: over the draws.
        std: over the draws.
    """

    mean: float
    std: float


@dataclass(frozen=True)
class Comparison:
    """Two ensembles beside two halves of one.

    Attributes:
        divergence: JSD of n frames of each, nats.
        floor: JSD of n and n other frames of the reference, nats.
        frames: n.
        in_order: JSD of the first n frames of the reference and the last n, nats. Far above the
            floor where the reference itself is not sampled well.
    """

    divergence: Spread
    floor: Spread
    frames: int
    in_order: float

    @property
    def ratio(self) -> float:
        """Divergence over floor; infinite over a floor of zero, 1 where both are zero."""
        if self.floor.mean > 0:
            return self.divergence.mean / self.floor.mean
        return float("inf") if self.divergence.mean > 0 else 1.0


def split_half_floor(
    reference: np.ndarray, n_cells: int, *, frames: int | None = None, seed: int = 0
) -> Spread:
    """JSD of two halves of independent frames, drawn many times.

    Args:
        reference: (N,) cell of every frame.
        n_cells: cells that there are.
        frames: of each half; None takes N // 2.
        seed: of the draws.

    Raises:
        DataError: there are too few frames.
    """
    n = len(reference) // 2 if frames is None else frames
    _check(n, len(reference) // 2, len(reference))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWS):
        drawn = rng.permutation(reference)
        found.append(_of_cells(drawn[:n], drawn[n : 2 * n], n_cells))
    return Spread(float(np.mean(found)), float(np.std(found)))


def compare(reference: np.ndarray, other: np.ndarray, n_cells: int, *, seed: int = 0) -> Comparison:
    """Two ensembles in equal numbers of independent frames.

    Args:
        reference: (N,) cell of every frame, in order.
        other: (M,) the same of the other ensemble.
        n_cells: cells that there are.
        seed: of the draws.

    Raises:
        DataError: there are too few frames.
    """
    n = min(len(reference) // 2, len(other))
    _check(n, len(reference) // 2, len(reference))
    floor = split_half_floor(reference, n_cells, frames=n, seed=seed)
    rng = np.random.default_rng([seed, 1])
    found = [
        _of_cells(
            rng.choice(reference, n, replace=False), rng.choice(other, n, replace=False), n_cells
        )
        for _ in range(DRAWS)
    ]
    return Comparison(
        Spread(float(np.mean(found)), float(np.std(found))),
        floor,
        n,
        _of_cells(reference[:n], reference[-n:], n_cells),
    )


def _check(n: int, most: int, total: int) -> None:
    if not LEAST <= n <= most:
        raise DataError(
            f"a half needs {LEAST} to {most} independent frames, found {n} of {total}",
            remedy="sample longer: frames of a run count as one while they are correlated",
        )


def _of_cells(a: np.ndarray, b: np.ndarray, n_cells: int) -> float:
    return jensen_shannon(np.bincount(a, minlength=n_cells), np.bincount(b, minlength=n_cells))
