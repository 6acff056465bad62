"""What a model family gives to the stages: a schema and a prepared training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mlff_cli.core.checks import Check
from mlff_cli.core.errors import MLFFError
from mlff_cli.core.reporting import Reporter
from mlff_cli.training.checkpoints import Snapshot
from mlff_cli.training.distributed import World
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.task import Task
from mlff_cli.training.transfer import Transfer


@dataclass(frozen=True)
class Inputs:
    """What a family builds from, beside its settings.

    Attributes:
        model: architecture file (`--model`), or None for the preset's.
        load: weights to start from (`--load`); None: random ones.
        device: where to train.
        dtype: of the weights.
        command: for the provenance of what is written.
        world: the processes that train together; each computes its share of every batch.
        split_seed: of the split, where the settings do not give one: members of an ensemble share
            it.
    """

    model: Path | None
    load: Path | None
    device: torch.device
    dtype: torch.dtype
    command: str
    world: World
    split_seed: int


class Inspection(Protocol):
    """What a family can say of its data before the training begins, for `--dry-run`."""

    def checks(self) -> list[Check]:
        """Findings about files, labels, split and batches."""

    def heavy_steps(self) -> list[int]:
        """Steps of the first epoch, one of which takes most memory."""


@dataclass(frozen=True)
class Prepared:
    """A training that is ready to run.

    Attributes:
        task: for the loop.
        snapshot: makes model files.
        fingerprint: plain values that must be the same when the run is resumed.
        description: rows (name, value) for people.
        transfer: what `--load` made of the model, which has its weights; None without it.
        workers: threads that make training batches.
        warnings: what the user must hear.
        save_split: writes which samples are trained and validated on.
        inspection: looks at the data, when it is asked to.
        close: ends what the training keeps open, as processes; call it when all is done.
    """

    task: Task
    snapshot: Snapshot
    fingerprint: dict[str, Any]
    description: list[tuple[str, str]]
    workers: int = 0
    warnings: list[str] = field(default_factory=list)
    transfer: Transfer | None = None
    save_split: Callable[[Path], None] | None = None
    inspection: Inspection | None = None
    close: Callable[[], None] = lambda: None


class Family(Protocol):
    """A recipe: everything about a kind of model that the loop does not know."""

    @property
    def name(self) -> str:
        """What the configuration's `family` calls it."""

    @property
    def schema(self) -> type[TrainingSettings]:
        """Schema of its configuration."""

    def prepare(self, settings: Any, inputs: Inputs, reporter: Reporter) -> Prepared:
        """Check the data and build model, batches, loss and metrics.

        Raises:
            ConfigError: the settings contradict each other or the data.
            DataError: a data file holds something it must not.
        """

    def diagnose(self, settings: Any, error: MLFFError) -> list[Check]:
        """What can be said of the files one by one, where `prepare` ended with an error."""

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        """The model of a model file's `architecture`, with weights yet to be loaded."""
