"""Readouts, one per fidelity, stacked along the first axis of their parameters.

A batch mixes fidelities: each molecule gathers the weights of its own, W[k] with k (B,), and one
batched product serves them all. Parameters of fidelities absent from a batch take part with a
zero gradient, so that every step sees every parameter (which optimizers and DDP rely on).
"""

from __future__ import annotations

from typing import Sequence

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

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        """W[k] x + b[k].

        Args:
            x: (B, N, n_in).
            k: (B,) readout of each molecule.

        Returns:
            (B, N, n_out).
        """
        if self.weight.shape[0] == 1:
            return linear(x, self.weight[0], self.bias[0])
        weight = self.weight.index_select(0, k)  # [b, out, in]
        bias = self.bias.index_select(0, k).unsqueeze(1)  # [b, 1, out]
        return torch.baddbmm(bias, x, weight.transpose(1, 2))


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

    def forward(self, aim: Tensor, k: Tensor) -> Tensor:
        """Atomic energies (B, N) eV from features (B, N, n_in), readout k (B,)."""
        for layer in self.hidden:
            aim = gelu(layer(aim, k))
        return self.out(aim, k).squeeze(-1)


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

    def forward(self, z: Tensor, k: Tensor) -> Tensor:
        """Shifts (B, N) eV of atomic numbers z (B, N), 0 = padding, readout k (B,)."""
        row = torch.where(z > 0, z + self.n_rows * k.unsqueeze(-1), 0)
        return self.shifts(row).squeeze(-1)


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

    def forward(self, aim: Tensor, z: Tensor, k: Tensor) -> Tensor:
        """Atomic energies (B, N) eV, zero for padding.

        Args:
            aim: (B, N, n_in).
            z: (B, N) atomic numbers, 0 = padding.
            k: (B,) readout of each molecule.
        """
        e = self.energy_mlp(aim, k) + self.atomic_shift(z, k)
        return e.masked_fill(z == 0, 0.0)
