"""How far two ensembles are from each other, beside how far two samples of one ensemble are.

    JSD(p, q) = 1/2 sum p ln(p/m) + 1/2 sum q ln(q/m),   m = (p + q)/2          nats, 0 to ln 2

(J. Lin, IEEE Trans. Inf. Theory 37, 145, 1991.) Histograms of few frames differ by chance alone,
and the more the fewer frames they have. So a divergence says something only beside its floor: the
divergence of two halves of the reference with as many frames. `compare` draws n frames of each side
and n others of the reference, n being the largest for which there are so many, many times.

What is drawn has to be independent: single frames that are decorrelated, or blocks of frames that
follow one another, longer than their correlation. Few independent frames fill few cells, so that
their floor is high (it may come near ln 2, where it says nothing); blocks keep the frames between,
which tell about everything that is faster than the slowest motion, and count that motion no more
often than it was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlff_cli.core.errors import DataError
from mlff_cli.physics.ensembles.free_energy import shares

DRAWS = 100
LARGEST = float(np.log(2.0))
LEAST = 2  # frames or blocks that a half needs


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
        block: frames that were drawn together.
    """

    divergence: Spread
    floor: Spread
    frames: int
    in_order: float
    block: int = 1

    @property
    def ratio(self) -> float:
        """Divergence over floor; infinite over a floor of zero, 1 where both are zero."""
        if self.floor.mean > 0:
            return self.divergence.mean / self.floor.mean
        return float("inf") if self.divergence.mean > 0 else 1.0

    @property
    def tells(self) -> bool:
        """Whether the floor leaves room: three times it is below the largest divergence, ln 2."""
        return 3.0 * self.floor.mean < LARGEST


def split_half_floor(
    reference: np.ndarray,
    n_cells: int,
    *,
    frames: int | None = None,
    block: int = 1,
    seed: int = 0,
) -> Spread:
    """JSD of two halves of a reference, drawn many times.

    Args:
        reference: (N,) cell of every frame: independent frames, or blocks one after the other.
        n_cells: cells that there are.
        frames: of each half, whole blocks; None takes half of what there is.
        block: frames that are drawn together; N is a multiple of it.
        seed: of the draws.

    Raises:
        DataError: there are too few frames.
    """
    rows = _blocks(reference, block)
    n = len(rows) // 2 if frames is None else frames // block
    _check(n, len(rows), block)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWS):
        drawn = rng.permutation(rows)
        found.append(_of_cells(drawn[:n], drawn[n : 2 * n], n_cells))
    return Spread(float(np.mean(found)), float(np.std(found)))


def compare(
    reference: np.ndarray, other: np.ndarray, n_cells: int, *, block: int = 1, seed: int = 0
) -> Comparison:
    """Two ensembles in equal numbers of frames.

    Args:
        reference: (N,) cell of every frame, in order: independent frames, or blocks.
        other: (M,) the same of the other ensemble.
        n_cells: cells that there are.
        block: frames that are drawn together; N and M are multiples of it.
        seed: of the draws.

    Raises:
        DataError: there are too few frames.
    """
    a, b = _blocks(reference, block), _blocks(other, block)
    n = min(len(a) // 2, len(b))
    _check(n, len(a), block)
    floor = split_half_floor(reference, n_cells, frames=n * block, block=block, seed=seed)
    rng = np.random.default_rng([seed, 1])
    found = [
        _of_cells(rng.choice(a, n, replace=False), rng.choice(b, n, replace=False), n_cells)
        for _ in range(DRAWS)
    ]
    return Comparison(
        Spread(float(np.mean(found)), float(np.std(found))),
        floor,
        n * block,
        _of_cells(a[:n], a[-n:], n_cells),
        block,
    )


def _blocks(cells: np.ndarray, block: int) -> np.ndarray:
    """(N / block, block)."""
    cells = np.asarray(cells)
    if block < 1 or len(cells) % block:
        raise DataError(f"{len(cells)} frames are no whole blocks of {block}")
    return np.asarray(cells.reshape(-1, block))


def _check(n: int, total: int, block: int) -> None:
    if not LEAST <= n <= total // 2:
        what = "independent frames" if block == 1 else f"blocks of {block} frames"
        raise DataError(
            f"a half needs {LEAST} to {total // 2} {what}, found {n} of {total}",
            remedy="sample longer: frames of a run count as one while they are correlated",
        )


def _of_cells(a: np.ndarray, b: np.ndarray, n_cells: int) -> float:
    a, b = (np.bincount(x.ravel(), minlength=n_cells) for x in (a, b))
    return jensen_shannon(a, b)
