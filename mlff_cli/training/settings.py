"""Schema of how to train: optimizer, schedule, loss, metrics, checkpoints, logs.

The keys are those of aimnet2mult's train.yaml. Tables of named entries (loss components, parameter
groups, metrics) have their defaults in the packaged presets, so that a file can change one entry
and keep the others.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from mlff_cli.training.allowlist import not_yet


class Section(BaseModel):
    """A section that refuses unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
    )


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


class SchedulerSection(Section):
    """How the learning rate changes."""

    class_: str = Field(
        default="ignite.handlers.param_scheduler.CosineAnnealingScheduler", alias="class"
    )
    """Schedule, one of ignite's (per iteration) or torch's (per epoch)."""
    kwargs: dict[str, Any] = {}
    """Its arguments; a cosine without any goes from the learning rate to a hundredth of it."""
    warmup_steps: NonNegativeInt = 0
    """Iterations over which the learning rate rises linearly to the schedule's."""
    terminate_on_low_lr: NonNegativeFloat = 0.0
    """Stop when the learning rate falls below this; 0 never stops."""


class Component(Section):
    """One label's part of the loss."""

    weight: NonNegativeFloat
    """Share of the loss; all shares are scaled to sum 1."""
    fn: str | None = None
    """Error per molecule: energy_loss_fn, peratom_loss_fn or mse_loss_fn."""
    kwargs: dict[str, Any] = {}
    """key_true and key_pred, where the component is not named like its label."""


class Components(Section):
    """The loss's parts."""

    components: dict[str, Component] = {}
    """One per label."""


class LossSection(Section):
    """What is minimised."""

    class_: str = Field(default="aimnet2mult.train.loss.MTLoss", alias="class")
    """How the components are combined: MTLoss has fixed weights."""
    kwargs: Components = Components()
    """Its arguments."""


class MetricOptions(Section):
    """How one label's errors are reported."""

    abbr: str
    """Beginning of the metric's names, as E in E_rmse."""
    scale: PositiveFloat | None = None
    """Factor from eV or e to the reported unit; found from `unit` where null."""
    unit: str | None = None
    """Reported unit of energy: kcal/mol, kJ/mol, eV, meV; found from `scale` where null."""
    peratom: bool | None = None
    """Whether the label has one value per atom; known from the label, must agree with it."""
    mult: PositiveFloat | None = None
    """Values per atom or molecule; known from the label, must agree with it."""


class MetricKwargs(Section):
    """Metrics by label."""

    cfg: dict[str, MetricOptions] = {}
    """One entry per label."""


class MetricsSection(Section):
    """What is measured on the validation set."""

    class_: str = Field(default="aimnet2mult.train.metrics.RegMultiMetric", alias="class")
    """Kind of metrics: regression errors."""
    kwargs: MetricKwargs = MetricKwargs()
    """Its arguments."""


class TrainerSection(Section):
    """The loop."""

    epochs: PositiveInt = 200
    """Epochs to train."""
    gradient_clip_by: Literal["value", "norm", "none"] = "value"
    """Clip every gradient element, the norm of the whole gradient, or nothing."""
    gradient_clip: PositiveFloat = 0.4
    """Where to clip."""


class CheckpointKwargs(Section):
    """Which best checkpoints are kept."""

    n_saved: PositiveInt = 5
    """How many."""
    require_empty: bool = False
    """Refuse to start anew where checkpoints of an earlier run are, instead of replacing them."""
    score_function: Literal["-val_loss", "-loss"] = "-val_loss"
    """What the best are best in."""


class CheckpointSection(Section):
    """Checkpoints."""

    dirname: str = "checkpoints"
    """Folder, inside the run folder unless it is absolute."""
    filename_prefix: str | None = None
    """Put before the names of the best checkpoints."""
    save_best: bool = True
    """Keep the best by validation loss; without them the model of the last step is the result."""
    kwargs: CheckpointKwargs = CheckpointKwargs()
    """Its arguments."""


class LogFrequency(Section):
    """How often numbers are written, in iterations."""

    train: PositiveInt | None = None
    """Training loss; null: once per epoch."""
    val: PositiveInt | None = None
    """Validation; null: once per epoch."""


class WandbInit(Section):
    """Arguments of wandb.init."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    """Whether to log to Weights & Biases."""
    name: str | None = None
    """Name of the run."""
    entity: str | None = None
    """Account."""
    project: str | None = None
    """Project."""
    notes: str | None = None
    """Notes."""
    tags: list[str] | None = None
    """Tags."""


class WandbWatch(Section):
    """Arguments of wandb.watch."""

    log: Literal["all", "gradients", "parameters"] | None = None
    """What to log."""
    log_freq: PositiveInt = 1000
    """Iterations between logs."""
    log_graph: bool = False
    """Log the graph."""


class WandbSection(Section):
    """Weights & Biases."""

    init: WandbInit = WandbInit()
    """Arguments of wandb.init."""
    watch_model: WandbWatch | None = None
    """Arguments of wandb.watch."""
    log_frequency: LogFrequency | None = None
    """The same as the top-level key, where aimnet2mult has it; works without wandb."""


class TrainingSettings(Section):
    """Everything about training that does not depend on the family."""

    family: str = "multifidelity"
    """Which recipe is trained."""
    run_name: str = "model"
    """Name of the run."""
    project_name: str = "mlff"
    """Name of the project."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of initial weights, split and sampling."""
    optimizer: OptimizerSection = OptimizerSection()
    """How weights move."""
    scheduler: SchedulerSection | None = SchedulerSection()
    """How the learning rate changes; null keeps it."""
    loss: LossSection = LossSection()
    """What is minimised."""
    metrics: MetricsSection = MetricsSection()
    """What is measured."""
    trainer: TrainerSection = TrainerSection()
    """The loop."""
    checkpoint: CheckpointSection = CheckpointSection()
    """Checkpoints."""
    log_frequency: LogFrequency | None = None
    """How often numbers are written."""
    wandb: WandbSection = WandbSection()
    """Weights & Biases."""

    def frequency(self, name: Literal["train", "val"], epoch_length: int) -> int:
        """Iterations between two logs; the top-level key counts before wandb's."""
        for section in (self.log_frequency, self.wandb.log_frequency):
            if section is not None and getattr(section, name) is not None:
                return int(getattr(section, name))
        return epoch_length

    def refuse_later(self) -> None:
        """Refuse settings whose feature this version does not have.

        Raises:
            ConfigError: names the key, the value and what to use instead.
        """
        if self.wandb.init.mode != "disabled":
            remedy = "set wandb.init.mode=disabled; metrics.csv and metrics.jsonl hold the numbers"
            raise not_yet("wandb.init.mode", self.wandb.init.mode, remedy)
