"""The network of one message pass: x -> GELU(W x + b) -> ... -> hidden, and W hidden + b.

The last hidden layer is returned as well: the charge readouts, one per fidelity, start from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu


class PassMLP(nn.Module):
    """Layers with GELU between them, the same for every atom and fidelity.

    Args:
        n_in: size of the input.
        hidden: sizes of the hidden layers, at least one.
        n_out: size of the output.
        activate: whether the output goes through GELU too.
    """

    def __init__(self, n_in: int, hidden: Sequence[int], n_out: int, activate: bool) -> None:
        super().__init__()
        sizes = [n_in, *hidden]
        self.hidden = nn.ModuleList(
            _linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.out = _linear(sizes[-1], n_out)
        self.activate = activate

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden layer (..., hidden[-1]) and output (..., n_out) of x (..., n_in)."""
        for layer in self.hidden:
            x = gelu(layer(x))
        y = self.out(x)
        if self.activate:
            y = gelu(y)
        return x, y


def _linear(n_in: int, n_out: int) -> nn.Linear:
    layer = nn.Linear(n_in, n_out)
    with torch.no_grad():
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
