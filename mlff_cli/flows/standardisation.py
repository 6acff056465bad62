"""Internal coordinates about their means, in units of their spread.

    ln r, ln tan(angle/2):  w = (u - mean) / spread
    stiff torsion:          w = M_{1/spread}(phi - mean)      around each of its minima (`circle`)
    soft torsion:           w = phi

The spread of a torsion with n periods is that of n phi.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlff_cli.core.errors import DataError
from mlff_cli.flows.circle import circular_mean_and_spread, stretch, wrap

FEWEST = 2  # frames that have a spread


class Standardisation(nn.Module):
    """Statistics of one ensemble, as a bijection of internal coordinates.

    Args:
        n_linear: coordinates that are not angles on a circle; they come first.
        periods: (m,) of the torsions that follow: 1 or 3 where stiff, 0 where soft.
        dtype: of the statistics.
    """

    periods: Tensor
    soft: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, n_linear: int, periods: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.n_linear = n_linear
        self.register_buffer("periods", periods.clamp(min=1).to(dtype), persistent=False)
        self.register_buffer("soft", periods == 0, persistent=False)
        n = n_linear + len(periods)
        self.register_buffer("mean", torch.zeros(n, dtype=dtype))
        self.register_buffer("spread", torch.ones(n, dtype=dtype))

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised coordinates w (B, 3N-6) of u (B, 3N-6), and ln|dw/du| (B,)."""
        centred = u - self.mean
        n = self.n_linear
        spread = self.spread[:n]
        torsions, ladj = stretch(centred[:, n:], 1 / self.spread[n:], self.periods)
        w = torch.cat([centred[:, :n] / spread, torsions], dim=1)
        return w, ladj.sum(1) - spread.log().sum()

    def inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates u (B, 3N-6) of w (B, 3N-6), and ln|du/dw| (B,)."""
        n = self.n_linear
        spread = self.spread[:n]
        torsions, ladj = stretch(w[:, n:], self.spread[n:], self.periods)
        linear = w[:, :n] * spread + self.mean[:n]
        u = torch.cat([linear, wrap(torsions + self.mean[n:])], dim=1)
        return u, ladj.sum(1) + spread.log().sum()

    @torch.no_grad()
    def fit(self, u: Tensor) -> None:
        """Take the statistics of coordinates.

        Args:
            u: (n, 3N-6).

        Raises:
            DataError: fewer than two frames, or coordinates that never move.
        """
        if len(u) < FEWEST:
            raise DataError(f"a spread needs {FEWEST} frames at least, found {len(u)}")
        linear, torsions = u[:, : self.n_linear], u[:, self.n_linear :]
        mean, spread = circular_mean_and_spread(torsions * self.periods)
        mean = mean / self.periods
        zero, one = torch.zeros_like(mean), torch.ones_like(spread)
        mean, spread = torch.where(self.soft, zero, mean), torch.where(self.soft, one, spread)
        mean = torch.cat([linear.mean(0), mean])
        spread = torch.cat([linear.std(0), spread])
        require_spread(spread, len(u))
        self.mean.copy_(mean)
        self.spread.copy_(spread)

    @torch.no_grad()
    def follow(self, other: Standardisation, factor: float | None = None) -> None:
        """Bring the means of minima that are told apart by nothing next to those of another.

        Args:
            other: whose minima are followed.
            factor: take the other's means, and its stiff spreads times this, not one's own.
        """
        n = self.n_linear
        if factor is not None:
            self.mean.copy_(other.mean)
            self.spread.copy_(other.spread * factor)
            self.spread[n:][self.soft] = 1.0
            return
        apart = (self.mean - other.mean)[n:] * self.periods
        self.mean[n:] = other.mean[n:] + wrap(apart) / self.periods


def require_spread(spread: Tensor, n_frames: int) -> None:
    """Refuse spreads (D,) of which one is zero or not finite.

    Raises:
        DataError: a coordinate never moves, as constrained bonds do not.
    """
    good = (spread > 0) & torch.isfinite(spread)
    if not bool(good.all()):
        which = int((~good).int().argmax())
        raise DataError(
            f"every coordinate must fluctuate, but coordinate {which} has the spread "
            f"{float(spread[which]):g} over {n_frames} frames",
            remedy="train on frames sampled with `mlff sample --constraints none`",
        )
