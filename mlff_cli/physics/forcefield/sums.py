"""Sums over rows that belong to the same atom.

For a molecule the sum is a product with a matrix of 0, 1 and -1, which runs along the batch and
adds in one order; beyond `DENSE` elements the matrix would be larger than what it sums.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

DENSE = 4_000_000  # elements: 16 MB in single precision, a molecule of 200 atoms


class SumPerAtom(nn.Module):
    """Rows added up by atom, plus those of `plus`, minus those of `minus`.

    Args:
        n_atoms: N.
        plus: (n,) atom that a row is added to.
        minus: (n,) atom that a row is taken from; None: none.
    """

    def __init__(self, n_atoms: int, plus: np.ndarray, minus: np.ndarray | None = None) -> None:
        super().__init__()
        self._n, rows = n_atoms, np.arange(len(plus))
        self._dense, self._both = n_atoms * len(plus) <= DENSE, minus is not None
        if self._dense:
            matrix = np.zeros((n_atoms, len(plus)))
            matrix[plus, rows] = 1.0
            if minus is not None:
                matrix[minus, rows] = -1.0
            self.matrix = nn.Buffer(torch.as_tensor(matrix))
            return
        self.plus = nn.Buffer(torch.as_tensor(plus))
        if minus is not None:
            self.minus = nn.Buffer(torch.as_tensor(minus))

    def forward(self, rows: Tensor) -> Tensor:
        """(N, B) of rows (n, B)."""
        if self._dense:
            return self.matrix @ rows
        total = rows.new_zeros(self._n, rows.shape[1]).index_add_(0, self.plus, rows)
        return total.index_add_(0, self.minus, rows, alpha=-1) if self._both else total
