"""Schema of how to train: the loop's own keys, and the sections of its parts.

The keys are those of aimnet2mult's train.yaml. Tables of named entries (loss components, parameter
groups, metrics) have their defaults in the packaged presets, so that a file can change one entry
and keep the others.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from mlff_cli.training.settings_base import Section
from mlff_cli.training.settings_logging import LogFrequency, WandbSection
from mlff_cli.training.settings_loss import LossSection, MetricsSection
from mlff_cli.training.settings_optimizer import OptimizerSection, SchedulerSection
from mlff_cli.training.settings_stages import StageSection
from mlff_cli.training.settings_transfer import TransferSection


class EarlyStopping(Section):
    """Stop when a validation metric no longer improves."""

    patience: PositiveInt | None = None
    """Validations without improvement before the run ends; null never stops."""
    min_delta: NonNegativeFloat = 0.0
    """What counts as an improvement: less than the best so far by more than this."""
    metric: str = "loss"
    """Validation metric, as `loss` or `fid0/F_rmse`; smaller is better."""


class TrainerSection(Section):
    """The loop."""

    epochs: PositiveInt = 200
    """Epochs to train; those of all `stages` together where there are any."""
    gradient_clip_by: Literal["value", "norm", "none"] = "value"
    """Clip every gradient element, the norm of the whole gradient, or nothing."""
    gradient_clip: PositiveFloat = 0.4
    """Where to clip."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are summed before a step: the step of a batch so many times as
    large. Iterations count steps."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Validate and save an exponential moving average of the weights; null: off."""
    early_stopping: EarlyStopping = EarlyStopping()
    """When to stop before the last epoch."""
    precision: Literal["full", "tf32", "bf16"] = "full"
    """Of matrix products: full; tf32 (19 bits, NVIDIA only); bf16 (16 bits, mixed precision)."""
    compile: bool = False
    """Trace and compile the training step; takes a minute at the start and needs g++."""


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
    filename_prefix: str | None = Field(default=None, pattern=r"^[^/]*$")
    """Put before the names of the best checkpoints."""
    minutes: PositiveFloat = 10.0
    """Write the checkpoint to resume from at least this often, beside once per validation."""
    save_best: bool = True
    """Keep the best by validation loss; without them the model of the last step is the result."""
    kwargs: CheckpointKwargs = CheckpointKwargs()
    """Its arguments."""


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
    stages: tuple[StageSection, ...] = ()
    """Trainings one after the other; none: one of `trainer.epochs`, with the run's `optimizer` and
    `scheduler`."""
    loss: LossSection = LossSection()
    """What is minimised."""
    metrics: MetricsSection = MetricsSection()
    """What is measured."""
    trainer: TrainerSection = TrainerSection()
    """The loop."""
    transfer: TransferSection = TransferSection()
    """What `--load` makes of the weights."""
    checkpoint: CheckpointSection = CheckpointSection()
    """Checkpoints."""
    log_frequency: LogFrequency = LogFrequency()
    """How often numbers are written and shown."""
    wandb: WandbSection = WandbSection()
    """Weights & Biases."""
    tensorboard: bool = False
    """Write TensorBoard event files into the run folder as well."""
    save_all_models: bool = False
    """Keep every member of an ensemble, not only the best."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        return self._complete_stages()

    def _complete_stages(self) -> Self:
        """Give stages what they leave out, and the run their epochs; families may do more."""
        if not self.stages:
            return self
        names = [stage.name for stage in self.stages]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"stages: two are called {twice!r}, rows could not be told apart")
        common = {"optimizer": self.optimizer, "scheduler": self.scheduler}
        self.stages = tuple(
            stage.model_copy(
                update={k: v for k, v in common.items() if k not in stage.model_fields_set}
            )
            for stage in self.stages
        )
        epochs = sum(stage.epochs for stage in self.stages)
        if "epochs" in self.trainer.model_fields_set and self.trainer.epochs != epochs:
            raise ValueError(
                f"trainer.epochs is {self.trainer.epochs}, the epochs of the stages are {epochs} "
                "together; leave trainer.epochs out, and give every stage its own"
            )
        self.trainer = self.trainer.model_copy(update={"epochs": epochs})
        return self

    @property
    def in_stages(self) -> tuple[StageSection, ...]:
        """The stages; a run that has none is a single one without a name."""
        return self.stages or (
            StageSection.model_construct(
                name="",
                epochs=self.trainer.epochs,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
            ),
        )

    @property
    def members(self) -> int:
        """Models that the configuration trains from as many seeds; the command may ask for more."""
        return 1

    def frequency(self, name: Literal["train", "val"], epoch_length: int) -> int:
        """Iterations between two logs; the top-level key counts before wandb's."""
        for section in (self.log_frequency, self.wandb.log_frequency):
            if section and getattr(section, name) is not None:
                return int(getattr(section, name))
        return epoch_length
