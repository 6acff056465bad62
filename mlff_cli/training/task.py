"""What the loop needs to know of a family: a model, batches, a loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlff_cli.training.distributed import World
from mlff_cli.training.losses import MultiTaskLoss


class Batch(Protocol):
    """Tensors of some samples."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Inputs, labels and masks."""

    @property
    def labels(self) -> frozenset[str]:
        """Labels that at least one sample has."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""


@dataclass(frozen=True)
class Batching:
    """Which settings make a batch, for advice about them.

    Attributes:
        size: of a batch.
        mode: what it counts, as "atoms".
        split: parts that a batch is computed in.
        key: of the section that holds the size and `split`.
        size_key: of the size in that section.
        validation: key of the size of validation batches.
    """

    size: int
    mode: str
    split: int = 1
    key: str = "data.samplers.train.kwargs"
    size_key: str = "batch_size"
    validation: str = "data.samplers.val.kwargs.batch_size"


PartOf = Callable[[str], str]  # the part of a model that the parameter of a name belongs to


def whole_model(name: str) -> str:
    """The part of a model that knows no parts."""
    return ""


class Metrics(Protocol):
    """Accumulates errors; `metrics.RegressionMetrics` does it for padded molecules.

    Attributes:
        units: unit of every metric's name, "" where it has none, in the order of columns.
    """

    units: dict[str, str]

    def update(self, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Add a batch."""

    def reduce(self, world: World) -> None:
        """Take in what the other processes accumulated; every process must call it."""

    def compute(self) -> dict[str, float]:
        """All metrics that have data."""

    def state(self) -> Tensor:
        """What was accumulated, to continue from."""

    def load(self, state: Tensor) -> None:
        """Continue from `state`."""

    def merge(self, states: Tensor) -> Tensor:
        """The state (...) of all data of several states (R, ...)."""


@dataclass(frozen=True)
class Pretraining:
    """A minimisation of a few parameters before the first stage, over the whole training set.

    The parameters are trained here whether or not a stage trains them, and nothing else is.

    Attributes:
        name: of it, in rows and lines.
        parameters: what is trained, on the model's device; float64 is advised, rounding of the
            loss ends the minimisation early.
        objective: computes this process's share of the loss, adds its gradient to the parameters'
            `.grad`, and returns it (scalar, detached). The shares of all processes sum to the loss.
            A pure function of the parameters.
        steps: iterations at most.
        tolerance: ends when an iteration lowers the loss by less than this share of it.
        report: rows (name, value) for people, when it is done.
        then: called in every session when the parameters are as the minimisation left them, or
            as stages changed them since: before the first step is made.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    objective: Callable[[], Tensor]
    steps: int = 100
    tolerance: float = 1e-9
    report: Callable[[], Sequence[tuple[str, str]]] = tuple
    then: Callable[[], None] = lambda: None


class Journal(Protocol):
    """What a family notes of every step, how it tells of it, and its veto against steps.

    All processes keep the same notes; the main one writes them.
    """

    def open(self, folder: Path, resume_after: int | None) -> None:
        """Begin the files of a run folder, or keep what they say up to a step."""

    def see(self, predicted: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Hear the predictions of a part of the step's batch."""

    def judge(self, healthy: Callable[[], bool], world: World) -> bool:
        """Whether the step is made, when the gradients are summed; every process must call it.

        Args:
            healthy: tells whether loss and gradient are finite; waits for the device.
            world: the processes.
        """

    def close(
        self, step: int, *, epoch: int, at_end: bool, lr: float, warmup: bool, grad_norm: float
    ) -> None:
        """Write what there is to say of a step, and of the epoch at its end."""

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Hear of a validation, before the step that it followed is closed."""

    def bar(self, lr: float) -> dict[str, str]:
        """What stands beside the bar."""

    def block(self, lr: float, improvement: float | None) -> list[str]:
        """Lines about the last epoch, and by which share validations have improved."""

    def banner(self) -> list[str]:
        """Lines for the beginning."""

    def summary(self) -> list[tuple[str, str]]:
        """Rows (name, value) for the end, also after an interruption."""

    def doubts(self) -> list[str]:
        """What to warn of at the end of a run that came to its end."""

    def remedy(self) -> str:
        """What helps where a step was not finite and no veto kept it from the weights."""

    def state(self) -> dict[str, Any]:
        """Plain values and tensors to continue from."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""


@dataclass(frozen=True)
class Task:
    """A training problem.

    Attributes:
        model: what is trained, on its device.
        epoch_length: training batches per epoch.
        train_batch: batch of a step, counted from 0 over all epochs, in one or more parts whose
            gradients are summed; a pure function.
        n_validation: validation batches.
        validation_batch: one of them; together they hold every validation sample once.
        predict: runs the model on (model, batch, training) and returns predictions by label; keeps
            the graph of derivatives only where training.
        loss: compares predictions with a batch.
        new_metrics: an empty accumulator.
        measured: names of the metrics that the validation set has labels for.
        watch: names of metrics to show while training.
        validation_workers: threads that make validation batches ahead.
        name_samples: says which samples the batch of a step holds.
        part_of: part of the model that a parameter belongs to, by name; expressions that choose
            parameters are searched in `part.name`, too.
        name_largest: says which samples of it are the largest.
        batching: how its batches are made.
        pretraining: what comes before the first stage of a new run; None: nothing.
        noise_bound: error that noise of the labels makes at most, by metric, as F_rmse, in its
            unit; shown beside it. The noise itself may be less, so that it excuses no error.
        samples: what a batch holds.
        journal: what notes, and may veto, every step; None: nothing does.
    """

    model: nn.Module
    epoch_length: int
    train_batch: Callable[[int], Sequence[Batch]]
    n_validation: int
    validation_batch: Callable[[int], Batch]
    predict: Callable[[nn.Module, Batch, bool], Mapping[str, Tensor]]
    loss: MultiTaskLoss
    new_metrics: Callable[[], Metrics]
    measured: Sequence[str]
    watch: Sequence[str]
    name_samples: Callable[[int], str]
    validation_workers: int = 0
    part_of: PartOf = whole_model
    name_largest: Callable[[int], str] | None = None
    batching: Batching | None = None
    pretraining: Pretraining | None = None
    noise_bound: Mapping[str, float] = field(default_factory=dict)
    samples: str = "molecules"
    journal: Journal | None = None

    @property
    def made_of(self) -> str:
        """What a sample is made of."""
        return "beads" if self.samples == "frames" else "atoms"


def accumulated(task: Task, n: int) -> Task:
    """The same task with the batches of `n` steps in one, computed one after the other.

    The last step of an epoch takes what is left.
    """
    if n == 1:
        return task
    length = task.epoch_length
    steps = -(-length // n)

    def batches(step: int) -> range:
        epoch, k = divmod(step, steps)
        first = epoch * length + k * n
        return range(first, min(first + n, (epoch + 1) * length))

    def joined(name: Callable[[int], str]) -> Callable[[int], str]:
        return lambda step: "; ".join(name(b) for b in batches(step))

    return replace(
        task,
        epoch_length=steps,
        train_batch=lambda step: [part for b in batches(step) for part in task.train_batch(b)],
        name_samples=joined(task.name_samples),
        name_largest=task.name_largest and joined(task.name_largest),
    )
