"""What the loop needs to know of a family: a model, batches, a loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from mlff_cli.training.losses import MultiTaskLoss
from mlff_cli.training.metrics import RegressionMetrics


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
        key: of the section that holds `batch_size` and `split`.
    """

    size: int
    mode: str
    split: int = 1
    key: str = "data.samplers.train.kwargs"


PartOf = Callable[[str], str]  # the part of a model that the parameter of a name belongs to


def whole_model(name: str) -> str:
    """The part of a model that knows no parts."""
    return ""


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
    """

    model: nn.Module
    epoch_length: int
    train_batch: Callable[[int], Sequence[Batch]]
    n_validation: int
    validation_batch: Callable[[int], Batch]
    predict: Callable[[nn.Module, Batch, bool], Mapping[str, Tensor]]
    loss: MultiTaskLoss
    new_metrics: Callable[[], RegressionMetrics]
    measured: Sequence[str]
    watch: Sequence[str]
    name_samples: Callable[[int], str]
    validation_workers: int = 0
    part_of: PartOf = whole_model
    name_largest: Callable[[int], str] | None = None
    batching: Batching | None = None


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
