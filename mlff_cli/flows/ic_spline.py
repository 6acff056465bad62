"""Splines of standardised internal coordinates, coupled by networks.

    kept coordinates k, moved coordinates m:    p = network(k),    m' = g(m; p)

    linear:    g = e^a spline(m) + b                       spline on [-bound, bound], else identity;
                                                           none with `splines: circular`
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
        kept: (D,) bool, which the network sees; none of the moved ones.
        circular: (D,) bool, which are angles on a circle.
        cut: (D,) in radian, where the circles' fixed points are.
        spec: bins, hidden, bound, max_log_scale.
    """

    moved: Tensor
    kept_linear: Tensor
    kept_circular: Tensor
    circular: Tensor
    cut: Tensor
    splined: Tensor
    unit: Tensor

    def __init__(
        self, moved: Tensor, kept: Tensor, circular: Tensor, cut: Tensor, spec: FlowSpec
    ) -> None:
        super().__init__()
        self.bins = spec.bins
        self.max_log_scale = spec.max_log_scale
        self._rqs: Any = require("zuko.transforms", "transport").MonotonicRQSTransform
        index = torch.arange(len(moved))
        on_circle = circular[moved]
        splined = on_circle if spec.splines == "circular" else torch.ones_like(on_circle)
        unit = torch.where(
            on_circle, 1.0, math.pi / spec.bound
        ).double()  # every spline lives on [-pi, pi]
        buffers = {
            "moved": index[moved],
            "kept_linear": index[kept & ~circular],
            "kept_circular": index[kept & circular],
            "circular": on_circle,
            "cut": torch.where(on_circle, cut[moved], 0.0),
            "splined": splined.nonzero().squeeze(1),
            "unit": unit[splined],
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)
        n_in = len(self.kept_linear) + 2 * len(self.kept_circular)
        layers: list[nn.Module] = []
        for width in spec.hidden:
            layers += [nn.Linear(n_in, width), nn.SiLU()]
            n_in = width
        last = nn.Linear(n_in, 2 * len(self.moved) + len(self.splined) * (3 * spec.bins - 1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(*layers, last)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """W' (B, D) and ln|det| (B,) of w (B, D)."""
        spline, a, b = self._transforms(w)
        m = self._on_circle(w[:, self.moved] + self.cut)  # [B, m]
        s, ladj = spline.call_and_ladj(m[:, self.splined] * self.unit)
        m = m.index_copy(1, self.splined, s / self.unit)
        m = self._on_circle(a.exp() * (m - self.cut) + b)
        return w.index_copy(1, self.moved, m), ladj.sum(1) + a.sum(1)

    def inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` undoes, and ln|det| (B,) of undoing it."""
        spline, a, b = self._transforms(w)
        m = self._on_circle((w[:, self.moved] - b) * (-a).exp() + self.cut)
        s = spline.inv(m[:, self.splined] * self.unit)
        _, ladj = spline.call_and_ladj(s)
        m = m.index_copy(1, self.splined, s / self.unit)
        m = self._on_circle(m - self.cut)
        return w.index_copy(1, self.moved, m), -ladj.sum(1) - a.sum(1)

    def _transforms(self, w: Tensor) -> tuple[Any, Tensor, Tensor]:
        """The splines, and of all moved coordinates ln of the scales (B, m) and shifts (B, m)."""
        angle = w[:, self.kept_circular]
        features = torch.cat([w[:, self.kept_linear], angle.cos(), angle.sin()], dim=1)
        p = self.network(features)
        m, k, c = len(self.moved), self.bins, self.max_log_scale
        a = torch.where(self.circular, 0.0, c * (p[:, :m] / c).tanh())
        b = LARGEST_SHIFT * (p[:, m : 2 * m] / LARGEST_SHIFT).tanh()
        knots = p[:, 2 * m :].view(len(w), len(self.splined), -1)
        widths, heights, slopes = knots.split([k, k, k - 1], dim=-1)
        return self._rqs(widths, heights, slopes, bound=math.pi), a, b

    def _on_circle(self, m: Tensor) -> Tensor:
        """Angles wrapped, the others left alone."""
        return torch.where(self.circular, wrap(m), m)


class SplineCore(Core):
    """Coupling transforms.

    | conditioning | moved, in turn                           | kept            |
    |--------------|------------------------------------------|-----------------|
    | all          | a random half of all, the other half     | all others      |
    | soft         | every second soft torsion, the other     | the other soft  |
    |              | soft ones, all stiff coordinates         | torsions        |

    Args:
        molecule: gives the coordinates.
        spec: transforms and their sizes; its seed draws the halves.
    """

    def __init__(self, molecule: FlowMolecule, spec: FlowSpec) -> None:
        super().__init__()
        free = torch.from_numpy(~molecule.handed)
        circular = torch.zeros(molecule.n_coordinates, dtype=torch.bool)
        circular[molecule.n_coordinates - int(free.sum()) :] = True
        soft = circular.clone()
        soft[circular] = torch.from_numpy(molecule.soft)[free]
        turns = _TURNS[spec.conditioning](circular, soft, spec.transforms)
        self.couplings = nn.ModuleList()
        for k, (moved, kept) in enumerate(turns):
            cut = torch.full(circular.shape, math.pi * ((k // 2) % 2), dtype=torch.float64)
            self.couplings.append(SplineCoupling(moved, kept, circular, cut, spec))

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


def _all_turns(circular: Tensor, soft: Tensor, n: int) -> list[tuple[Tensor, Tensor]]:
    """Moved and kept coordinates (D,) of n transforms: halves of everything."""
    turns: list[tuple[Tensor, Tensor]] = []
    while len(turns) < n:
        half = _half(circular) | _half(~circular)
        turns += [(half, ~half), (~half, half)]
    return turns[:n]


def _soft_turns(circular: Tensor, soft: Tensor, n: int) -> list[tuple[Tensor, Tensor]]:
    """Moved and kept coordinates (D,) of n transforms: soft torsions, and stiff ones given them.

    Every second soft torsion makes a half: phi and psi, neighbours in the Z-matrix, see each other.
    """
    half = torch.zeros_like(soft)
    half[soft.nonzero().squeeze(1)[::2]] = True
    turns: list[tuple[Tensor, Tensor]] = []
    while len(turns) < n:
        turns += [(half, soft & ~half), (soft & ~half, half), (~soft, soft)]
    return turns[:n]


def _half(of: Tensor) -> Tensor:
    """(D,) bool: a random half of the coordinates that are marked in (D,)."""
    chosen = torch.zeros_like(of)
    index = of.nonzero().squeeze(1)
    chosen[index[torch.randperm(len(index))[: (len(index) + 1) // 2]]] = True
    return chosen


_TURNS = {"all": _all_turns, "soft": _soft_turns}
