"""Schema of a training in stages, each with an optimizer and a schedule of its own."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from mlff_cli.training.settings_base import Section
from mlff_cli.training.settings_optimizer import OptimizerSection, SchedulerSection


class StageSection(Section):
    """One stage of a training. Weights go on from stage to stage, the optimizer begins anew."""

    name: str = Field(pattern=r"^\w[\w -]*$")
    """What rows and lines call it."""
    epochs: PositiveInt
    """Epochs that it lasts."""
    optimizer: OptimizerSection = OptimizerSection()
    """How weights move; the run's `optimizer` where it is left out."""
    scheduler: SchedulerSection | None = SchedulerSection()
    """How the learning rate changes, counted from the stage's beginning to its end; null keeps it.
    The run's `scheduler` where it is left out."""
