"""How far predictions are from labels.

MAE  = mean |p - r|
RMSE = sqrt(mean (p - r)^2)
R2   = 1 - sum (p - r)^2 / sum (r - mean r)^2
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Errors:
    """Errors of n values; `r2` is None where the labels do not vary."""

    n: int
    mae: float
    rmse: float
    bias: float
    largest: float
    r2: float | None

    @classmethod
    def of(cls, reference: np.ndarray, predicted: np.ndarray) -> Errors:
        """Errors of `predicted` against `reference`, arrays of one shape with at least one value.

        Raises:
            ValueError: the shapes differ, or the arrays are empty.
        """
        r = np.asarray(reference, dtype=np.float64).ravel()
        p = np.asarray(predicted, dtype=np.float64).ravel()
        if r.shape != p.shape or not r.size:
            raise ValueError(f"two arrays of one size above 0 are needed, found {r.size}, {p.size}")
        difference = p - r
        squares = float((difference**2).sum())
        spread = float(((r - r.mean()) ** 2).sum())
        return cls(
            n=int(r.size),
            mae=float(np.abs(difference).mean()),
            rmse=float(np.sqrt(squares / r.size)),
            bias=float(difference.mean()),
            largest=float(np.abs(difference).max()),
            r2=1.0 - squares / spread if spread > 0.0 else None,
        )
