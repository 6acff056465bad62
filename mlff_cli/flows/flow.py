"""What every flow is: a bijection of conformations without translation and rotation.

    y = f(x),    p_y(y) = p_x(x) exp(-log_det),    log_det = ln|det df|  on 3N - 6 coordinates

log_det contains the volume that the coordinates leave to rotations (`internal_coordinates`,
`body_frame`), so that p_x and p_y are densities of Cartesian positions, as exp(-beta U) is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mlff_cli.core.errors import DataError
from mlff_cli.flows.body_frame import BodyFrame
from mlff_cli.flows.molecule import FlowMolecule


class Flow(nn.Module, ABC):
    """A map from the source's ensemble to the target's."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map from source to target.

        Args:
            x: (B, N, 3) positions in nm, in any place and orientation.

        Returns:
            y (B, N, 3) in nm, centre at the origin, in the frame of `body_frame`; log_det (B,).
        """

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map from target to source.

        Args:
            y: (B, N, 3) positions in nm, in any place and orientation.

        Returns:
            x (B, N, 3) in nm, as `forward` gives y; log_det (B,) of this inverse map.
        """

    @abstractmethod
    def fit(self, source: Tensor, target: Tensor, ratio: float | None = None) -> None:
        """Take means and spreads from data; nothing is trained.

        Args:
            source: (n, N, 3) frames at the source's temperature, nm.
            target: (m, N, 3) frames at the target's, nm.
            ratio: T_target / T_source, for `scaling: temperature`.

        Raises:
            DataError: frames without any spread, or not finite.
            ConfigError: the ratio is needed and absent.
        """


class IdentityFlow(Flow):
    """y = x: the naive swap of plain replica exchange, as a baseline.

    Args:
        molecule: what is turned into its frame.
    """

    def __init__(self, molecule: FlowMolecule) -> None:
        super().__init__()
        self.frame = BodyFrame(molecule.zmatrix)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.forward`."""
        return self.frame.placed(x), x.new_zeros(len(x))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.inverse`."""
        return self(y)  # type: ignore[no-any-return]

    def fit(self, source: Tensor, target: Tensor, ratio: float | None = None) -> None:
        """Nothing is taken."""


def require_finite(frames: Tensor, name: str) -> None:
    """Refuse frames that are not numbers.

    Raises:
        DataError: with the first frame that is bad.
    """
    good = torch.isfinite(frames).flatten(1).all(1)
    if not bool(good.all()):
        first = int((~good).int().argmax())
        raise DataError(
            f"positions must be finite, {int((~good).sum())} of {len(frames)} {name} frames are "
            f"not, the first is frame {first}",
            remedy="look at the data with `mlff check`",
        )
