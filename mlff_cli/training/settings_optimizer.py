"""Schema of how weights move: optimizer, parameter groups, learning rate schedule."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mlff_cli.training.settings_base import Section
from mlff_cli.training.settings_schedules import SchedulerSection as SchedulerSection


class OptimizerKwargs(Section):
    """Arguments of the optimizer, whose own value holds where null; each optimizer takes some."""

    lr: float = Field(default=5e-5, gt=0, le=1e3)
    """Learning rate."""
    weight_decay: NonNegativeFloat = 1e-6
    """Weight decay."""
    betas: tuple[float, float] | None = None
    """Decay of the moment averages, as 0.9 and 0.999."""
    eps: PositiveFloat | tuple[PositiveFloat | None, PositiveFloat] | None = None
    """Added to the denominator; of Adafactor two numbers."""
    momentum: NonNegativeFloat | None = None
    """Momentum of SGD, RMSprop and Muon."""
    dampening: float | None = None
    """Of SGD's momentum."""
    nesterov: bool | None = None
    """Nesterov momentum of SGD and Muon."""
    amsgrad: bool | None = None
    """Adam, AdamW: keep the largest second moment."""
    decoupled_weight_decay: bool | None = None
    """Adam, NAdam, RAdam: decay weights beside the gradient, as AdamW does."""
    momentum_decay: float | None = None
    """Of NAdam."""
    alpha: float | None = None
    """Smoothing of RMSprop; exponent of ASGD."""
    centered: bool | None = None
    """RMSprop: divide by the gradient's variance."""
    lr_decay: float | None = None
    """Of Adagrad."""
    initial_accumulator_value: float | None = None
    """Start of Adagrad's sum."""
    rho: float | None = None
    """Decay of Adadelta's averages."""
    lambd: float | None = None
    """Decay term of ASGD."""
    t0: float | None = None
    """Step at which ASGD begins to average."""
    etas: tuple[float, float] | None = None
    """Rprop: factors of smaller and larger steps."""
    step_sizes: tuple[float, float] | None = None
    """Rprop: smallest and largest step."""
    beta2_decay: float | None = None
    """Of Adafactor."""
    d: float | None = None
    """Clipping threshold of Adafactor."""
    weight_decouple: bool | None = None
    """AdaBelief, Yogi: decay weights beside the gradient, their default."""
    fixed_decay: bool | None = None
    """AdaBelief, Yogi: decay weights by `weight_decay`, whatever the learning rate."""
    rectify: bool | None = None
    """AdaBelief: rectify as RAdam does."""
    n_sma_threshold: int | None = None
    """AdaBelief: length of the moving average from which it is rectified."""
    degenerated_to_sgd: bool | None = None
    """AdaBelief: steps before that are those of SGD."""
    ams_bound: bool | None = None
    """AdaBelief: keep the largest second moment."""
    initial_accumulator: float | None = None
    """Start of Yogi's moments."""
    ns_coefficients: tuple[float, float, float] | None = None
    """Polynomial of Muon's Newton-Schulz iteration."""
    ns_steps: PositiveInt | None = None
    """Muon's iterations per step."""
    adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = None
    """How Muon's learning rate follows the shape of a weight."""
    foreach: bool | None = None
    """Update many tensors at a time: faster on a GPU, more memory."""
    fused: bool | None = None
    """Adam, AdamW, SGD, Adagrad: update in one kernel."""


class ParamGroup(Section):
    """Parameters with their own settings."""

    re: str
    """Regular expression, searched in the parameter's name."""
    lr: float | None = Field(default=None, gt=0, le=1e3)
    """Learning rate; schedules keep its ratio to the optimizer's. It wins over `lr_scale`."""
    lr_scale: PositiveFloat | None = None
    """The same as a multiple of the optimizer's learning rate, as presets give it."""
    weight_decay: NonNegativeFloat | None = None
    """Weight decay; the optimizer's where null."""


class OptimizerSection(Section):
    """How weights move."""

    class_: str = Field(default="torch.optim.AdamW", alias="class")
    """Optimizer: one of torch's, AdaBelief or Yogi."""
    kwargs: OptimizerKwargs = OptimizerKwargs()
    """Its arguments."""
    param_groups: dict[str, ParamGroup] = {}
    """Parameters with their own settings; the first matching group counts."""
    force_no_train: list[str] = []
    """Regular expressions of parameters that stay as they are."""
    force_train: list[str] = []
    """Regular expressions of parameters that are trained in spite of `force_no_train`."""
