"""Schema of what is written while a run goes on: logs, trackers."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from mlff_cli.training.settings_base import Section


class Iterations(Section):
    """How often numbers are written, in iterations."""

    train: PositiveInt | None = None
    """Training loss; null: once per epoch."""
    val: PositiveInt | None = None
    """Validation; null: once per epoch."""


class LogFrequency(Iterations):
    """How often numbers are written and shown."""

    console: dict[PositiveInt, PositiveInt] = {1: 1, 11: 10, 101: 100}
    """Epochs between two lines on the terminal, by the epoch from which that holds; `train.log` has
    every line."""
    figure_seconds: PositiveFloat = 60.0
    """Seconds between two drawings of the loss curves while the run goes on; more where drawing
    would take over a hundredth of the time."""


class WandbInit(Section):
    """Arguments of wandb.init."""

    mode: Literal["disabled", "offline", "online"] = "disabled"
    """Log to Weights & Biases: not at all, into the run folder (`wandb sync` sends it), at once."""
    name: str | None = None
    """Name of the run; null: run_name."""
    entity: str | None = None
    """Account."""
    project: str | None = None
    """Project; null: project_name."""
    group: str | None = None
    """Group of runs that belong together."""
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
    log_frequency: Iterations | None = None
    """The same as the top-level key, where aimnet2mult has it; works without wandb."""
