"""Flows on standardised internal coordinates.

    x -> u -> w = S_source(u) -> w' = core(w) -> u' = S_target^-1(w') -> y

With no core this is the linear map: it scales stiff internal coordinates by the ratio of their
spreads, about sqrt(T_target / T_source), and leaves soft torsions alone. With S_target = S_source
and no core it is the identity. Hands stay as they are, whatever the core.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlff_cli.core.errors import ConfigError
from mlff_cli.flows.flow import Flow, require_finite
from mlff_cli.flows.internal_coordinates import InternalCoordinates
from mlff_cli.flows.molecule import FlowMolecule
from mlff_cli.flows.spec import Scaling, Start
from mlff_cli.flows.standardisation import Standardisation


class Core(nn.Module):
    """A bijection of standardised coordinates; this one is the identity."""

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """W' (B, 3N-6) and ln|det dw'/dw| (B,) of w (B, 3N-6)."""
        return w, w.new_zeros(len(w))

    def inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` undoes, and the log-determinant of undoing it."""
        return w, w.new_zeros(len(w))


class InternalFlow(Flow):
    """A core between the statistics of two ensembles.

    Args:
        molecule: gives the coordinates.
        core: the bijection of standardised coordinates.
        start: "linear": each ensemble has its own statistics; "identity": both have those of all
            frames together.
        scaling: of the linear map, "measured" from both ensembles, or "temperature": the source's
            means and its spreads times sqrt(ratio).
        dtype: of the statistics.
    """

    def __init__(
        self,
        molecule: FlowMolecule,
        core: Core,
        *,
        start: Start = "linear",
        scaling: Scaling = "measured",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.start = start
        self.scaling = scaling
        self.coordinates = InternalCoordinates(molecule)
        n = self.coordinates.n_linear
        periods = torch.from_numpy(molecule.periods)[self.coordinates.free]
        self.source = Standardisation(n, periods, dtype)
        self.target = Standardisation(n, periods, dtype)
        self.core = core

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.forward`."""
        u, hand, ln_v = self.coordinates(x)
        w, ladj_source = self.source(u)
        w, ladj = self.core(w)
        u, ladj_target = self.target.inverse(w)
        log_det = ladj_source + ladj + ladj_target + self.coordinates.log_volume(u) - ln_v
        return self.coordinates.positions(u, hand), log_det

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.inverse`."""
        u, hand, ln_v = self.coordinates(y)
        w, ladj_target = self.target(u)
        w, ladj = self.core.inverse(w)
        u, ladj_source = self.source.inverse(w)
        log_det = ladj_source + ladj + ladj_target + self.coordinates.log_volume(u) - ln_v
        return self.coordinates.positions(u, hand), log_det

    @torch.no_grad()
    def fit(self, source: Tensor, target: Tensor, ratio: float | None = None) -> None:
        """See `Flow.fit`."""
        require_finite(source, "source")
        require_finite(target, "target")
        of = self.source.mean
        u, v = (self.coordinates(frames.to(of))[0] for frames in (source, target))
        if self.start == "identity":
            self.source.fit(torch.cat([u, v]))
            self.target.follow(self.source, factor=1.0)
        elif self.scaling == "temperature":
            if ratio is None:
                raise ConfigError(
                    "flow.scaling: temperature needs the ratio of the temperatures, found none",
                    remedy="flow.scaling: measured takes the spreads of the data",
                )
            self.source.fit(u)
            self.target.follow(self.source, factor=ratio**0.5)
        else:
            self.source.fit(u)
            self.target.fit(v)
            self.target.follow(self.source)
