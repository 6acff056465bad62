"""Allegro's tensor product, contracted at the centres before their edges ask for it.

    V'_zuk = sum_ijp w_up C_pijk V_zui A_n(z)uj = sum_i V_zui T_n(z)uik,
    T_nuik = sum_jp w_up C_pijk A_nuj

z: edge, n(z): its centre, u: channel, p: path, C: Wigner 3j symbols. nequip-allegro multiplies out
all (z, u, i, j, k), which is what a step of training on a processor spends its time on. The edges
of one centre share T: they are laid on a grid (n, m), whose rows are matrices that T multiplies.
"""

import torch
from torch import Tensor, nn


class Contraction(nn.Module):
    """Takes the place of allegro's `Contracter`, with the same state.

    Args:
        weights: (u, p) of channels and paths; (u,) where there is one path.
        w3j: (p, i, j, k), or (p, i, k) where j is i; (i, j, k), or (i, k), where there is one path.
        diagonal: whether j is i.
    """

    w3j: Tensor

    def __init__(self, weights: nn.Parameter, w3j: Tensor, diagonal: bool) -> None:
        super().__init__()
        paths = "p" if weights.dim() == 2 else ""
        inner, turned = ("ik", "ik") if diagonal else ("ijk", "jik")
        self.diagonal = diagonal
        self.equation = f"u{paths},{paths}{inner}->u{turned}"
        self.weights = weights
        self.register_buffer("w3j", w3j)

    def forward(self, x1: Tensor, x2: Tensor, idxs: Tensor) -> Tensor:
        """Contract.

        Args:
            x1: (E, u, i) V, features of the edges.
            x2: (N, u, j) A, sums over the neighbours of each centre.
            idxs: (E,) centre of each edge.

        Returns:
            (E, u, k).
        """
        w = torch.einsum(self.equation, self.weights, self.w3j)  # [u, i, k] or [u, j, i, k]
        n, u, j = x2.shape
        if self.diagonal:
            t = x2.unsqueeze(-1) * w  # [n, u, i, k]
            return (x1.unsqueeze(-1) * t.index_select(0, idxs)).sum(2)
        i, k = w.shape[2], w.shape[3]
        t = torch.bmm(x2.transpose(0, 1), w.reshape(u, j, i * k))  # [u, n, ik]
        t = t.transpose(0, 1).reshape(n * u, i, k)
        place, m = grid(idxs, n)
        rows = x1.new_zeros(n * m, u, i).index_copy(0, place, x1)
        rows = rows.view(n, m, u, i).transpose(1, 2).reshape(n * u, m, i)
        out = torch.bmm(rows, t).view(n, u, m, k).transpose(1, 2).reshape(n * m, u, k)
        return out.index_select(0, place)


def grid(centres: Tensor, n: int) -> tuple[Tensor, int]:
    """Places of edges on a grid of n rows, one per centre.

    Args:
        centres: (E,) int64 centre of each edge, in any order.
        n: number of centres.

    Returns:
        (E,) int64 places, row times m plus column, and the width m: the most edges of a centre.
        Of centres without data (meta tensors, of which memory is estimated) the width that they
        have when every centre has as many edges as another.
    """
    if centres.is_meta:
        return torch.empty_like(centres), -(-centres.shape[0] // max(n, 1))
    count = torch.bincount(centres, minlength=n)
    m = int(count.max()) if n > 0 else 0
    first = count.cumsum(0) - count
    order = torch.argsort(centres, stable=True)
    in_order = centres.index_select(0, order)
    rank = torch.arange(centres.shape[0], device=centres.device) - first.index_select(0, in_order)
    place = torch.empty_like(centres).index_copy(0, order, in_order * m + rank)
    return place, m
