"""The network of one message pass: x -> GELU(W x + b) -> ... -> hidden, and W hidden + b.

x comes in parts, W x = sum_p W_p x_p: they are never put together, and a part that does not depend
on the coordinates, as the first pass's embedding, is left out where forces are computed.

The last hidden layer is returned as well: the charge readouts, one per fidelity, start from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear


class LinearOfParts(nn.Linear):
    """y = sum_p W_p x_p + b, the columns of W divided as the parts of x are."""

    def forward(self, parts: list[Tensor]) -> Tensor:  # type: ignore[override]
        """The image (B, N, n_out) of parts (B, N, k_p), n_in numbers together."""
        b, n, _ = parts[0].shape
        columns = self.weight.split_with_sizes([part.shape[2] for part in parts], dim=1)
        y = linear(parts[0].flatten(0, 1), columns[0], self.bias)  # [(b, i), out]
        for part, w in zip(parts[1:], columns[1:]):  # noqa: B905 (TorchScript knows no strict=)
            y = torch.addmm(y, part.flatten(0, 1), w.t())
        return y.view(b, n, -1)


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
            _initialised(LinearOfParts(a, b)) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.out = _initialised(nn.Linear(sizes[-1], n_out))
        self.activate = activate

    def forward(self, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Last hidden layer (B, N, hidden[-1]) and output (B, N, n_out).

        Args:
            parts: x_p (B, N, k_p), n_in numbers together.
        """
        for layer in self.hidden:
            parts = [gelu(layer(parts))]
        y = self.out(parts[0])
        if self.activate:
            y = gelu(y)
        return parts[0], y


def _initialised(layer: nn.Linear) -> nn.Linear:
    with torch.no_grad():
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
