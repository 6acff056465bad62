"""Stages of a run: which steps, which parameters, whose optimizer and schedule.

A stage is a function of the step. It begins with a new optimizer and a schedule of its own, counted
from its first step to its last; the weights go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mlff_cli.core.errors import ConfigError
from mlff_cli.training.optimizers import build_optimizer, freeze
from mlff_cli.training.schedules import Schedule
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.task import Task


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: of it; "" of a run that is a single one.
        first: its first step, counted from 0 over the whole run.
        steps: how many it has.
        optimizer: of the parameters that it trains.
        schedule: of the optimizer's learning rates, counted from `first`.
        frozen: parameters of the model that it does not train.
    """

    name: str
    first: int
    steps: int
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    frozen: frozenset[str] = frozenset()

    @property
    def end(self) -> int:
        """Steps of the run that are done when it ends."""
        return self.first + self.steps


def build_stages(task: Task, settings: TrainingSettings) -> list[Stage]:
    """All stages of a run; optimizers are empty until they make a step.

    Afterwards parameters require a gradient as the last stage says; `Stepper` enters the first.

    Args:
        task: what to train, batches accumulated where they are to be.
        settings: how.

    Raises:
        ConfigError: an optimizer, its groups or a schedule are wrong.
        MissingDependencyError: an optimizer's package is not installed.
    """
    stages: list[Stage] = []
    length = task.epoch_length
    for section in settings.in_stages:
        steps = section.epochs * length
        try:
            frozen = freeze(task.model, section.optimizer, task.part_of)
            optimizer = build_optimizer(task.model, section.optimizer, task.loss, task.part_of)
            rate = section.optimizer.kwargs.lr
            schedule = Schedule(optimizer, section.scheduler, rate, steps, length)
        except ConfigError as error:
            if section.name:
                error.message = f"stage {section.name!r}: {error.message}"
            raise
        first = stages[-1].end if stages else 0
        stages.append(Stage(section.name, first, steps, optimizer, schedule, frozenset(frozen)))
    return stages


def stage_at(stages: Sequence[Stage], step: int) -> int:
    """Index of the stage that makes step `step`, counted from 0; the last one at the end."""
    return next((k for k, stage in enumerate(stages) if step < stage.end), len(stages) - 1)


def group_names(stages: Sequence[Stage]) -> dict[str, str]:
    """What the learning rates `lr_0`, ... are of, over all stages."""
    names: dict[str, dict[str, None]] = {}
    for stage in stages:
        for i, group in enumerate(stage.optimizer.param_groups):
            names.setdefault(f"lr_{i}", {})[str(group["name"])] = None
    return {rate: ", ".join(of) for rate, of in names.items()}
