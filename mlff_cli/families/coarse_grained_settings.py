"""Schema of a coarse-grained training configuration.

The keys of `model`, `training` and `ensemble` are the seed's. What they say about optimizers and
schedules becomes `stages`; a configuration may give `stages` itself instead. A key that would have
no effect is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from mlff_cli.families.coarse_grained_stages import KEYS, StageMaker, given
from mlff_cli.training.settings import TrainerSection, TrainingSettings
from mlff_cli.training.settings_base import Section

TermName = Literal["bond", "angle", "dihedral", "repulsion", "excluded_volume"]
# sections that say nothing here, and what does
INSTEAD = {
    "loss": "set training.gamma_F and training.gamma_U",
    "metrics": "errors are in kcal/mol/A",
    "transfer": "a coarse-grained model starts from its seed",
}


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
    prior's, times 0.1 angstrom."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.use_allegro or self.use_priors):
            raise ValueError("use_allegro and use_priors are both off: nothing is left")
        if not self.use_priors:
            self._refuse(("prior", "prior_form", "prior_weights", "excluded_volume"), "use_priors")
        elif self.prior is not None and self.prior_form != "parametric":
            raise ValueError("prior_form is of a prior that is fitted, prior names a file")
        if not self.use_allegro:
            self._refuse(tuple(self.allegro_changes()), "use_allegro")
        return self

    def _refuse(self, names: Sequence[str], switch: str) -> None:
        """Fields that say nothing while a part of the model is off."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect with {switch}=false; leave one of them out")

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

    def _complete_stages(self) -> Self:
        """Refuse keys that contradict each other or say nothing, and make the stages."""
        self._refuse_contradictions()
        maker, listed = self._maker(), bool(self.stages)
        self.stages = maker.completed(self.stages) if listed else maker.usual()
        self._refuse_unused(maker.used, listed)
        super()._complete_stages()
        if self.ensemble.save_all_models:
            self.save_all_models = True
        return self

    def _maker(self) -> StageMaker:
        rests = self.model.use_priors and not self.model.trains_prior
        own = given(self, "scheduler")
        return StageMaker(self.training, self.optimizer, self.scheduler, own, rests)

    def _refuse_contradictions(self) -> None:
        training, model = self.training, self.model
        if not (training.gamma_F or training.gamma_U):
            raise ValueError("training.gamma_F and training.gamma_U are both 0: nothing to learn")
        if (model.train_prior or training.pretrain_prior) and not model.use_priors:
            raise ValueError("model.use_priors=false leaves no prior to train")
        if training.gamma_U and model.trains_prior:
            raise ValueError(
                "training.gamma_U compares energies up to a constant of each molecule, which moves "
                "with a prior that the stages train; set gamma_U=0, or leave the prior at rest and "
                "fit it before with training.pretrain_prior"
            )
        for name, instead in INSTEAD.items():
            if getattr(self, name) != type(getattr(self, name))():
                raise ValueError(f"{name} is for other families; {instead}")

    def _refuse_unused(self, used: set[str], listed: bool) -> None:
        """Keys about stages that no stage looked at."""
        if not listed:
            kwargs = self.optimizer.kwargs
            if given(self.optimizer, "class_") or given(kwargs, "lr"):
                raise ValueError(
                    "optimizer: class and learning rate are those of the stages AdaBelief and Yogi "
                    "(training.lr_adabelief, training.lr_yogi); to take another, give stages"
                )
            if given(kwargs, "weight_decay"):
                raise ValueError(
                    "optimizer.kwargs.weight_decay is that of the stages AdaBelief and Yogi; set "
                    "training.weight_decay"
                )
            if given(self.training, "warmup_fraction") and "warmup_fraction" not in used:
                raise ValueError(
                    "training.warmup_fraction has no effect: the run's `scheduler` counts; leave "
                    "one of them out"
                )
            return
        for name in KEYS:
            if given(self.training, name) and name not in used:
                raise ValueError(
                    f"training.{name} has no effect: `stages` say it themselves; leave it out"
                )
        for name in ("optimizer", "scheduler"):
            if given(self, name) and name not in used:
                raise ValueError(f"{name} has no effect: every stage has its own; leave it out")

    @property
    def members(self) -> int:
        """Models of the ensemble (see `TrainingSettings`)."""
        return self.ensemble.n_models if self.ensemble.enabled else 1

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what says something: what is read again is the same, and can be changed."""
        values: dict[str, Any] = handler(self)
        values.get("trainer", {}).pop("epochs", None)  # those of the stages
        for name in INSTEAD:
            if getattr(self, name) == type(self).model_fields[name].default:
                values.pop(name, None)
        if self._usual():
            values.pop("stages", None)
            _without(values.get("optimizer", {}), ("class", "class_"))
            _without(values.get("optimizer", {}).get("kwargs", {}), ("lr", "weight_decay"))
            if given(self, "scheduler"):
                _without(values.get("training", {}), ("warmup_fraction",))
        else:  # which have everything
            _without(values, ("optimizer", "scheduler"))
            _without(values.get("training", {}), KEYS)
        for name in ("optimizer", "scheduler"):
            if not given(self, name):
                values.pop(name, None)
        return values

    def _usual(self) -> bool:
        """Whether the stages are those that `training` makes."""
        try:
            return self.stages == self._maker().usual()
        except ValueError:
            return False


def _without(values: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        values.pop(name, None)
