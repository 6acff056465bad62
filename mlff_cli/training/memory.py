"""Memory of a training step, known before it runs.

    total = weights + gradients + optimizer + average + activations + lost

The step is run on torch's meta tensors, which have shapes but no data: prediction, loss and
backward pass call the operations that a real step calls, and the bytes of all storages that are
alive at a time are counted. That takes part of a second and hardly any memory.

activations: the most that is alive at a time beside weights, gradients, optimizer and average:
    the batch, what the backward pass will need, and what operations make in passing
lost: freed memory that the allocator cannot give to the next tensor, a share of the activations,
    and what libraries load
"""

from __future__ import annotations

import contextlib
import copy
import math
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlff_cli.core.memory import available_memory
from mlff_cli.training.losses import MultiTaskLoss
from mlff_cli.training.precision import Precision, mixed
from mlff_cli.training.task import Batch, Task

# Lost memory by the activations. On CPUs glibc's heap: least squares over 17 sizes of model and
# batch (tests/benchmarks/bench_memory.py). On GPUs torch's allocator: an allowance, not measured.
LOST = {"cpu": 0.55, "cuda": 0.1}
FIRST_STEP = 10 << 20  # bytes of code and buffers that libraries load for it, from the same fit
MARGIN = 0.2  # of the memory that is free, for the error of an estimate; a suggestion leaves it so


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of a training step in bytes.

    Attributes:
        weights: parameters and buffers.
        gradients: of the parameters that are trained.
        optimizer: what the optimizer keeps between steps.
        average: averaged weights, if they are kept.
        activations: the largest part of the batch and what is computed from it, at its peak.
        lost: what allocator and libraries need beside.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    lost: int

    @property
    def kept(self) -> int:
        """What does not depend on the batch."""
        return self.weights + self.gradients + self.optimizer + self.average

    @property
    def total(self) -> int:
        """What the step needs at its peak."""
        return self.kept + self.activations + self.lost


@dataclass(frozen=True)
class TensorBatch:
    """A batch of tensors alone, with data or without.

    Attributes:
        tensors: by name.
        labels: labels that at least one sample has.
        length: samples.
    """

    tensors: dict[str, Tensor]
    labels: frozenset[str]
    length: int

    def __len__(self) -> int:
        return self.length

    def to(self, device: torch.device) -> TensorBatch:
        """The same batch on a device."""
        return TensorBatch(
            {k: t.to(device) for k, t in self.tensors.items()}, self.labels, self.length
        )


