"""Schema of how weights move: optimizer, parameter groups, learning rate schedule."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat

from mlff_cli.training.settings_base import Section
from mlff_cli.training.settings_schedules import SchedulerSection as SchedulerSection


class OptimizerKwargs(Section):
    """Arguments of the optimizer; those that its class does not take must be left out."""

    lr: float = Field(default=5e-5, gt=0, le=1e3)
    """Learning rate."""
    weight_decay: NonNegativeFloat = 1e-6
    """Weight decay."""
    betas: tuple[float, float] | None = None
    """Decay of the moment averages; the optimizer's own, 0.9 and 0.999, where null."""
    eps: PositiveFloat | None = None
    """Added to the denominator."""
    momentum: float | None = None
    """Momentum of SGD and RMSprop."""
    nesterov: bool | None = None
    """Nesterov momentum of SGD."""
    amsgrad: bool | None = None
    """Keep the largest second moment."""
    alpha: float | None = None
    """Smoothing of RMSprop."""


class ParamGroup(Section):
    """Parameters with their own settings."""

    re: str
    """Regular expression, searched in the parameter's name."""
    lr: PositiveFloat | None = None
    """Learning rate; schedules keep its ratio to the optimizer's. It wins over `lr_scale`."""
    lr_scale: PositiveFloat | None = None
    """The same as a multiple of the optimizer's learning rate, as presets give it."""
    weight_decay: NonNegativeFloat | None = None
    """Weight decay; the optimizer's where null."""


class OptimizerSection(Section):
    """How weights move."""

    class_: str = Field(default="torch.optim.AdamW", alias="class")
    """Optimizer, one of torch's."""
    kwargs: OptimizerKwargs = OptimizerKwargs()
    """Its arguments."""
    param_groups: dict[str, ParamGroup] = {}
    """Parameters with their own settings; the first matching group counts."""
    force_no_train: list[str] = []
    """Regular expressions of parameters that stay as they are."""
    force_train: list[str] = []
    """Regular expressions of parameters that are trained in spite of `force_no_train`."""
