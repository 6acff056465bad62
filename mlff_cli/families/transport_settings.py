"""Schema of a transport training configuration.

The keys `use_energy_gating`, `E_cut`, `E_max` and `training.*` are the seed's. What `training` says
about epochs, learning rate and warm-up becomes `trainer`, `optimizer` and `scheduler`, whose other
keys hold beside it.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from mlff_cli.data.settings import Files
from mlff_cli.flows import gating
from mlff_cli.flows.gating import Gate
from mlff_cli.flows.spec import FlowSpec
from mlff_cli.training.settings import TrainerSection, TrainingSettings
from mlff_cli.training.settings_base import Section
from mlff_cli.training.settings_optimizer import SchedulerSection

PLATEAU = "ignite.handlers.param_scheduler.ReduceLROnPlateauScheduler"
# sections that say nothing here, and what does
INSTEAD = {
    "loss": "set training.forward and training.inverse",
    "metrics": "excess nats, acceptance and effective sample sizes are always measured",
    "transfer": "--load takes the weights of a flow of the same kind and molecule",
    "stages": "a flow is trained in one stage",
}


class TemperaturesSection(Section):
    """Between which ensembles the flow maps."""

    source: PositiveFloat = 300.0
    """K of the frames that are mapped forward."""
    target: PositiveFloat = 450.0
    """K of the frames that are mapped back."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if abs(self.source - self.target) < 1.0:
            raise ValueError(
                f"source and target must differ, found {self.source:g} and {self.target:g} K"
            )
        return self


class TransportDataSection(Section):
    """What is trained on."""

    files: Files = []
    """Trajectories of `mlff sample` (H5MD) with both temperatures: a file, a pattern or a list."""
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of each temperature's frames, its last in time, that is validated on."""
    val_frames: PositiveInt | None = 1024
    """Frames of each temperature to validate on at most, evenly spaced; null: all."""
    discard: NonNegativeFloat = 0.0
    """Ps at the beginning that are left out."""
    workers: NonNegativeInt = 0
    """Threads that make batches ahead of their use; 0 makes each when it is needed."""


class GateSection(Section):
    """The energy gate beside its two thresholds."""

    mode: gating.Mode = "safe"
    """safe: energy and volume of a sample lose weight together; seed: the energy alone."""
    initial_E_max: PositiveFloat = gating.INITIAL_E_MAX
    """E_max at the beginning, kJ/mol."""
    min_learning_epochs: NonNegativeInt = gating.MIN_LEARNING_EPOCHS
    """Epochs over which E_max stays there."""
    gate_warmup_epochs: NonNegativeInt = gating.WARMUP_EPOCHS
    """Epoch from which E_max is at its final value; 0: from the beginning."""
    skip_share: float = Field(default=gating.SKIP_SHARE, gt=0, le=1)
    """A batch is skipped where more than this share of it lies above E_max."""


