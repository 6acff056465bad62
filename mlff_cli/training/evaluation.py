"""Loss and metrics over the whole validation set, whatever its batches and processes."""

from __future__ import annotations

import torch
from torch import nn

from mlff_cli.training.distributed import World
from mlff_cli.training.prefetch import ahead
from mlff_cli.training.task import Task


def evaluate(
    task: Task, model: nn.Module, device: torch.device, world: World
) -> tuple[float, dict[str, float]]:
    """Measure a model on every validation sample once; every process must call it.

    Args:
        task: whose validation set, loss and metrics.
        model: what is measured: the task's own, or its averaged copy.
        device: where the model is.
        world: the processes, which share the batches.

    Returns:
        The loss, and by name the loss, its components and all metrics.
    """
    metrics = task.new_metrics()
    names = task.loss.names
    sums = torch.zeros(2, len(names), dtype=torch.float64, device=device)  # [errors or counts, c]
    own = range(world.rank, task.n_validation, world.size)
    was_training = model.training
    model.eval()
    batches = ahead(lambda i: task.validation_batch(own[i]), 0, len(own), task.validation_workers)
    with torch.no_grad(), batches:
        for host_batch in batches:
            batch = host_batch.to(device)
            predicted = task.predict(model, batch, False)
            value = task.loss(predicted, batch.tensors)
            sums += torch.stack([value.sums, value.counts.to(torch.float64)])
            metrics.update(predicted, batch.tensors)
    model.train(was_training)
    world.sum_(sums)
    metrics.reduce(world)
    parts = task.loss.parts(sums[0], sums[1]).tolist()
    named = {f"{name}_loss": p for name, p in zip(names, parts, strict=True)}
    return sum(parts), {"loss": sum(parts), **named, **metrics.compute()}
