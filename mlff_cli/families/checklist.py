"""What `mlff train --dry-run` looks at beside the data: packages, device, memory, time."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import shutil
import time

import torch

from mlff_cli.core.checks import Check
from mlff_cli.core.errors import MissingDependencyError
from mlff_cli.core.memory import size_text
from mlff_cli.families.base import Prepared
from mlff_cli.training.memory import MARGIN, StepMemory, TensorBatch, free_memory
from mlff_cli.training.out_of_memory import advice, is_out_of_memory
from mlff_cli.training.precision import matrix_products, mixed
from mlff_cli.training.settings import TrainingSettings
from mlff_cli.training.step import Stepper
from mlff_cli.training.task import Batch, Task
from mlff_cli.training.trackers import check_trackers

PACKAGES = ("torch", "numpy", "h5py", "pytorch-ignite")
TIMED = 16  # molecules of the step that is timed
SURELY = 1.3  # times the free memory: an estimate that no error of it explains


def checklist(prepared: Prepared, stepper: Stepper, settings: TrainingSettings) -> list[Check]:
    """Every finding about a training that is ready to run; the model's weights stay as they are.

    Args:
        prepared: what the family made.
        stepper: makes its steps.
        settings: the configuration.
    """
    found = list(prepared.inspection.checks()) if prepared.inspection else []
    heavy = prepared.inspection.heavy_steps() if prepared.inspection else [0]
    found += [check_device(stepper.device), *check_packages(settings)]
    found += [check_parameters(stepper.task), check_memory(stepper, settings, heavy)]
    if found[-1].verdict != "failed":
        found.append(check_time(stepper, settings))
    return found


def check_device(device: torch.device) -> Check:
    """Where the training would run."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        size = size_text(properties.total_memory)
        return Check("device", f"{device}: {properties.name}, {size}")
    threads = torch.get_num_threads()
    finding = f"{device}, {threads} thread{'s' * (threads > 1)}"
    if device.type == "cpu" and torch.cuda.is_available():
        return Check("device", f"{finding}; a GPU is here", "warning", "use it: --device cuda")
    return Check("device", finding)


def check_packages(settings: TrainingSettings) -> list[Check]:
    """Versions of what is always needed, and whether there is what the configuration asks for."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    found = [Check("packages", f"Python {platform.python_version()}, {', '.join(versions)}")]
    tracked = {"tensorboard": settings.tensorboard, "wandb": settings.wandb.init.mode != "disabled"}
    names = [name for name, wanted in tracked.items() if wanted]
    if names:
        try:
            check_trackers(settings)
            told = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
            found.append(Check("trackers", told))
        except MissingDependencyError as error:
            found.append(Check.failed("trackers", error))
    if settings.trainer.compile:
        compiler = shutil.which(os.environ.get("CXX", "g++"))
        found.append(
            Check("compiler", compiler)
            if compiler
            else Check.failed(
                "compiler",
                MissingDependencyError(
                    "a compiled training step needs a C++ compiler, found none",
                    remedy="install g++ or set CXX, or leave --compile out",
                ),
            )
        )
    return found


def check_parameters(task: Task) -> Check:
    """How many there are, and how many are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in task.model.parameters()]
    total, trained = sum(n for n, _ in sizes), sum(n for n, on in sizes if on)
    frozen = f", {total - trained} of them frozen" if trained < total else ""
    return Check("parameters", f"{total}{frozen}")