class FlowTrainingSection(Section):
    """How the flow is trained."""

    epochs: PositiveInt = 1000
    """Epochs."""
    batch_size: PositiveInt = 256
    """Frames of each temperature in a step, of all processes together."""
    batches_per_epoch: PositiveInt = 1
    """Steps of an epoch."""
    split: PositiveInt = 1
    """Compute a batch in so many parts and sum their gradients: the same step with less memory."""
    lr: float = Field(default=5e-4, gt=0, le=1e3)
    """Learning rate."""
    warmup_epochs: NonNegativeInt = 50
    """Epochs over which the learning rate rises to that."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay."""
    forward: NonNegativeFloat = 1.0
    """Weight of the source's frames behind the flow: training on the target's energy."""
    inverse: NonNegativeFloat = 1.0
    """Weight of the target's frames behind the inverse: their negative log-likelihood."""
    symmetric: NonNegativeFloat = 0.0
    """Weight of the squared sum of both directions' mean log-dets, which are opposite in the end;
    taken of each part of a batch."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.forward or self.inverse):
            raise ValueError("training.forward and training.inverse are both 0: nothing to learn")
        return self


class TransportTrainerSection(TrainerSection):
    """The loop."""

    gradient_clip_by: Literal["value", "norm", "none"] = "norm"
    """Clip every gradient element, the norm of the whole gradient, or nothing."""
    gradient_clip: PositiveFloat = 10.0
    """Where to clip."""


class TransportSettings(TrainingSettings):
    """Everything that `mlff train` reads for this family."""

    family: Literal["transport"] = "transport"
    """Which recipe is trained."""
    temperatures: TemperaturesSection = TemperaturesSection()
    """Between which ensembles the flow maps."""
    data: TransportDataSection = TransportDataSection()
    """What is trained on; also a file, a pattern or a list of files."""
    flow: FlowSpec = FlowSpec()
    """The flow; its seed is the run's where it has none."""
    energy: Literal["torch", "openmm"] = "torch"
    """What computes energies: the force field in torch, or OpenMM in worker processes."""
    openmm_workers: PositiveInt | None = None
    """Worker processes of `energy: openmm`; null: one per core."""
    use_energy_gating: bool = True
    """Whether the gate is on."""
    E_cut: float | Literal["auto"] = gating.E_CUT
    """kJ/mol up to which energies are left alone; auto: from quantiles of the data."""
    E_max: float = gating.E_MAX
    """kJ/mol above which energies do not count, when the gate is at its strictest."""
    gate: GateSection = GateSection()
    """The gate's mode, course and skip rule."""
    training: FlowTrainingSection = FlowTrainingSection()
    """How the flow is trained."""
    trainer: TransportTrainerSection = TransportTrainerSection()
    """The loop."""
    scheduler: SchedulerSection | None = SchedulerSection(class_=PLATEAU, kwargs={"patience": 25})
    """How the learning rate changes after the warm-up; null keeps it."""

    @model_validator(mode="before")
    @classmethod
    def _files(cls, values: Any) -> Any:
        """Read `data: traj.h5` as `data: {files: traj.h5}`."""
        if isinstance(values, dict) and isinstance(values.get("data"), str | list):
            return {**values, "data": {"files": values["data"]}}
        return values

    def _complete_stages(self) -> Self:
        """Refuse keys that say nothing, and hand `training` on to the loop's sections."""
        for name, instead in INSTEAD.items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for other families; {instead}")
        for section, key, own in (
            (self.trainer, "epochs", "epochs"),
            (self.optimizer.kwargs, "lr", "lr"),
            (self.optimizer.kwargs, "weight_decay", "weight_decay"),
        ):
            if key in section.model_fields_set:
                raise ValueError(f"{key} of a transport training is training.{own}; set that")
        training = self.training
        self.trainer = self.trainer.model_copy(update={"epochs": training.epochs})
        told = {"lr": training.lr, "weight_decay": training.weight_decay}
        kwargs = self.optimizer.kwargs.model_copy(update=told)
        self.optimizer = self.optimizer.model_copy(update={"kwargs": kwargs})
        if self.scheduler is None and training.warmup_epochs:
            if "warmup_epochs" in training.model_fields_set:
                raise ValueError(
                    f"training.warmup_epochs={training.warmup_epochs} needs a schedule that the "
                    "learning rate follows after it; set training.warmup_epochs=0, or leave "
                    "scheduler out"
                )
            self.training = training.model_copy(update={"warmup_epochs": 0})
        if self.scheduler is not None:
            if "warmup_steps" in self.scheduler.model_fields_set:
                raise ValueError(
                    "scheduler.warmup_steps of a transport training is training.warmup_epochs; set "
                    "that"
                )
            steps = training.warmup_epochs * training.batches_per_epoch
            self.scheduler = self.scheduler.model_copy(update={"warmup_steps": steps})
        if self.E_cut != "auto":
            self.gate_of(self.E_cut)
        return self

    def gate_of(self, E_cut: float) -> Gate:
        """The gate with this lower threshold, kJ/mol; it may be off.

        Raises:
            ValueError: thresholds or epochs do not follow one another.
        """
        own = self.gate
        return Gate(
            own.mode,
            E_cut,
            self.E_max,
            own.initial_E_max,
            own.min_learning_epochs,
            own.gate_warmup_epochs,
            own.skip_share,
        )

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what says something: what is read again is the same, and can be changed."""
        values: dict[str, Any] = handler(self)
        values.get("trainer", {}).pop("epochs", None)
        for name in ("lr", "weight_decay"):
            values.get("optimizer", {}).get("kwargs", {}).pop(name, None)
        if values.get("scheduler"):
            values["scheduler"].pop("warmup_steps", None)
        for name in INSTEAD:
            values.pop(name, None)
        return values
