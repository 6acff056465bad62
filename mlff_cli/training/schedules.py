"""Learning rate schedules of ignite (per iteration) and torch (per epoch), with a warm-up.

    lr_g(step) = ratio_g * schedule(step) * min(1, (step + 1) / warmup_steps)

ratio_g is the group's learning rate by the optimizer's. The schedule itself runs on an optimizer of
one parameter that nobody trains, so that every kind of schedule respects the groups.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from ignite.handlers.param_scheduler import (
    CosineAnnealingScheduler,
    LinearCyclicalScheduler,
    PiecewiseLinear,
)
from torch.optim import lr_scheduler

from mlff_cli.core.errors import ConfigError
from mlff_cli.training.allowlist import Allowlist
from mlff_cli.training.settings_optimizer import SchedulerSection

FINAL_SHARE = 0.01  # a cosine without end_value ends at this share of its start


@dataclass(frozen=True)
class Kind:
    """One schedule.

    Attributes:
        make: its class.
        steps: when it advances.
    """

    make: type[Any]
    steps: Literal["iteration", "epoch", "validation"]


_TORCH = (
    "StepLR", "MultiStepLR", "ExponentialLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
    "ConstantLR", "LinearLR", "PolynomialLR",
)  # fmt: skip
SCHEDULES: Allowlist[Kind] = Allowlist(
    "scheduler.class",
    ("ignite.handlers.param_scheduler", "ignite.handlers", "torch.optim.lr_scheduler"),
    {
        "CosineAnnealingScheduler": Kind(CosineAnnealingScheduler, "iteration"),
        "LinearCyclicalScheduler": Kind(LinearCyclicalScheduler, "iteration"),
        "PiecewiseLinear": Kind(PiecewiseLinear, "iteration"),
        "ReduceLROnPlateauScheduler": Kind(lr_scheduler.ReduceLROnPlateau, "validation"),
        "ReduceLROnPlateau": Kind(lr_scheduler.ReduceLROnPlateau, "validation"),
        **{name: Kind(getattr(lr_scheduler, name), "epoch") for name in _TORCH},
    },
    later=("ConcatScheduler", "OneCycleLR", "CyclicLR", "SequentialLR"),
)


class Schedule:
    """Sets the learning rates of an optimizer.

    Args:
        optimizer: groups with `lr_ratio`.
        section: `scheduler` of the configuration; None keeps the learning rates.
        base_lr: the optimizer's learning rate.
        total_steps: iterations of the whole run.
        epoch_length: iterations per epoch.

    Raises:
        ConfigError: unknown class or argument.
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
        self._epoch_length = epoch_length
        self._warmup = section.warmup_steps if section else 0
        self._lowest = section.terminate_on_low_lr if section else 0.0
        self._kind = SCHEDULES.find(section.class_) if section else None
        self._metric = "loss"
        self._inner: Any = None
        if section and self._kind:
            self._inner = self._make(section, self._kind, base_lr, total_steps)

    def _make(self, section: SchedulerSection, kind: Kind, base_lr: float, total: int) -> Any:
        kwargs = dict(section.kwargs)
        if kwargs.pop("param_name", "lr") != "lr":
            raise ConfigError("scheduler.kwargs.param_name: only 'lr' can be scheduled")
        kwargs.pop("save_history", None)
        if kind.steps == "validation":
            name = str(kwargs.pop("metric_name", "loss"))
            self._metric = "loss" if name in ("val_loss", "val/loss") else name.removeprefix("val/")
        if kind.make in (CosineAnnealingScheduler, LinearCyclicalScheduler):
            start = kwargs.setdefault("start_value", base_lr)
            if not isinstance(start, int | float):
                raise ConfigError(
                    f"scheduler.kwargs.start_value must be a number, found {start!r}",
                    remedy="leave it out to start from optimizer.kwargs.lr",
                )
            kwargs.setdefault("end_value", FINAL_SHARE * start)
            kwargs.setdefault("cycle_size", max(2, total))
        if "milestones_values" in kwargs:  # YAML has no tuples
            kwargs["milestones_values"] = [tuple(pair) for pair in kwargs["milestones_values"]]
        accepted = _arguments(kind.make)
        unknown = set(kwargs) - accepted
        if unknown:
            raise ConfigError(
                f"scheduler.kwargs: {section.class_} does not take {sorted(unknown)[0]!r}",
                remedy=f"it takes {', '.join(sorted(accepted))}",
            )
        named = {"param_name": "lr"} if kind.steps == "iteration" else {}
        try:
            inner = kind.make(self._base, **named, **kwargs)
            if kind.steps == "epoch":
                self._base.step()  # torch wants a step of the optimizer before the schedule's
        except (TypeError, ValueError) as error:
            raise ConfigError(f"scheduler.kwargs: {error}") from None
        return inner

    def before_step(self, step: int) -> None:
        """Set the learning rates of iteration `step`, counted from 0; call it once per step."""
        if self._kind and self._kind.steps == "iteration":
            self._inner(None)
        elif self._kind and self._kind.steps == "epoch" and step and step % self._epoch_length == 0:
            self._inner.step()
        warm = min(1.0, (step + 1) / self._warmup) if self._warmup else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr * warm * group["lr_ratio"]

    def after_validation(self, metrics: Mapping[str, float]) -> None:
        """Tell schedules that watch a metric.

        Raises:
            ConfigError: the metric does not exist.
        """
        if self._kind is None or self._kind.steps != "validation":
            return
        if self._metric not in metrics:
            raise ConfigError(
                f"scheduler.kwargs.metric_name: no metric {self._metric!r}",
                remedy=f"use one of {', '.join(metrics)}",
            )
        self._inner.step(metrics[self._metric])

    @property
    def lr(self) -> float:
        """The schedule's own learning rate, before warm-up and ratios."""
        return float(self._base.param_groups[0]["lr"])

    @property
    def exhausted(self) -> bool:
        """Whether the learning rate fell below `terminate_on_low_lr`."""
        return self.lr < self._lowest

    def state_dict(self) -> dict[str, Any]:
        """Plain values to continue from."""
        inner = self._inner.state_dict() if self._inner is not None else {}
        return {"lr": self.lr, "inner": {k: v for k, v in inner.items() if _plain(v)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._base.param_groups[0]["lr"] = state["lr"]
        if self._inner is not None:
            self._inner.load_state_dict({**self._inner.state_dict(), **state["inner"]})


def _arguments(make: type[Any]) -> set[str]:
    """Names that a class takes, those that it passes on to its bases included."""
    names: set[str] = set()
    for kind in make.__mro__:
        parameters = inspect.signature(
            kind.__dict__.get("__init__", object.__init__)
        ).parameters.values()
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        names.update(p.name for p in named)
        if len(named) == len(parameters):
            break  # this one passes nothing on by itself
    return names - {"optimizer", "self"}


def _plain(value: object) -> bool:
    """Whether a value may stand in a checkpoint (functions and classes may not)."""
    if isinstance(value, list | tuple):
        return all(_plain(v) for v in value)
    if isinstance(value, dict):
        return all(_plain(v) for v in value.values())
    return value is None or isinstance(value, bool | int | float | str)
