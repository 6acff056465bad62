"""Schema of a coarse-grained training configuration.

The keys of `model`, `training` and `ensemble` are the seed's. What they say about optimizers and
schedules becomes `stages`; a configuration may give `stages` itself instead.
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
from mlff_cli.training.settings import TrainerSection, TrainingSettings
from mlff_cli.training.settings_base import Section
from mlff_cli.training.settings_optimizer import OptimizerSection
from mlff_cli.training.settings_schedules import SchedulerSection
from mlff_cli.training.settings_stages import StageSection

TermName = Literal["bond", "angle", "dihedral", "repulsion", "excluded_volume"]
# sections that say nothing here, and what does
INSTEAD = {
    "loss": "set training.gamma_F and training.gamma_U",
    "metrics": "errors are in kcal/mol/A",
    "transfer": "a coarse-grained model starts from its seed",
}
PRIOR_PART = r"^prior\."  # parameters of the prior in a model


class BeadDataSection(Section):
    """What is trained on."""

    files: Files = []
    """Coarse-grained sets with forces: a file, a pattern as sets/*.npz, or a list of them."""
    temperature: PositiveFloat | None = None
    """K of the frames to take, and of a prior that is fitted; null: the files' own."""
    split_seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of the split alone; null takes the run's."""
    split_stretch: PositiveInt | None = None
    """Consecutive frames that stay together on one side of the split; null: a tenth of a molecule's
    validation frames."""
    in_memory_mb: NonNegativeInt = 2048
    """Memory for frames, in MiB; more of them are read from disk when a batch asks."""
    workers: NonNegativeInt = 1
    """Threads that make batches ahead of their use; 0 makes each when it is needed."""


class BeadModelSection(Section):
    """The model: E = E_allegro + sum of weighted prior terms."""

    cutoff: PositiveFloat = 12.0
    """Distance up to which beads see each other, angstrom."""
    allegro_size: Literal["small", "default", "large"] = "default"
    """Size of Allegro; the fields below change single numbers of it."""
    use_allegro: bool = True
    """Whether there is a learnt energy."""
    use_priors: bool = True
    """Whether there is a prior."""
    prior: str | None = None
    """Prior file of `mlff fit-prior`; null: fitted to the training frames."""
    prior_form: Literal["parametric", "spline"] = "parametric"
    """Form of a prior that is fitted."""
    prior_weights: dict[TermName, NonNegativeFloat] = {}
    """Factor of each term's energy, in place of the prior's own; 0 leaves it out."""
    excluded_volume: bool = True
    """Whether beads 2 to 5 residues apart repel each other, too."""
    train_prior: bool = False
    """Whether the stages train the prior's parameters with Allegro's."""
    l_max: int | None = Field(default=None, ge=0, le=6)
    """Allegro: highest order of the spherical harmonics."""
    chiral: bool | None = None
    """Allegro: whether mirror images may differ in energy."""
    parity: bool | None = None
    """Allegro: where not chiral, whether tensors of both parities are kept."""
    num_layers: PositiveInt | None = None
    """Allegro: layers."""
    num_scalar_features: PositiveInt | None = None
    """Allegro: invariant features of an edge."""
    num_tensor_features: PositiveInt | None = None
    """Allegro: channels of its tensor features."""
    mlp_width: PositiveInt | None = None
    """Allegro: width of the hidden layers."""
    mlp_depth: PositiveInt | None = None
    """Allegro: hidden layers of each multilayer perceptron."""
    num_bessels: PositiveInt | None = None
    """Allegro: Bessel functions that a distance is expanded in."""
    cutoff_exponent: int | None = Field(default=None, ge=2)
    """Allegro: p of the polynomial that takes an edge to zero at the cutoff."""
    avg_num_neighbors: PositiveFloat | None = None
    """Allegro: neighbours of a bead on average; null: those of the training frames."""
    energy_scale: PositiveFloat | None = None
    """Allegro: scale of its energies, kcal/mol; null: the forces' root mean square without the
    prior's, times one angstrom."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.use_allegro or self.use_priors):
            raise ValueError("use_allegro and use_priors are both off: nothing is left")
        return self

    @property
    def trains_prior(self) -> bool:
        """Whether the stages train the prior, which without Allegro is all there is to train."""
        return self.use_priors and (self.train_prior or not self.use_allegro)

    def allegro_changes(self) -> dict[str, Any]:
        """Fields of Allegro that the section gives."""
        names = list(type(self).model_fields)
        own = names[names.index("l_max") :]
        return {n: v for n in own if (v := getattr(self, n)) is not None}


class BeadTrainingSection(Section):
    """How the model is trained."""

    batch_per_device: PositiveInt = 8
    """Frames per step and process; a step's batch is that of all processes together."""
    split: PositiveInt = 1
    """Compute a batch in so many parts and sum their gradients: the same step with less memory."""
    val_fraction: float = 0.1
    """Share of every molecule's frames that is validated on."""
    epochs_adabelief: NonNegativeInt = 100
    """Epochs of the first stage; 0 leaves it out."""
    epochs_yogi: NonNegativeInt = 0
    """Epochs of the second stage; 0 leaves it out."""
    lr_adabelief: float = Field(default=1e-3, gt=0, le=1e3)
    """Learning rate of the first stage."""
    lr_yogi: float = Field(default=3e-4, gt=0, le=1e3)
    """Learning rate of the second stage."""
    warmup_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Share of a stage's steps over which its learning rate rises; a cosine follows."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of both stages."""
    gamma_F: NonNegativeFloat = 1.0
    """Weight of the mean squared error of forces."""
    gamma_U: NonNegativeFloat = 0.0
    """Weight of the mean squared error of energies."""
    pretrain_prior: bool = False
    """Fit the prior's parameters to the forces with L-BFGS before the first stage."""
    epochs_lbfgs: PositiveInt = 50
    """Iterations of L-BFGS at most."""
    frames_lbfgs: PositiveInt = 20_000
    """Frames that L-BFGS looks at, evenly spaced among those of training; at most all."""


class EnsembleSection(Section):
    """Several models from several seeds on one split."""

    enabled: bool = False
    """Train an ensemble."""
    n_models: PositiveInt = 5
    """How many models."""
    save_all_models: bool = False
    """Keep every model, not only the best."""


class BeadTrainerSection(TrainerSection):
    """The loop."""

    gradient_clip_by: Literal["value", "norm", "none"] = "none"
    """Clip every gradient element, the norm of the whole gradient, or nothing: AdaBelief and Yogi
    divide by the gradient's size."""


class CoarseGrainedSettings(TrainingSettings):
    """Everything that `mlff train` reads for this family."""

    family: Literal["coarse-grained"] = "coarse-grained"
    """Which recipe is trained."""
    data: BeadDataSection = BeadDataSection()
    """What is trained on; also a file, a pattern or a list of files."""
    model: BeadModelSection = BeadModelSection()
    """The model."""
    training: BeadTrainingSection = BeadTrainingSection()
    """How it is trained."""
    ensemble: EnsembleSection = EnsembleSection()
    """Several models."""
    trainer: BeadTrainerSection = BeadTrainerSection()
    """The loop."""

    @model_validator(mode="before")
    @classmethod
    def _files(cls, values: Any) -> Any:
        """Read `data: CG.npz` as `data: {files: CG.npz}`."""
        if isinstance(values, dict) and isinstance(values.get("data"), str | list):
            return {**values, "data": {"files": values["data"]}}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        training, model = self.training, self.model
        if not (training.gamma_F or training.gamma_U):
            raise ValueError("training.gamma_F and training.gamma_U are both 0: nothing to learn")
        if (model.train_prior or training.pretrain_prior) and not model.use_priors:
            raise ValueError("model.use_priors=false leaves no prior to train")
        for name, instead in INSTEAD.items():
            if getattr(self, name) != type(getattr(self, name))():
                raise ValueError(f"{name} is for other families; {instead}")
        usual = OptimizerSection()
        if not self.stages and (
            self.optimizer.class_ != usual.class_ or self.optimizer.kwargs.lr != usual.kwargs.lr
        ):
            raise ValueError(
                "optimizer: class and learning rate are those of the stages AdaBelief and Yogi "
                "(training.lr_adabelief, training.lr_yogi); to take another, give stages"
            )
        if self.ensemble.save_all_models:
            self.save_all_models = True
        return self

    @model_validator(mode="after")
    def _own_stages(self) -> Self:
        """The seed's two stages, where the configuration gives no others."""
        if not self.stages:
            self.stages = self._usual_stages()
            epochs = sum(stage.epochs for stage in self.stages)
            self.trainer = self.trainer.model_copy(update={"epochs": epochs})
        return self

    def _usual_stages(self) -> tuple[StageSection, ...]:
        t = self.training
        first = ("AdaBelief", t.epochs_adabelief, t.lr_adabelief)
        second = ("Yogi", t.epochs_yogi, t.lr_yogi)
        found = tuple(self._stage(*one) for one in (first, second) if one[1])
        if not found:
            raise ValueError("training.epochs_adabelief and training.epochs_yogi are both 0")
        return found

    def _stage(self, optimizer: str, epochs: int, lr: float) -> StageSection:
        rests = [PRIOR_PART] if self.model.use_priors and not self.model.trains_prior else []
        kwargs = self.optimizer.kwargs.model_copy(
            update={"lr": lr, "weight_decay": self.training.weight_decay}
        )
        own = self.optimizer.model_copy(
            update={
                "class_": optimizer,
                "kwargs": kwargs,
                "force_no_train": [*rests, *self.optimizer.force_no_train],
            }
        )
        schedule = self.scheduler
        if schedule == SchedulerSection():
            rise = f"{100 * self.training.warmup_fraction:g}%"
            schedule = SchedulerSection(warmup_steps=rise)
        return StageSection(name=optimizer, epochs=epochs, optimizer=own, scheduler=schedule)

    @property
    def members(self) -> int:
        """Models of the ensemble (see `TrainingSettings`)."""
        return self.ensemble.n_models if self.ensemble.enabled else 1

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Stages that follow from `training` are left out: what is read again may change that."""
        values: dict[str, Any] = handler(self)
        if self.stages == self._usual_or_none():
            values.pop("stages", None)
        for name in (*INSTEAD, "optimizer", "scheduler"):
            if getattr(self, name) == type(self).model_fields[name].default:
                values.pop(name, None)  # they say nothing here, or what the stages say better
        return values

    def _usual_or_none(self) -> tuple[StageSection, ...] | None:
        try:
            return self._usual_stages()
        except ValueError:
            return None
