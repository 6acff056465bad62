"""Self-atomic energies: energy fitted by composition, outliers left out, fitted again.

    c1 = argmin |E - X^T c|^2                            all molecules
    r  = E - X^T c1;  keep lo <= r <= hi                 lo, hi: percentiles of r
    c  = c1 + argmin |r - X^T d|^2                       kept molecules

The second fit works on residuals of some eV instead of energies of some 1e4 eV: that is also a step
of iterative refinement, and makes up for the squared condition number of normal equations. An
element whose energy the dropped molecules alone determine keeps all of its molecules.

Every pass is a function of one block, and a sum of what it gives in the order of the blocks: who
calculates them does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from mlff_cli.core.elements import MAX_Z
from mlff_cli.data.compositions import Block
from mlff_cli.data.least_squares import Ambiguity, NormalEquations, solve
from mlff_cli.data.order_statistics import percentiles

T = TypeVar("T")
Bounds = tuple[float, float] | None


class Passes(Protocol):
    """Goes through the same blocks each time."""

    def __call__(self, description: str, look: Callable[[Block], T]) -> Iterable[T]:
        """What `look`, which can be pickled, gives for every block, in their order."""


@dataclass(frozen=True)
class SAEFit:
    """Self-atomic energies and how well they are known.

    Attributes:
        sae: {Z: eV}.
        uncertainty: {Z: eV}, one standard deviation; None where the data do not determine it.
        rmse: {Z: eV}, of the kept molecules that hold the element.
        molecules: {Z: kept molecules that hold the element}.
        atoms: {Z: atoms in kept molecules}.
        n: molecules given.
        n_kept: molecules in the second fit.
        bounds: residuals kept, (lo, hi) in eV; None when nothing was to be dropped.
        protected: elements whose molecules were kept whatever their residual.
        n_protected: molecules outside the bounds that were kept for them.
        rmse_kept: of the residual of kept molecules, eV.
        rmse_all: of the residual of all molecules, eV.
        rank: rank of the second fit.
        ambiguities: elements that cannot be told apart.
    """

    sae: dict[int, float]
    uncertainty: dict[int, float | None]
    rmse: dict[int, float]
    molecules: dict[int, int]
    atoms: dict[int, int]
    n: int
    n_kept: int
    bounds: tuple[float, float] | None
    protected: frozenset[int]
    n_protected: int
    rmse_kept: float
    rmse_all: float
    rank: int
    ambiguities: tuple[Ambiguity, ...]


def sums(block: Block) -> NormalEquations:
    """Normal equations of the energies of a block."""
    equations = NormalEquations()
    equations.add(block, block.energy)
    return equations


def merged(parts: Iterable[NormalEquations]) -> NormalEquations:
    """Normal equations of all blocks."""
    total = NormalEquations()
    for part in parts:
        total.merge(part)
    return total


def residual(block: Block, c: np.ndarray) -> np.ndarray:
    """E - X^T c (n,) in eV, for c (119,) in eV."""
    r: np.ndarray = block.energy - np.einsum("kn,k->n", block.counts, c[block.elements])
    return r


def lacking(part: NormalEquations, whole: NormalEquations) -> frozenset[int]:
    """Elements to add to a part of the molecules, so that it determines what the whole determines.

    Elements absent from the part; else, of each set of elements that the part confuses more than
    the whole does, the one in fewest molecules. Empty when the part is as good as the whole.
    """
    absent = np.setdiff1d(whole.elements, part.elements)
    if absent.size:
        return frozenset(int(z) for z in absent)
    full, now = solve(whole), solve(part)
    if now.rank == full.rank:
        return frozenset()
    known = {a.elements: a.dimension for a in full.ambiguities}
    new = [a for a in now.ambiguities if known.get(a.elements) != a.dimension]
    rarer = [
        [z for z in a.elements if part.molecules[z] < whole.molecules[z]] for a in new
    ]  # an element that has all its molecules already cannot gain
    return frozenset(min(zs, key=lambda z: (part.molecules[z], z)) for zs in rarer if zs)


def fit(passes: Passes, cut: tuple[float, float] = (2.0, 98.0)) -> SAEFit:
    """Fit self-atomic energies on a stream that can be repeated.

    Args:
        passes: goes through the blocks, called once per pass with a description of the pass.
        cut: percentiles of the residual between which molecules are kept, 0 and 100 keep all.

    Returns:
        The fit. At least one molecule must be in the stream.
    """
    whole = merged(passes("fit", sums))
    c1 = solve(whole).values
    bounds = _bounds(passes, c1, whole.n, cut)
    protected: frozenset[int] = frozenset()
    while True:
        look = partial(_kept_sums, c=c1, bounds=bounds, protected=protected)
        kept = merged(passes("fit without outliers", look))
        more = lacking(kept, whole) - protected
        if not more:
            break
        protected |= more
    solution = solve(kept)
    c = c1 + solution.values
    errors = _Errors()
    for part in passes("errors", partial(_errors, c=c, c1=c1, bounds=bounds, protected=protected)):
        errors.merge(part)
    freedom = kept.n - solution.rank
    s = float(np.sqrt(errors.kept / freedom)) if freedom > 0 else np.nan  # eV
    uncertainty = solution.spread * s
    elements = [int(z) for z in kept.elements]
    return SAEFit(
        sae={z: float(c[z]) for z in elements},
        uncertainty={
            z: float(uncertainty[z]) if np.isfinite(uncertainty[z]) else None for z in elements
        },
        rmse={z: float(np.sqrt(errors.by_element[z] / kept.molecules[z])) for z in elements},
        molecules={z: int(kept.molecules[z]) for z in elements},
        atoms={z: int(kept.atoms[z]) for z in elements},
        n=whole.n,
        n_kept=kept.n,
        bounds=bounds,
        protected=protected,
        n_protected=errors.n_protected,
        rmse_kept=float(np.sqrt(errors.kept / kept.n)),
        rmse_all=float(np.sqrt(errors.all / whole.n)),
        rank=solution.rank,
        ambiguities=solution.ambiguities,
    )


def _bounds(passes: Passes, c: np.ndarray, n: int, cut: tuple[float, float]) -> Bounds:
    if cut == (0.0, 100.0):
        return None
    low, high = percentiles(lambda: passes("residuals", partial(residual, c=c)), n, cut)
    return low, high


def _kept(
    block: Block,
    y: np.ndarray,
    bounds: Bounds,
    protected: frozenset[int],
) -> np.ndarray:
    """Mask (n,) of the molecules of the second fit, y (n,) their first residuals."""
    if bounds is None:
        return np.ones(len(y), dtype=bool)
    mask = (y >= bounds[0]) & (y <= bounds[1])
    return mask | block.holds(protected) if protected else mask


def _kept_sums(
    block: Block, c: np.ndarray, bounds: Bounds, protected: frozenset[int]
) -> NormalEquations:
    """Normal equations of the residuals of the kept molecules of a block."""
    equations = NormalEquations()
    y = residual(block, c)
    mask = _kept(block, y, bounds, protected)
    equations.add(block.take(mask), y[mask])
    return equations


@dataclass
class _Errors:
    """Sums of squared residuals in eV^2."""

    by_element: np.ndarray = field(default_factory=lambda: np.zeros(MAX_Z + 1))
    kept: float = 0.0
    all: float = 0.0
    n_protected: int = 0

    def merge(self, other: _Errors) -> None:
        self.by_element += other.by_element
        self.kept += other.kept
        self.all += other.all
        self.n_protected += other.n_protected


def _errors(
    block: Block, c: np.ndarray, c1: np.ndarray, bounds: Bounds, protected: frozenset[int]
) -> _Errors:
    y = residual(block, c1)
    mask = _kept(block, y, bounds, protected)
    square = residual(block, c) ** 2  # (n,) eV^2
    by_element = np.zeros(MAX_Z + 1)
    by_element[block.elements] = np.einsum("kn,n->k", block.counts > 0, np.where(mask, square, 0.0))
    return _Errors(
        by_element,
        kept=float(square[mask].sum()),
        all=float(square.sum()),
        n_protected=int(np.count_nonzero(mask & ~_kept(block, y, bounds, frozenset()))),
    )
