"""One optimizer step: the gradients of all parts and processes, summed, clipped, applied.

A batch may be computed in parts, on several processes, and as several accumulated batches. The loss
of each is divided by the labels of the whole, so that the gradients sum to those of one big batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlff_cli.core.errors import NumericalError
from mlff_cli.training.averages import WeightAverage
from mlff_cli.training.distributed import World, reduce_gradients
from mlff_cli.training.losses import WEIGHTS_GROUP, LossValue
from mlff_cli.training.precision import mixed
from mlff_cli.training.schedules import Schedule
from mlff_cli.training.settings import TrainerSection
from mlff_cli.training.stages import Stage, stage_at
from mlff_cli.training.task import Batch, Task

# loss and predictions of a part, given the labels of the whole batch; adds to the gradients
Backward = Callable[[Batch, Tensor], tuple[LossValue, Mapping[str, Tensor]]]


class Stepper:
    """Makes the optimizer's steps.

    Args:
        task: what to train.
        stages: of the run, with their optimizers and schedules.
        settings: `trainer` of the configuration.
        world: the processes that train together.
        backward: how a part's gradients come about, where it is not by autograd step by step.

    Attributes:
        stage: that made the last step, or will make the first.
        average: the averaged weights, if they are kept.
        gradient_norm: of the last step, before clipping; on the device.
        stop: whether any process was asked to stop before the last step.
        save: whether the main process wanted a checkpoint before the last step.
        samples: of the last step, of all processes.
        made: whether the last step was made; the task's journal may skip it.
    """

    def __init__(
        self,
        task: Task,
        stages: Sequence[Stage],
        settings: TrainerSection,
        world: World,
        backward: Backward | None = None,
    ) -> None:
        self.task = task
        self.stages = tuple(stages)
        self.world = world
        self._settings = settings
        self._backward = backward or self._by_autograd
        self._enter(0)
        self.device = self._parameters[0].device
        decay = settings.ema_decay
        self.average = WeightAverage(task.model, decay) if decay is not None else None
        self.gradient_norm = torch.zeros((), device=self.device)
        self.stop = self.save = False
        self.samples = 0
        self.made = True
        self._bad = torch.full((), -1, dtype=torch.int64, device=self.device)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The stage's."""
        return self.stage.optimizer

    @property
    def schedule(self) -> Schedule:
        """The stage's."""
        return self.stage.schedule

    def _enter(self, index: int) -> None:
        """Go on with a stage: its parameters, optimizer and schedule."""
        self._index, self.stage = index, self.stages[index]
        for name, parameter in self.task.model.named_parameters():
            parameter.requires_grad_(name not in self.stage.frozen)
        self.task.model.zero_grad(set_to_none=True)  # also of what is trained no longer
        for before in self.stages[:index]:
            before.optimizer.state.clear()  # nobody needs its moments any more
        groups = self.optimizer.param_groups
        self._parameters = [p for group in groups for p in group["params"]]
        # weights of the loss do not explode, and must not hold the model back
        model = [group for group in groups if group["name"] != WEIGHTS_GROUP]
        self._clipped = [p for group in model for p in group["params"]]

    def __call__(
        self,
        step: int,
        parts: Sequence[Batch],
        seen: Callable[[Mapping[str, Tensor], Batch], None] = lambda predicted, batch: None,
        *,
        stop: bool = False,
        save: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Make a step.

        Args:
            step: which, from 0.
            parts: this process's share of the batch; may be empty.
            seen: hears the predictions of every part.
            stop: whether this process was asked to stop.
            save: whether this process wants a checkpoint.

        Returns:
            Sums and counts (C,) of the loss components over all processes; zeros of a step that is
            skipped: neither weights nor their average move.

        Raises:
            NumericalError: the loss or its gradient is not finite; on a CPU before the weights
                change, elsewhere when `check` is called next.
        """
        index = stage_at(self.stages, step)
        if index != self._index:
            self._enter(index)
        self.schedule.before_step(step - self.stage.first)
        self.optimizer.zero_grad(set_to_none=True)
        whole = self._agree(parts, stop, save).to(self.device, non_blocking=True)
        sums = torch.zeros(len(whole) + 1, dtype=torch.float64, device=self.device)
        for part in parts:
            batch = part.to(self.device)
            loss, predicted = self._backward(batch, whole)
            sums[:-1] += loss.sums
            sums[-1] += loss.total.detach()
            seen(predicted, batch)
            if self.task.journal:
                self.task.journal.see(predicted, batch.tensors)
        reduce_gradients(self._parameters, self.world, [sums])
        self._clip()
        healthy = torch.isfinite(sums[-1]) & torch.isfinite(self.gradient_norm)
        if self.task.journal:
            self.made = self.task.journal.judge(lambda: bool(healthy), self.world)
            if not self.made:
                self.optimizer.zero_grad(set_to_none=True)
                return torch.zeros_like(sums[:-1]), torch.zeros_like(whole)
        self._bad = torch.where((self._bad < 0) & ~healthy, step, self._bad)
        if self.device.type == "cpu":  # elsewhere asking would make the device wait
            self.check()
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.task.model)
        return sums[:-1], whole

    def _by_autograd(self, batch: Batch, whole: Tensor) -> tuple[LossValue, Mapping[str, Tensor]]:
        """Loss, predictions and gradients of a part."""
        with mixed(self._settings.precision, self.device):
            predicted = self.task.predict(self.task.model, batch, True)
        loss = self.task.loss(predicted, batch.tensors, whole)
        if loss.total.requires_grad:  # a part without any label of the loss has no graph
            loss.total.backward()
        return loss, predicted

    def _agree(self, parts: Sequence[Batch], stop: bool, save: bool) -> Tensor:
        """Labels (C,) of the whole batch; what one process wants, all learn with it."""
        n = len(self.task.loss.names)
        shared = torch.zeros(n + 3, dtype=torch.float64)
        if parts:  # still on the host: nothing here waits for the device
            shared[:n] = self.task.loss.counts([part.tensors for part in parts])
        samples = sum(len(part) for part in parts)
        shared[n:] = torch.tensor([float(stop), float(save), samples], dtype=torch.float64)
        self.world.sum_(shared)
        self.stop, self.save = bool(shared[n]), bool(shared[n + 1])
        self.samples = int(shared[n + 2])
        return shared[:n]

    def _clip(self) -> None:
        """Measure the norm of the model's gradient and clip it; learned weights keep theirs."""
        gradients = [p.grad for p in self._clipped if p.grad is not None]
        self.gradient_norm = nn.utils.get_total_norm(gradients)
        if not gradients:  # nobody in the batch has a label of the loss; torch clips no empty list
            return
        at = self._settings.gradient_clip
        if self._settings.gradient_clip_by == "norm":
            nn.utils.clip_grads_with_norm_(self._clipped, at, self.gradient_norm)
        elif self._settings.gradient_clip_by == "value":
            nn.utils.clip_grad_value_(self._clipped, at)

    def check(self) -> None:
        """Stop where a step was not finite, and name the molecules of its batch.

        Raises:
            NumericalError: some step's loss or gradient was not finite.
        """
        bad = int(self._bad)
        if bad >= 0:
            remedy = (
                f"look at the labels and geometries of these {self.task.samples}, or lower the "
                "learning rate"
            )
            raise NumericalError(
                f"the loss or its gradient is not finite at step {bad + 1}; the batch holds "
                f"{self.task.name_samples(bad)}",
                remedy=self.task.journal.remedy() if self.task.journal else remedy,
            )

    def state(self) -> dict[str, Any]:
        """What continues beside the weights."""
        return {
            "stage": self._index,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._enter(int(state["stage"]))
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
