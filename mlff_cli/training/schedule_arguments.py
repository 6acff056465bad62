"""Arguments of ignite's and torch's learning rate schedules, checked before a run begins.

A count of a schedule is a number of its ticks, which are iterations (ignite's classes, OneCycleLR,
CyclicLR) or epochs (torch's others). It may also be written by the run: `30 %` of it, `2 epochs`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from mlff_cli.training.settings_base import Section

RELATIVE = re.compile(r"(?P<number>\d+(\.\d+)?) ?(?P<unit>%|epochs?)")


def _count(value: object) -> object:
    """Check a count and return it as a whole number or as the text it was."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 2e6 in YAML
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if whole or (isinstance(value, str) and RELATIVE.fullmatch(value.strip())):
        return value
    raise ValueError("a count is a whole number, '30 %' of the run or '2 epochs'")


def _positive_count(value: object) -> object:
    counted = _count(value)
    number = counted if isinstance(counted, int) else str(counted).rstrip(" %epochs")
    if float(number) == 0:
        raise ValueError("this count must be above 0")
    return counted


Count = Annotated[int | str, BeforeValidator(_positive_count)]
CountOrZero = Annotated[int | str, BeforeValidator(_count)]
Rate = Annotated[float, Field(ge=0)]
Factor = Annotated[float, Field(gt=0)]


class IgniteArguments(Section):
    """Arguments that all of ignite's schedules take and that decide nothing here."""

    param_name: Literal["lr"] = "lr"
    """Only the learning rate can be scheduled."""
    save_history: bool = False
    """Ignored: learning rates are always logged."""
    param_group_index: None = None
    """Always null: a schedule drives every group in its ratio."""


class CyclicalArguments(IgniteArguments):
    """Of CosineAnnealingScheduler: cycles from one learning rate to another."""

    start_value: Rate | None = None
    """Learning rate at a cycle's start; the optimizer's where null."""
    end_value: Rate | None = None
    """At a cycle's end (LinearCyclicalScheduler: at its middle); a hundredth of the start's where
    null."""
    cycle_size: Count | None = None
    """Length of the first cycle; the whole run (in a ConcatScheduler: its part) where null."""
    cycle_mult: float = Field(default=1.0, ge=1)
    """Every cycle is longer than the one before by this factor, rounded down."""
    start_value_mult: Factor = 1.0
    """What multiplies the start value from cycle to cycle."""
    end_value_mult: Factor = 1.0
    """What multiplies the end value from cycle to cycle."""
    warmup_duration: CountOrZero = 0
    """Length of the straight way back from a cycle's end to the next one's start."""


class LinearCyclicalArguments(CyclicalArguments):
    """Of LinearCyclicalScheduler."""

    monotonic: bool = False
    """Go one way and jump back, instead of down and up."""


class PiecewiseArguments(IgniteArguments):
    """Of PiecewiseLinear."""

    milestones_values: list[tuple[CountOrZero, Rate]] = Field(min_length=1)
    """Pairs of a count and the learning rate there; straight lines between, level outside."""


class PlateauArguments(IgniteArguments):
    """Of ReduceLROnPlateauScheduler and ReduceLROnPlateau, which count validations."""

    metric_name: str = "val_loss"
    """Metric of the validation, as `val_loss`, `E_rmse`, `fid0/F_mae`."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of it is better."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    """What multiplies the learning rate."""
    patience: int = Field(default=10, ge=0)
    """Validations without improvement that are waited for."""
    threshold: Rate = 1e-4
    """What counts as an improvement."""
    threshold_mode: Literal["rel", "abs"] = "rel"
    """Whether `threshold` is a share of the best or a difference to it."""
    cooldown: int = Field(default=0, ge=0)
    """Validations after a reduction that do not count."""
    min_lr: Rate = 0.0
    """The learning rate does not fall below this."""
    eps: Rate = 0.0
    """A smaller reduction is not made. Torch's own 1e-8 would keep small rates from ever falling
    to `terminate_on_low_lr`."""
    trainer: None = None
    """Always null: ignite's engine is the loop's."""


class TorchArguments(Section):
    """Arguments of torch's schedules; its own defaults where null."""