class StepMemory:
    """Estimates the memory of a task's steps.

    Args:
        task: what is trained; its model and its batches are only looked at.
        optimizer: of the task's parameters.
        average: whether averaged weights are kept.
        precision: of matrix products.

    Attributes:
        device: where the steps are made.
        held: bytes that the process holds between steps, by now.
    """

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        *,
        average: bool = False,
        precision: Precision = "full",
    ) -> None:
        self._task = task
        self._precision = precision
        self.device = next(task.model.parameters()).device
        # autocast knows no meta tensors; fake ones say they are on a real device, and are slower
        fake = precision == "bf16"
        self._place = self.device if fake else torch.device("meta")
        self._mode: contextlib.AbstractContextManager[object] = (
            FakeTensorMode() if fake else contextlib.nullcontext()
        )
        learned = nn.ModuleList([task.model, task.loss])
        with self._mode:
            self._learned = _without_data(learned, self._place)
        self._trained = [p for p in self._learned.parameters() if p.requires_grad]
        self._weights = _bytes([*self._learned.parameters(), *self._learned.buffers()])
        self._gradients = _bytes(self._trained)
        self._optimizer = optimizer_bytes(optimizer)
        self._average = self._weights if average else 0
        self.held = self._weights + self._average + _bytes(_tensors(list(optimizer.state.values())))

    def of(self, parts: Sequence[Batch]) -> MemoryEstimate:
        """Estimate a step whose batch is computed in `parts`, one after the other."""
        again = len(parts) > 1
        return self._estimate(max(self._peak(part, again) for part in heavy(parts)))

    def heaviest(self, parts: Sequence[Batch]) -> Batch:
        """The part that takes most memory."""
        return max(heavy(parts), key=lambda part: self._peak(part, True))

    def largest(self, part: Batch, available: int) -> int:
        """How many samples of the size of this part's fit.

        Args:
            part: the largest part of a batch; its padding is kept.
            available: bytes for everything, weights included.

        Returns:
            Samples, 0 where not even one fits.
        """

        def needed(n: int) -> int:
            return self._estimate(self._activations(self._shapes(part, n), again=True)).total

        low = max(1, len(part) // 2)
        first, second = needed(low), needed(2 * low)
        slope = (second - first) / low  # memory is linear in samples of one size
        fitting = int(low + (available - first) / slope)
        while fitting > 0 and needed(fitting) > available:  # but for small steps
            fitting = min(fitting - 1, int(fitting * 0.95))
        return max(0, fitting)

    def _estimate(self, activations: int) -> MemoryEstimate:
        lost = FIRST_STEP + int(LOST.get(self.device.type, 0.0) * activations)
        kept = (self._weights, self._gradients, self._optimizer, self._average)
        return MemoryEstimate(*kept, activations=activations, lost=lost)

    def _peak(self, part: Batch, again: bool) -> int:
        return self._activations(self._shapes(part, len(part)), again=again)

    def _shapes(self, batch: Batch, n: int) -> TensorBatch:
        """A batch of n samples of the sizes of `batch`, without data."""
        with self._mode:
            tensors = {
                name: torch.empty((n, *t.shape[1:]), dtype=t.dtype, device=self._place)
                for name, t in batch.tensors.items()
            }
        return TensorBatch(tensors, batch.labels, n)

    def _activations(self, batch: TensorBatch, *, again: bool) -> int:
        """Bytes at the peak of a step, beside what is kept.

        Args:
            batch: what is computed.
            again: another part came before it, so that all gradients are there already.
        """
        model: nn.Module = self._learned[0]
        loss_of = cast(MultiTaskLoss, self._learned[1])
        with self._mode:
            gradients = [torch.empty_like(p) for p in self._trained]
            whole = loss_of.counts([batch.tensors])
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            parameter.grad = gradient if again else None
        live = _Live([*self._learned.parameters(), *self._learned.buffers(), *gradients])
        live.add(list(batch.tensors.values()))
        with self._mode, live, torch.enable_grad():  # the caller may hold a no_grad
            with mixed(self._precision, self.device):
                predicted = self._task.predict(model, batch, True)
            loss_of(predicted, batch.tensors, whole).total.backward()
        return live.peak if again else max(0, live.peak - self._gradients)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that are alive.

    Args:
        known: tensors whose storages do not count.

    Attributes:
        peak: the most at a time.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {id(t.untyped_storage()): t.untyped_storage() for t in known}
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._now = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.add(_tensors(out))
        return out

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Count the tensors' storages, each once, for as long as it lives."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = id(storage), storage.nbytes()
            if key in self._known or key in self._alive:
                continue

            def gone(_: object, key: int = key, size: int = size) -> None:
                del self._alive[key]
                self._now -= size

            self._alive[key] = weakref.ref(storage, gone)
            self._now += size
            self.peak = max(self.peak, self._now)


def _without_data(learned: nn.ModuleList, place: torch.device) -> nn.ModuleList:
    """A copy of modules with tensors of no data."""
    memo: dict[int, Any] = {}
    for tensor in (*learned.parameters(), *learned.buffers()):
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=place)
        trainable = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if trainable else empty
    return copy.deepcopy(learned, memo)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What the optimizer keeps between steps: what it has or, before its first step, will have.

    A copy of it makes a step with parameters of two elements per dimension. What has that many of
    a dimension will have all of the real one's.
    """
    if optimizer.state:
        return _bytes(_tensors(list(optimizer.state.values())))
    real = [p for group in optimizer.param_groups for p in group["params"]]
    small = [nn.Parameter(torch.zeros([2] * p.dim(), dtype=p.dtype)) for p in real]
    of = {id(p): s for p, s in zip(real, small, strict=True)}
    # no deep copy: torch's keeps two attributes only, and a schedule's hook on `step` is not ours
    trial = object.__new__(type(optimizer))
    trial.__dict__ |= {k: v for k, v in vars(optimizer).items() if k != "step"}
    trial.state = defaultdict(dict)
    trial.param_groups = [
        {**group, "params": [of[id(p)] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    for parameter in small:
        parameter.grad = torch.zeros_like(parameter)
    trial.step()
    return sum(
        t.element_size() * _grown(t.shape, p.shape)
        for p, s in zip(real, small, strict=True)
        for t in _tensors(trial.state[s])
    )


def _grown(small: torch.Size, real: torch.Size) -> int:
    """Elements of a state that has shape `small` where its parameter has 2 per dimension."""
    if len(small) != len(real):  # as a counter of steps
        return math.prod(small)
    return math.prod(r if s == 2 else s for s, r in zip(small, real, strict=True))


def _tensors(tree: object) -> list[Tensor]:
    return [t for t in tree_leaves(tree) if isinstance(t, Tensor)]


def _bytes(tensors: Iterator[Tensor] | Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def heavy(parts: Sequence[Batch]) -> list[Batch]:
    """Parts one of which takes most memory: that of most padded atoms and that of most pairs."""

    def pairs(part: Batch) -> float:  # bytes go with B N, their square by B with B N^2
        return _bytes(list(part.tensors.values())) ** 2 / max(1, len(part))

    most = (max(parts, key=lambda part: _bytes(list(part.tensors.values()))), max(parts, key=pairs))
    return list({id(part): part for part in most}.values())


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type != "cuda":
        return available_memory()
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + cached)
