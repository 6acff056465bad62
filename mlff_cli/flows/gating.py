"""The energy gate: what a flow learns from conformations of impossible energy.

    U_reg(U) = U                                         U <= E_cut
             = E_cut + ln(1 + min(U, E_max) - E_cut)     else
    w(U)     = dU_reg/dU = 1,  1 / (1 + U - E_cut),  0   up to E_cut, up to E_max, above

    seed     L = 1/B sum_i [beta U_reg(U_i) - ln|det J_i|]
    safe     L = 1/B sum_i w_i (beta U_i - ln|det J_i|),  w_i without a gradient

Both have the same slope on the energy. In `seed` a sample above E_max keeps its volume term, so
that the loss can fall for ever by inflating volume; in `safe` the volume counts as the energy does.
A batch is skipped where more than `skip_share` of it lies above E_max; what is not finite does.

E_max begins lenient and becomes strict (epochs counted from 1, n_0 `min_learning_epochs`, n_1
`warmup_epochs`):

    E_max(n) = E_0                  n <= n_0
             = E_0 (E_1 / E_0)^p    p = (n - n_0) / (n_1 - n_0)
             = E_1                  n >= n_1

Energies are in kJ/mol throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["safe", "seed"]

E_CUT = 500.0  # kJ/mol
E_MAX = 1e5  # kJ/mol, when the gate is at its strictest
INITIAL_E_MAX = 1e10  # kJ/mol
MIN_LEARNING_EPOCHS = 50
WARMUP_EPOCHS = 300
SKIP_SHARE = 0.9


def regularised(U: Tensor, E_cut: float, E_max: float | Tensor) -> Tensor:
    """U_reg of energies; finite and with a finite gradient whatever U is.

    Args:
        U: energies, any shape; what is not finite counts as above `E_max`.
        E_cut: up to which energies are left alone.
        E_max: above which they are constant; not below `E_cut`.

    Returns:
        The same shape.
    """
    beyond = ~(torch.isfinite(U) & U.le(E_max))
    above = beyond | U.gt(E_cut)
    kept = torch.where(above, E_cut, U)  # nothing infinite meets a zero in the backward pass
    excess = torch.where(above & ~beyond, U - E_cut, 0.0)
    excess = torch.where(beyond, E_max - E_cut, excess)
    return kept + torch.log1p(excess)


def weights(U: Tensor, E_cut: float, E_max: float | Tensor) -> Tensor:
    """Weights w of energies: the slope of `regularised`, detached, in [0, 1].

    Args:
        U: energies, any shape; what is not finite counts as above `E_max`.
        E_cut: up to which energies are left alone.
        E_max: above which they do not count.
    """
    U = U.detach()
    between = 1.0 / (1.0 + (U - E_cut).clamp(min=0.0))
    return torch.where(torch.isfinite(U) & U.le(E_max), between, 0.0)


@dataclass(frozen=True)
class Gate:
    """A gate and the course of its upper threshold.

    Attributes:
        mode: "safe" weighs energy and volume alike, "seed" gates the energy alone.
        E_cut: kJ/mol up to which energies are left alone.
        E_max: kJ/mol above which they do not count, from `warmup_epochs` on.
        initial_E_max: the same up to `min_learning_epochs`.
        min_learning_epochs: epochs of the most lenient gate.
        warmup_epochs: epoch at which the gate is strictest; 0: it is from the beginning.
        skip_share: share of a batch above E_max that may not be exceeded.

    Raises:
        ValueError: thresholds or epochs do not follow one another.
    """

    mode: Mode = "safe"
    E_cut: float = E_CUT
    E_max: float = E_MAX
    initial_E_max: float = INITIAL_E_MAX
    min_learning_epochs: int = MIN_LEARNING_EPOCHS
    warmup_epochs: int = WARMUP_EPOCHS
    skip_share: float = SKIP_SHARE

    def __post_init__(self) -> None:
        if not self.E_cut < self.E_max:
            raise ValueError(
                f"E_cut must be below E_max, found {self.E_cut:g} and {self.E_max:g} kJ/mol"
            )
        if self.warmup_epochs and not self.min_learning_epochs < self.warmup_epochs:
            raise ValueError(
                f"min_learning_epochs ({self.min_learning_epochs}) must be below "
                f"gate_warmup_epochs ({self.warmup_epochs}); a gate_warmup_epochs of 0 is a gate "
                "that does not change"
            )
        if self.warmup_epochs and not 0.0 < self.E_max <= self.initial_E_max:
            raise ValueError(
                "E_max falls from initial_E_max, which must not be below it, found "
                f"{self.initial_E_max:g} and {self.E_max:g} kJ/mol"
            )
        if not 0.0 < self.skip_share <= 1.0:
            raise ValueError(f"skip_share must be above 0 and at most 1, found {self.skip_share:g}")

    def E_max_at(self, epoch: int) -> float:
        """The upper threshold in force in an epoch, counted from 1; kJ/mol.

        >>> [f"{Gate().E_max_at(n):g}" for n in (1, 50, 150, 200, 300, 1000)]
        ['1e+10', '1e+10', '1e+08', '1e+07', '100000', '100000']
        """
        if epoch >= self.warmup_epochs:
            return self.E_max
        if epoch <= self.min_learning_epochs:
            return self.initial_E_max
        p = (epoch - self.min_learning_epochs) / (self.warmup_epochs - self.min_learning_epochs)
        return float(self.initial_E_max * (self.E_max / self.initial_E_max) ** p)

    def skips(self, clamped: int, samples: int) -> bool:
        """Whether a batch is skipped of whose samples so many lie above E_max.

        >>> Gate().skips(9, 10), Gate().skips(10, 10), Gate().skips(0, 0)
        (False, True, False)
        >>> Gate(skip_share=0.29).skips(29, 100)  # 0.29 * 100 is 28.999...
        False
        """
        return samples > 0 and clamped / samples > self.skip_share

    def terms(
        self, U: Tensor, log_det: Tensor, beta: float, E_max: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """What every sample adds to the loss: beta times its energy, and its volume.

            L = 1/B sum_i (energy_i - volume_i)

        Args:
            U: (B,) energies, kJ/mol.
            log_det: (B,) ln|det J|.
            beta: 1 / (k_B T), mol/kJ.
            E_max: threshold in force, kJ/mol; of all samples or of each (B,).

        Returns:
            energy (B,) and volume (B,), without unit; finite, and with finite gradients.
        """
        if self._leaves_alone(U, log_det):
            return beta * U, log_det
        finite = torch.isfinite(log_det)
        volume = torch.where(finite, log_det, 0.0)
        if self.mode == "seed":
            return beta * regularised(U, self.E_cut, E_max), volume
        counts = torch.isfinite(U) & finite
        w = torch.where(counts, weights(U, self.E_cut, E_max), 0.0)  # [i]
        return w * beta * torch.where(counts, U, 0.0), w * volume

    def _leaves_alone(self, U: Tensor, log_det: Tensor) -> bool:
        """Whether no sample is above E_cut, as in the end of a training: nothing is to be done."""
        if U.device.type != "cpu":  # an accelerator would wait for the answer
            return False
        if not len(U):
            return True
        low, high = torch.aminmax(U.detach())  # NaN where any is
        volume = float(log_det.detach().sum())
        return math.isfinite(float(low)) and float(high) <= self.E_cut and math.isfinite(volume)


def quantile_threshold(cold: Tensor, hot: Tensor) -> float:
    """An E_cut from data: as far above the hotter ensemble's tail as that is above its median.

        E_cut = 2 q_0.999 - q_0.5

    Args:
        cold: (n,) potential energies at one temperature, kJ/mol.
        hot: (m,) at the other; the higher of the two thresholds is taken.
    """
    found: list[float] = []
    for U in (cold, hot):
        middle, tail = torch.quantile(U.double(), torch.tensor([0.5, 0.999]).double()).tolist()
        found.append(2.0 * tail - middle)
    return max(found)
