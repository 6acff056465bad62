"""Readouts, one per fidelity, stacked along the first axis of their parameters.

A batch mixes fidelities: each molecule takes the weights of its own, sum_r s_br W_r with s (B, R)
one-hot, and one batched product serves them all. Parameters of fidelities absent from a batch take
part with a zero gradient, so that every step sees every parameter (optimizers and DDP rely on it).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear


class StackedLinear(nn.Module):
    """R linear maps; each molecule is sent through its own.

    Args:
        n_readouts: R.
        n_in: size of the input.
        n_out: size of the output.

    All R start equal: what one fidelity learns is the best guess for another.
    """

    def __init__(self, n_readouts: int, n_in: int, n_out: int) -> None:
        super().__init__()
        weight = torch.empty(n_out, n_in)
        nn.init.xavier_normal_(weight)
        self.weight = nn.Parameter(weight.repeat(n_readouts, 1, 1))  # [r, out, in]
        self.bias = nn.Parameter(torch.zeros(n_readouts, n_out))  # [r, out]

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Each molecule's W x + b.

        Args:
            x: (B, N, n_in).
            s: (B, R) one-hot, the readout of each molecule.

        Returns:
            (B, N, n_out).
        """
        if self.weight.shape[0] == 1:
            return linear(x, self.weight[0], self.bias[0])
        # a product with one-hot rows: exact, and its gradient is a product instead of a scatter
        weight = (s @ self.weight.flatten(1)).view(-1, self.weight.shape[1], self.weight.shape[2])
        return torch.baddbmm((s @ self.bias).unsqueeze(1), x, weight.transpose(1, 2))


class EnergyMLP(nn.Module):
    """Atomic energies from atomic features: linear maps with GELU between them.

    Args:
        n_readouts: R.
        n_in: size of the features.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, n_readouts: int, n_in: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [n_in, *hidden]
        self.hidden = nn.ModuleList(
            StackedLinear(n_readouts, a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.out = StackedLinear(n_readouts, sizes[-1], 1)

    def forward(self, aim: Tensor, s: Tensor) -> Tensor:
        """Atomic energies (B, N) eV from features (B, N, n_in), readouts one-hot (B, R)."""
        for layer in self.hidden:
            aim = gelu(layer(aim, s))
        e: Tensor = self.out(aim, s)  # [b, i, 1]
        return e.squeeze(-1)


class AtomicShift(nn.Module):
    """One energy per element and readout, zero at the start.

    Args:
        n_readouts: R.
        n_rows: rows of one readout's block, its row 0 for padding.
    """

    def __init__(self, n_readouts: int, n_rows: int) -> None:
        super().__init__()
        self.n_rows = n_rows
        self.shifts = nn.Embedding(n_readouts * n_rows, 1, padding_idx=0)
        nn.init.zeros_(self.shifts.weight)

    def forward(self, z: Tensor, s: Tensor) -> Tensor:
        """Shifts (B, N) eV of atomic numbers z (B, N), 0 = padding, readouts one-hot (B, R)."""
        row = torch.where(z > 0, z + self.n_rows * s.argmax(dim=1).unsqueeze(-1), 0)
        shift: Tensor = self.shifts(row)  # [b, i, 1]
        return shift.squeeze(-1)


class Outputs(nn.Module):
    """Everything that turns the last features into atomic energies.

    Args:
        n_readouts: R.
        n_in: size of the features.
        hidden: sizes of the energy network's hidden layers.
        n_rows: elements per fidelity, padding included.
    """

    def __init__(self, n_readouts: int, n_in: int, hidden: Sequence[int], n_rows: int) -> None:
        super().__init__()
        self.energy_mlp = EnergyMLP(n_readouts, n_in, hidden)
        self.atomic_shift = AtomicShift(n_readouts, n_rows)

    def forward(self, aim: Tensor, z: Tensor, s: Tensor) -> Tensor:
        """Atomic energies (B, N) eV, zero for padding.

        Args:
            aim: (B, N, n_in).
            z: (B, N) atomic numbers, 0 = padding.
            s: (B, R) one-hot, the readout of each molecule.
        """
        e: Tensor = self.energy_mlp(aim, s) + self.atomic_shift(z, s)
        return e.masked_fill(z == 0, 0.0)