def check_memory(stepper: Stepper, settings: TrainingSettings, heavy: list[int]) -> Check:
    """Estimated memory of the largest step, beside what is free.

    Args:
        stepper: makes the steps.
        settings: the configuration.
        heavy: batches, counted without accumulation, one of which takes most memory.
    """
    task, n = stepper.task, settings.trainer.accumulate
    memory = StepMemory(
        task,
        stepper.optimizer,
        average=stepper.average is not None,
        precision=settings.trainer.precision,
    )
    steps = {b // n for b in heavy}  # batches of the first epoch, n of which make a step
    estimates = [(memory.of(parts), parts) for s in steps if (parts := task.train_batch(s))]
    if not estimates:
        return Check("memory", "this process computes no part of the batch")
    need, parts = max(estimates, key=lambda pair: pair[0].total)
    part = memory.heaviest(parts)
    free = free_memory(stepper.device) + memory.held
    sizes = part.tensors.get("n_atoms")  # where samples are of several sizes
    of = "" if sizes is None else f" of up to {int(sizes.max())} {task.made_of}"
    finding = (
        f"about {size_text(need.total)} of {size_text(free)} for {len(part)} {task.samples}{of} at "
        "a time: "
        f"weights {size_text(need.weights)}, "
        f"gradients {size_text(need.gradients)}, optimizer {size_text(need.optimizer)}, "
        + (f"average {size_text(need.average)}, " if need.average else "")
        + f"activations {size_text(need.activations)}, allocator {size_text(need.lost)}"
    )
    if need.total < (1 - MARGIN) * free:
        return Check("memory", finding)
    remedy = advice(task, part, memory.largest(part, int((1 - MARGIN) * free)))
    if need.total < SURELY * free:
        return Check("memory", finding, "warning", remedy)
    short = f"a step needs about {size_text(need.total)} of memory, {size_text(free)} can be had"
    error = MissingDependencyError(f"{short} on {stepper.device}", remedy=remedy)
    return Check("memory", finding, "failed", remedy, error)


def check_time(stepper: Stepper, settings: TrainingSettings) -> Check:
    """Time of a step, of an epoch and of all, from a few molecules of the first batch."""
    task, device = stepper.task, stepper.device
    parts = task.train_batch(0)
    if not parts:
        return Check("time", "this process computes no part of the batch")
    largest = max(parts, key=_size)
    sample = _first(largest, TIMED).to(device)
    precision = settings.trainer.precision

    def step(batch: Batch) -> None:
        with mixed(precision, device):
            predicted = task.predict(task.model, batch, True)
        whole = task.loss.counts([batch.tensors])
        task.loss(predicted, batch.tensors, whole).total.backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    training = task.model.training
    task.model.train()
    try:
        with matrix_products(precision, device):
            step(_first(largest, 2).to(device))  # loads and tunes what libraries do on first use
            start = time.perf_counter()
            step(sample)
            spent = time.perf_counter() - start
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return Check("time", "not measured: no memory was left for it", "warning")
    finally:
        task.model.train(training)
        for parameter in (*task.model.parameters(), *task.loss.parameters()):
            parameter.grad = None
    seconds = spent * sum(map(_size, parts)) / _size(sample)
    epoch, total = seconds * task.epoch_length, settings.trainer.epochs
    compiled = ", not compiled" if settings.trainer.compile else ""
    return Check(
        "time",
        f"about {_span(seconds)} per step, {_span(epoch)} per epoch, {_span(total * epoch)} for "
        f"{total} epochs without validation (from {len(sample)} {task.samples}{compiled})",
    )


def _first(batch: Batch, n: int) -> TensorBatch:
    """The first samples of a batch."""
    n = min(n, len(batch))
    return TensorBatch({k: t[:n] for k, t in batch.tensors.items()}, batch.labels, n)


def _size(batch: Batch) -> int:
    """Bytes, which go with padded atoms."""
    return sum(t.nbytes for t in batch.tensors.values())


def _span(seconds: float) -> str:
    """Seconds for people.

    >>> [_span(s) for s in (0.0123, 2.5, 200, 9000, 2e6)]
    ['0.012 s', '2.5 s', '3.3 min', '2.5 h', '23 days']
    """
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{_two(seconds / size)} {unit}"
    return f"{_two(seconds)} s"


def _two(value: float) -> str:
    """Two significant digits, without an exponent."""
    digits = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{digits}f}"
