"""When a training step finds no memory: what it needed, and which batch would have fitted.

Nothing is lost by it: the step ends before the optimizer moves a weight.
"""

from __future__ import annotations

import contextlib
import gc
import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from mlff_cli.core.errors import MissingDependencyError, MLFFError
from mlff_cli.core.memory import size_text
from mlff_cli.training.memory import MARGIN, StepMemory
from mlff_cli.training.task import Batch, Batching, Task

MOST = 0.75  # of a batch that failed: where memory is in pieces, an estimate is too low
# how libraries say it that have no exception of their own
_SIGNS = ("out of memory", "can't allocate memory", "bad_alloc", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextlib.contextmanager
def explained(explain: Callable[[], MLFFError]) -> Iterator[None]:
    """Turn an error of missing memory inside the block into one that helps.

    Args:
        explain: says what happened; called when what the block held is free again.

    Raises:
        MLFFError: what `explain` returns.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed step
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise explain() from None


def explain_step(
    memory: StepMemory,
    task: Task,
    step: int,
    parts: Sequence[Batch],
    free: int,
    last: Path | None = None,
) -> MLFFError:
    """Say what a step needed and which batch would have fitted.

    Args:
        memory: of the task's steps.
        task: what is trained.
        step: which, from 0.
        parts: this process's share of its batch.
        free: bytes that could be had before the first step, beside `memory.held`.
        last: checkpoint that can be resumed from.
    """
    needed = memory.of(parts)
    part = memory.heaviest(parts)
    atoms = int(part.tensors["n_atoms"].max())
    largest = f"; the largest are {task.name_largest(step)}" if task.name_largest else ""
    message = (
        f"out of memory on {memory.device} at step {step + 1}: {len(part)} {task.samples} of up to "
        f"{atoms} {task.made_of} at a time need about {size_text(needed.total - memory.held)}, "
        f"{size_text(free)} were free{largest}"
    )
    fitting = memory.largest(part, int((1 - MARGIN) * (free + memory.held)))
    remedy = advice(task, part, fitting)
    if last is not None and last.exists():
        remedy += f"; the last good state is {last}"
    return MissingDependencyError(message, remedy=remedy)


def advice(task: Task, part: Batch, fitting: int) -> str:
    """Settings under which the steps fit.

    Args:
        task: what is trained.
        part: that does not fit.
        fitting: how many samples of its size do.
    """
    if not fitting:
        return f"not even one of these {task.samples} fits: take a smaller model or a larger device"
    share = min(fitting / len(part), MOST)
    options = task.batching
    if options is None:
        return f"make batches {share:.2f} times as large"
    size = max(1, int(options.size * share))
    split = max(options.split + 1, math.ceil(options.split / share))
    return (
        f"set {options.key}.{options.size_key}={size} (it is {options.size} {options.mode}), or "
        f"{options.key}.split={split}: the same step, computed in {split} parts"
    )


def explain_validation(task: Task, device: torch.device, last: Path | None = None) -> MLFFError:
    """Say that a validation batch found no memory.

    Args:
        task: what is trained.
        device: where it was computed.
        last: checkpoint that can be resumed from.
    """
    key = (task.batching or Batching(0, "")).validation
    remedy = f"lower {key}, which changes no result"
    if last is not None and last.exists():
        remedy += f"; the last good state is {last}"
    return MissingDependencyError(f"out of memory on {device} while validating", remedy=remedy)
