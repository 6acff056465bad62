"""Learning rates of a run: a schedule of ignite or torch, a warm-up, and the groups' ratios.

    lr_g(step) = ratio_g * schedule(step) * min(1, (step + 1) / warmup_steps)

ratio_g is the group's learning rate by the optimizer's. The schedule itself runs on an optimizer of
one parameter that nobody trains, so that every kind of schedule respects the groups.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch

from mlff_cli.core.errors import ConfigError, NumericalError
from mlff_cli.training.schedule_arguments import PlateauArguments
from mlff_cli.training.schedule_builder import Clock, build_schedule
from mlff_cli.training.settings_schedules import SchedulerSection

LARGEST = 1e9  # learning rate; no finite gradient survives it


class Schedule:
    """Sets the learning rates of an optimizer.

    Args:
        optimizer: groups with `lr_ratio`.
        section: `scheduler` of the configuration; None keeps the learning rates.
        base_lr: the optimizer's learning rate.
        total_steps: iterations of the whole run.
        epoch_length: iterations per epoch.

    Attributes:
        metric: the validation metric that the schedule watches, None where it watches none.

    Raises:
        ConfigError: arguments that do not fit each other or the length of the run.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        section: SchedulerSection | None,
        base_lr: float,
        total_steps: int,
        epoch_length: int,
    ) -> None:
        self._optimizer = optimizer  # not its groups: loading a state replaces their list
        self._base = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base_lr)
        self._inner: Any = None
        self._by_torch = False
        self._every = 0  # iterations between ticks; 0: it does not tick
        self._warmup = 0
        self._lowest = 0.0
        self._was_above = False
        self.metric: str | None = None
        if section is None:
            return
        interval = section.interval or section.kind.interval
        clock = Clock.of("epoch" if interval == "epoch" else "iteration", total_steps, epoch_length)
        self._inner = build_schedule(section, self._base, clock)
        self._by_torch = section.kind.library == "torch"
        self._every = {"iteration": 1, "epoch": epoch_length, "validation": 0}[interval]
        self._warmup = Clock(total_steps, epoch_length).ticks(section.warmup_steps)
        self._lowest = section.terminate_on_low_lr
        if isinstance(section.arguments, PlateauArguments):
            self.metric = _own_name(section.arguments.metric_name)
            if base_lr < self._lowest:
                raise ConfigError(
                    f"scheduler.terminate_on_low_lr={self._lowest:g} is above the learning rate "
                    f"{base_lr:g}, so that training would end at once",
                    remedy="set it below optimizer.kwargs.lr",
                )
            self._was_above = True

    def before_step(self, step: int) -> None:
        """Set the learning rates of iteration `step`, counted from 0; call it once per step.

        Raises:
            NumericalError: the schedule's arguments let one grow beyond all bounds.
        """
        if self._every and step % self._every == 0:
            if not self._by_torch:
                self._inner(None)
            elif step:  # torch's own are at their first value from the start
                self._inner.step()
        warm = min(1.0, (step + 1) / self._warmup) if self._warmup else 1.0
        lr = self.lr
        self._was_above |= lr >= self._lowest
        for group in self._optimizer.param_groups:
            group["lr"] = lr * warm * group["lr_ratio"]
            if not group["lr"] <= LARGEST:  # torch would fail on it, with the weights half changed
                raise NumericalError(
                    f"the learning rate of the group {group.get('name', 'default')!r} is "
                    f"{group['lr']:g} at step {step + 1}, at most {LARGEST:g} is possible",
                    remedy="lower the group's learning rate, or the factors under scheduler.kwargs",
                )

    def warming(self, steps: int) -> bool:
        """Whether the warm-up goes on after so many steps."""
        return steps < self._warmup

    def after_validation(self, metrics: Mapping[str, float]) -> None:
        """Tell schedules that watch a metric.

        Raises:
            ConfigError: the metric does not exist.
        """
        self.check_metrics(metrics)
        if self.metric is not None:
            self._inner.step(metrics[self.metric])

    def check_metrics(self, names: Collection[str]) -> None:
        """Refuse a run whose validations will not hold the metric that the schedule watches.

        Args:
            names: of the validation's metrics, without `val/`.

        Raises:
            ConfigError: the metric is not among them.
        """
        if self.metric is not None and self.metric not in names:
            raise ConfigError(
                f"scheduler.kwargs.metric_name: no metric {self.metric!r}",
                remedy=f"use one of {', '.join(names)}",
            )

    @property
    def lr(self) -> float:
        """The schedule's own learning rate, before warm-up and ratios."""
        return float(self._base.param_groups[0]["lr"])

    @property
    def exhausted(self) -> bool:
        """Whether the learning rate fell below `terminate_on_low_lr`.

        One that begins below it, as OneCycleLR does, must have been above it before.
        """
        return self._was_above and self.lr < self._lowest

    def state_dict(self) -> dict[str, Any]:
        """Plain values to continue from."""
        inner = self._inner.state_dict() if self._inner is not None else {}
        kept = {key: value for key, value in inner.items() if _plain(value)}
        return {"lr": self.lr, "was_above": self._was_above, "inner": copy.deepcopy(kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._base.param_groups[0]["lr"] = state["lr"]
        self._was_above = state.get("was_above", True)
        if self._inner is not None:
            inner = copy.deepcopy(dict(state["inner"]))
            self._inner.load_state_dict({**self._inner.state_dict(), **inner})


def course(
    section: SchedulerSection | None,
    base_lr: float,
    total_steps: int,
    epoch_length: int,
    validation: Mapping[int, float] | None = None,
) -> list[float]:
    """The learning rate of every iteration, without training.

    Args:
        section: `scheduler` of the configuration.
        base_lr: the optimizer's learning rate.
        total_steps: iterations of the whole run.
        epoch_length: iterations per epoch.
        validation: the watched metric after so many iterations, for schedules that watch one.

    Returns:
        Learning rates, fewer than `total_steps` where the schedule ends the run.
    """
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [weight], "lr": base_lr, "lr_ratio": 1.0}])
    schedule = Schedule(optimizer, section, base_lr, total_steps, epoch_length)
    rates: list[float] = []
    while len(rates) < total_steps and not schedule.exhausted:
        schedule.before_step(len(rates))
        rates.append(float(optimizer.param_groups[0]["lr"]))
        if validation and len(rates) in validation and schedule.metric is not None:
            schedule.after_validation({schedule.metric: validation[len(rates)]})
    return rates


def _own_name(metric: str) -> str:
    """A metric's name without the prefix of validations."""
    return "loss" if metric in ("val_loss", "val/loss") else metric.removeprefix("val/")


def _plain(value: object) -> bool:
    """Whether a value may stand in a checkpoint (functions and classes may not)."""
    if isinstance(value, list | tuple):
        return all(_plain(v) for v in value)
    if isinstance(value, dict):
        return all(_plain(v) for v in value.values())
    return value is None or isinstance(value, bool | int | float | str)
