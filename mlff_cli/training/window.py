"""Training losses and errors since they were last written, summed where the model is.

Nothing here makes the program wait for the device before somebody asks for a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mlff_cli.training.distributed import World
from mlff_cli.training.task import Task


class LossWindow:
    """Sums of every loss component over the steps since the last log, of all processes.

    Args:
        task: whose loss it is.
        device: where the sums live.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self._loss = task.loss
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        n = len(self._loss.names)
        self._sums = torch.zeros(n, dtype=torch.float64, device=self._device)
        self._counts = torch.zeros(n, dtype=torch.float64, device=self._device)

    def add(self, sums: Tensor, counts: Tensor) -> None:
        """Add the errors (C,) of a step's molecules and how many had each label (C,)."""
        self._sums += sums
        self._counts += counts

    def components(self) -> dict[str, float]:
        """Mean of every component since the last reset, weighted, by name; waits for the device.

        Empty where there was no step yet.
        """
        if not float(self._counts.sum()):
            return {}
        parts = self._loss.parts(self._sums, self._counts).tolist()
        return dict(zip(self._loss.names, parts, strict=True))

    def state(self) -> dict[str, Tensor]:
        """To continue from; the same on every process."""
        return {"sums": self._sums.cpu().clone(), "counts": self._counts.cpu().clone()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state`."""
        self._sums = state["sums"].to(self._device)
        self._counts = state["counts"].to(self._device)


def gather(own: Tensor, world: World) -> Tensor:
    """A tensor of every process, stacked (size, ...), on the CPU; every process must call it."""
    stacked = torch.zeros((world.size, *own.shape), dtype=own.dtype, device=own.device)
    stacked[world.rank] = own
    return world.sum_(stacked).cpu()


def own_share(stacked: Tensor, world: World, merge: Callable[[Tensor], Tensor]) -> Tensor:
    """What `gather` took from this process.

    Where the processes were others, rank 0 gets all of it, merged (R, ...) -> (...), and the other
    ranks zeros.
    """
    if len(stacked) == world.size:
        return stacked[world.rank]
    total = merge(stacked)
    return total if world.main else torch.zeros_like(total)
