"""The stages of a coarse-grained training: the seed's two, or a list whose gaps the family fills.

    AdaBelief   training.epochs_adabelief, lr_adabelief      then
    Yogi        training.epochs_yogi, lr_yogi                (0 epochs leave a stage out)

both with `training.weight_decay`, a rise over `training.warmup_fraction` and a cosine. What a stage
of a list leaves out is taken from the run's `optimizer` and `scheduler`, and what these leave out
from the same keys. A prior that rests is frozen in every stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlff_cli.training.settings_base import Section
from mlff_cli.training.settings_optimizer import OptimizerSection
from mlff_cli.training.settings_schedules import SchedulerSection
from mlff_cli.training.settings_stages import StageSection

PRIOR_PART = r"^prior\."  # parameters of the prior in a model
FIRST, SECOND = "AdaBelief", "Yogi"
KEYS = (  # of `training`, about stages
    "epochs_adabelief",
    "epochs_yogi",
    "lr_adabelief",
    "lr_yogi",
    "warmup_fraction",
    "weight_decay",
)


@dataclass
class StageMaker:
    """Makes stages, and notes which keys had a say.

    Attributes:
        training: section `training`.
        optimizer: of the run.
        scheduler: of the run, if `own_scheduler`.
        own_scheduler: whether the configuration gives one.
        rests: whether there is a prior that no stage trains.
        used: keys that were looked at: of `KEYS`, "optimizer" and "scheduler".
    """

    training: Any
    optimizer: OptimizerSection
    scheduler: SchedulerSection | None
    own_scheduler: bool
    rests: bool
    used: set[str] = field(default_factory=set)

    def usual(self) -> tuple[StageSection, ...]:
        """The seed's stages.

        Raises:
            ValueError: neither has an epoch.
        """
        t = self.training
        epochs = {FIRST: t.epochs_adabelief, SECOND: t.epochs_yogi}
        if not any(epochs.values()):
            raise ValueError("training.epochs_adabelief and training.epochs_yogi are both 0")
        return tuple(
            StageSection(
                name=name,
                epochs=n,
                optimizer=self._optimizer(_with_class(self.optimizer, name)),
                scheduler=self._scheduler(),
            )
            for name, n in epochs.items()
            if n
        )

    def completed(self, stages: Sequence[StageSection]) -> tuple[StageSection, ...]:
        """Stages of a list with what they leave out."""
        made = []
        for stage in stages:
            own, schedule = stage.optimizer, stage.scheduler
            if not given(stage, "optimizer"):
                own = self.optimizer
                self.used.add("optimizer")
            if not given(stage, "scheduler"):
                schedule = self._scheduler()
            if not given(own, "class_"):
                own = _with_class(own, FIRST)
            update = {"optimizer": self._optimizer(own), "scheduler": schedule}
            made.append(stage.model_copy(update=update))
        return tuple(made)

    def _optimizer(self, own: OptimizerSection) -> OptimizerSection:
        """An optimizer with the family's rate and decay where it has none, and a frozen prior."""
        rate = "lr_yogi" if own.class_.rpartition(".")[2] == SECOND else "lr_adabelief"
        update = {}
        for name, key in (("lr", rate), ("weight_decay", "weight_decay")):
            if not given(own.kwargs, name):
                update[name] = getattr(self.training, key)
                self.used.add(key)
        frozen = list(own.force_no_train)
        if self.rests and PRIOR_PART not in frozen:
            frozen.insert(0, PRIOR_PART)
        kwargs = own.kwargs.model_copy(update=update)
        return own.model_copy(update={"kwargs": kwargs, "force_no_train": frozen})

    def _scheduler(self) -> SchedulerSection | None:
        self.used.add("scheduler")
        if self.own_scheduler:
            return self.scheduler
        self.used.add("warmup_fraction")
        return SchedulerSection(warmup_steps=f"{100 * self.training.warmup_fraction:g}%")


def given(section: Section, name: str) -> bool:
    """Whether the configuration gives a field of a section."""
    return name in section.model_fields_set


def _with_class(optimizer: OptimizerSection, name: str) -> OptimizerSection:
    return optimizer.model_copy(update={"class_": name})
