"""Splines of standardised internal coordinates, coupled by networks.

    kept coordinates k, moved coordinates m:    p = network(k),    m' = g(m; p)

    linear:    g = e^a spline(m) + b                       spline on [-bound, bound], else identity
    circular:  g = spline(m + c) - c + b    (mod 2 pi)     c moves the spline's fixed point

with monotonic rational-quadratic splines (Durkan et al., arXiv:1906.04032), on the circle as in
Rezende et al. (arXiv:2002.02428). a and b are bounded by tanh. Networks end in zero weights: the
core starts as the identity. Kept torsions enter as cosines and sines, so that no network sees where
a circle was cut.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlff_cli.core.runtime import require
from mlff_cli.flows.circle import wrap
from mlff_cli.flows.internal_flow import Core
from mlff_cli.flows.molecule import FlowMolecule
from mlff_cli.flows.spec import FlowSpec

LARGEST_SHIFT = 3.0  # in spreads, or radian


class SplineCoupling(nn.Module):
    """One coupling transform.

    Args:
        moved: (D,) bool, which coordinates are moved.
        circular: (D,) bool, which are angles on a circle.
        cut: (D,) in radian, where the circles' fixed points are.
        spec: bins, hidden, bound, max_log_scale.
    """

    moved: Tensor
    kept_linear: Tensor
    kept_circular: Tensor
    circular: Tensor
    cut: Tensor
    unit: Tensor

    def __init__(self, moved: Tensor, circular: Tensor, cut: Tensor, spec: FlowSpec) -> None:
        super().__init__()
        self.bins = spec.bins
        self.max_log_scale = spec.max_log_scale
        self._rqs: Any = require("zuko.transforms", "transport").MonotonicRQSTransform
        index = torch.arange(len(moved))
        on_circle = circular[moved]
        unit = torch.where(
            on_circle, 1.0, math.pi / spec.bound
        ).double()  # every spline lives on [-pi, pi]
        buffers = {
            "moved": index[moved],
            "kept_linear": index[~moved & ~circular],
            "kept_circular": index[~moved & circular],
            "circular": on_circle,
            "cut": torch.where(on_circle, cut[moved], 0.0),
            "unit": unit,
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        n_in = len(self.kept_linear) + 2 * len(self.kept_circular)
        layers: list[nn.Module] = []
        for width in spec.hidden:
            layers += [nn.Linear(n_in, width), nn.SiLU()]
            n_in = width
        last = nn.Linear(n_in, len(self.moved) * (3 * spec.bins + 1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(*layers, last)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """W' (B, D) and ln|det| (B,) of w (B, D)."""
        spline, a, b = self._transforms(w)
        m = w[:, self.moved]  # [B, m]
        t = self._on_circle(m + self.cut)
        s, ladj = spline.call_and_ladj(t * self.unit)
        m = self._on_circle(a.exp() * (s / self.unit - self.cut) + b)
        return w.index_copy(1, self.moved, m), (ladj + a).sum(1)

    def inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` undoes, and ln|det| (B,) of undoing it."""
        spline, a, b = self._transforms(w)
        m = w[:, self.moved]
        s = self._on_circle((m - b) * (-a).exp() + self.cut) * self.unit
        t = spline.inv(s)
        _, ladj = spline.call_and_ladj(t)
        m = self._on_circle(t / self.unit - self.cut)
        return w.index_copy(1, self.moved, m), -(ladj + a).sum(1)

    def _transforms(self, w: Tensor) -> tuple[Any, Tensor, Tensor]:
        """The splines of the moved coordinates, ln of their scales (B, m), and shifts (B, m)."""
        angle = w[:, self.kept_circular]
        features = torch.cat([w[:, self.kept_linear], angle.cos(), angle.sin()], dim=1)
        p = self.network(features).view(len(w), len(self.moved), -1)
        k = self.bins
        widths, heights, slopes, rest = p.split([k, k, k - 1, 2], dim=-1)
        c = self.max_log_scale
        a = torch.where(self.circular, 0.0, c * (rest[..., 0] / c).tanh())
        b = LARGEST_SHIFT * (rest[..., 1] / LARGEST_SHIFT).tanh()
        return self._rqs(widths, heights, slopes, bound=math.pi), a, b

    def _on_circle(self, m: Tensor) -> Tensor:
        """Angles wrapped, the others left alone."""
        return torch.where(self.circular, wrap(m), m)


class SplineCore(Core):
    """Coupling transforms, each pair of which moves every coordinate once.

    Args:
        molecule: gives the coordinates.
        spec: transforms and their sizes; its seed draws the halves.
    """

    def __init__(self, molecule: FlowMolecule, spec: FlowSpec) -> None:
        super().__init__()
        n_circular = int((~molecule.handed).sum())
        circular = torch.arange(molecule.n_coordinates) >= molecule.n_coordinates - n_circular
        self.couplings = nn.ModuleList()
        for k in range(spec.transforms):
            if k % 2 == 0:
                moved = _half(circular)
            cut = torch.full(circular.shape, math.pi * ((k // 2) % 2), dtype=torch.float64)
            self.couplings.append(SplineCoupling(moved ^ bool(k % 2), circular, cut, spec))

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """See `Core.forward`."""
        total = w.new_zeros(len(w))
        for coupling in self.couplings:
            w, ladj = coupling(w)
            total = total + ladj
        return w, total

    def inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """See `Core.inverse`."""
        total = w.new_zeros(len(w))
        for coupling in reversed(self.couplings):
            w, ladj = coupling.inverse(w)  # type: ignore[operator]
            total = total + ladj
        return w, total


def _half(circular: Tensor) -> Tensor:
    """(D,) bool: a random half of the circular coordinates, and one of the others."""
    chosen = torch.zeros(len(circular), dtype=torch.bool)
    for kind in (circular, ~circular):
        index = kind.nonzero().squeeze(1)
        chosen[index[torch.randperm(len(index))[: len(index) // 2]]] = True
    return chosen