class StepArguments(TorchArguments):
    """Of StepLR."""

    step_size: Count
    """Length of a step."""
    gamma: Factor | None = None
    """What multiplies the learning rate after each; 0.1."""


class MultiStepArguments(TorchArguments):
    """Of MultiStepLR."""

    milestones: list[Count] = Field(min_length=1)
    """When the learning rate falls."""
    gamma: Factor | None = None
    """What multiplies it then; 0.1."""


class ExponentialArguments(TorchArguments):
    """Of ExponentialLR."""

    gamma: Factor
    """What multiplies the learning rate at every tick."""


class CosineArguments(TorchArguments):
    """Of CosineAnnealingLR."""

    T_max: Count | None = None
    """Length of the way down; the run where null. Afterwards it rises again."""
    eta_min: Rate | None = None
    """Learning rate at its end; 0."""


class WarmRestartsArguments(TorchArguments):
    """Of CosineAnnealingWarmRestarts."""

    T_0: Count
    """Length of the first cycle."""
    T_mult: int | None = Field(default=None, ge=1)
    """Every cycle is longer than the one before by this factor; 1."""
    eta_min: Rate | None = None
    """Learning rate at a cycle's end; 0."""


class ConstantArguments(TorchArguments):
    """Of ConstantLR."""

    factor: float | None = Field(default=None, gt=0, le=1)
    """What multiplies the learning rate at the beginning; 1/3."""
    total_iters: Count | None = None
    """For how long; 5."""


class LinearArguments(TorchArguments):
    """Of LinearLR."""

    start_factor: float | None = Field(default=None, gt=0, le=1)
    """What multiplies the learning rate at the start; 1/3."""
    end_factor: float | None = Field(default=None, ge=0, le=1)
    """What multiplies it at the end; 1."""
    total_iters: Count | None = None
    """Length of the way; 5."""


class PolynomialArguments(TorchArguments):
    """Of PolynomialLR."""

    total_iters: Count | None = None
    """Length of the way down to 0; 5."""
    power: Factor | None = None
    """Of the remaining share; 1."""


class _Cycled(TorchArguments):
    """Momentum is not scheduled."""

    cycle_momentum: Literal[False] = False
    """Always false: the optimizer's momentum stays as it is."""


class CyclicArguments(_Cycled):
    """Of CyclicLR."""

    base_lr: Rate
    """Lowest learning rate."""
    max_lr: Rate
    """Highest."""
    step_size_up: Count | None = None
    """Length of the way up; 2000."""
    step_size_down: Count | None = None
    """Of the way down; that of the way up."""
    mode: Literal["triangular", "triangular2", "exp_range"] | None = None
    """Equal cycles; halved from cycle to cycle; shrunk by `gamma` at every tick."""
    gamma: Factor | None = None
    """Of exp_range; 1."""


class OneCycleArguments(_Cycled):
    """Of OneCycleLR."""

    max_lr: Rate | None = None
    """Highest learning rate; the optimizer's where null."""
    total_steps: Count | None = None
    """Length of the cycle, at least that of the run; the run's where null."""
    epochs: int | None = Field(default=None, ge=1)
    """With `steps_per_epoch`, instead of `total_steps`."""
    steps_per_epoch: int | None = Field(default=None, ge=1)
    """See `epochs`."""
    pct_start: float | None = Field(default=None, ge=0, le=1)
    """Share of the way up; 0.3."""
    anneal_strategy: Literal["cos", "linear"] | None = None
    """Shape of the ways; cos."""
    three_phase: bool | None = None
    """Up, down as long, and then to the end, instead of up and down to the end; false."""
    div_factor: Factor | None = None
    """`max_lr` by the learning rate at the start; 25."""
    final_div_factor: Factor | None = None
    """The learning rate at the start by that at the end; 1e4."""
