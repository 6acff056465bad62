"""An exponential moving average of the weights: theta' <- d theta' + (1 - d) theta.

It begins as the weights of the first step, so that no start-up bias needs to be removed.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage:
    """The averaged copy of a model that is being trained.

    Args:
        model: whose weights are averaged.
        decay: d, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
        self._average.requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The model with averaged weights."""
        averaged: nn.Module = self._average.module
        return averaged

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self._average.update_parameters(model)

    def state(self) -> dict[str, Tensor]:
        """Averaged weights under the model's own names, on the CPU."""
        return {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}

    def load(self, weights: Mapping[str, Tensor], steps: int) -> None:
        """Continue from averaged weights after so many steps."""
        self.model.load_state_dict(weights)
        self._average.n_averaged.fill_(steps)
