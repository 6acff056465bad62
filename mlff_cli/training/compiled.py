"""The gradients of a training step as one compiled graph.

    y = predict(p, batch),  L = loss(y, batch)   ->   L, y, dL/dp        p: trainable parameters

Forces are derivatives of the energy, so dL/dp holds second derivatives, which torch.compile
refuses; `recording` gets rid of all derivatives before anything is compiled. The number of samples
B and of atoms N are symbols: one graph serves every batch with the same set of labels. Nothing in
it depends on the batches seen before, so that a resumed run computes the same bits as one that was
never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mlff_cli.core.compilers import check_compiler
from mlff_cli.core.fields import FIELDS
from mlff_cli.training.losses import LossValue
from mlff_cli.training.precision import Precision, mixed
from mlff_cli.training.recording import Compiler, Dims, Recorded, inductor
from mlff_cli.training.task import Batch, Task


class CompiledBackward:
    """Loss, predictions and gradients of batches, as autograd gives them operation by operation.

    Args:
        task: model, prediction and loss.
        precision: of matrix products.
        compiler: what compiles the graphs.

    Raises:
        MissingDependencyError: there is nothing to compile with.
    """

    def __init__(
        self, task: Task, precision: Precision = "full", compiler: Compiler = inductor
    ) -> None:
        check_compiler(next(task.model.parameters()).device.type, "a training step")
        self._compiler = compiler
        self._objective = _Objective(task, precision)
        self._graphs: dict[tuple[object, ...], _Graph] = {}

    @property
    def compilations(self) -> int:
        """Graphs made so far: one per set of labels and of trainable parameters."""
        return sum(graph.compiled for graph in self._graphs.values())

    def __call__(self, batch: Batch, whole: Tensor) -> tuple[LossValue, Mapping[str, Tensor]]:
        """Add the gradients of a batch to those of the parameters.

        Args:
            batch: on the model's device.
            whole: (C,) labels of the whole batch (see `MultiTaskLoss`).

        Returns:
            The loss and the predictions, detached.
        """
        given = {name: batch.tensors[name].contiguous() for name in sorted(batch.tensors)}
        given["whole"] = whole
        named = self._objective.named_parameters()
        trained = {name: p for name, p in named if p.requires_grad}
        kinds = tuple((name, t.dtype, *_dims(name, t)) for name, t in given.items())
        key = (batch.labels, kinds, *trained)
        if key not in self._graphs:
            self._graphs[key] = _Graph(
                self._objective, batch.labels, tuple(trained), self._compiler
            )
        value, predicted, gradients = self._graphs[key](given)
        for name, gradient in gradients.items():
            parameter = trained[name]
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad += gradient
        return value, predicted


def _dims(name: str, tensor: Tensor) -> Dims:
    """Sizes of a tensor of a batch: B samples, N atoms or a number."""
    if name == "whole":
        return tuple(tensor.shape)
    if name in FIELDS:
        return ("B", *FIELDS[name].dims)
    return ("B", *tensor.shape[1:])  # masks, counts of atoms, fidelities


@dataclass(frozen=True)
class _Given:
    """A batch as `predict` and the loss need it."""

    tensors: dict[str, Tensor]
    labels: frozenset[str]

    def __len__(self) -> int:
        return len(self.tensors["n_atoms"])

    def to(self, device: torch.device) -> _Given:
        """The same on a device."""
        return _Given({name: t.to(device) for name, t in self.tensors.items()}, self.labels)


class _Objective(nn.Module):
    """The loss of a batch as a function of all parameters, those of the loss included."""

    def __init__(self, task: Task, precision: Precision) -> None:
        super().__init__()
        self.model = task.model
        self.loss = task.loss
        self._predict = task.predict
        self._precision = precision

    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers, without their gradients."""
        both = (*self.named_parameters(), *self.named_buffers())
        return {name: tensor.detach() for name, tensor in both}

    def forward(self, batch: Batch, whole: Tensor) -> tuple[LossValue, dict[str, Tensor]]:
        """Loss and predictions."""
        with mixed(self._precision, whole.device):
            predicted = dict(self._predict(self.model, batch, True))
        return self.loss(predicted, batch.tensors, whole), predicted


class _Graph:
    """The graph of one set of labels and trainable parameters, compiled when it is first needed.

    Args:
        objective: what is differentiated.
        labels: that some sample has.
        trained: names of the parameters to differentiate by.
        compiler: what compiles the graph.
    """

    def __init__(
        self,
        objective: _Objective,
        labels: frozenset[str],
        trained: tuple[str, ...],
        compiler: Compiler,
    ) -> None:
        self._objective = objective
        self._labels = labels
        self._trained = trained
        self._compiler = compiler
        self._recorded: Recorded | None = None
        self._batch: tuple[str, ...] = ()
        self._predicted: tuple[str, ...] = ()
        self._reached: tuple[str, ...] = ()

    @property
    def compiled(self) -> bool:
        """Whether it was needed."""
        return self._recorded is not None

    def __call__(
        self, given: Mapping[str, Tensor]
    ) -> tuple[LossValue, dict[str, Tensor], dict[str, Tensor]]:
        """Loss, predictions and gradients, the latter of parameters that the loss depends on.

        Args:
            given: the batch's tensors and `whole`.
        """
        self._batch = tuple(given)
        state = self._objective.state()
        b, n = given["numbers"].shape
        run = self._differentiate
        if min(b, n) > 1:  # one sample or atom is rare, and other operations: never compiled
            if self._recorded is None:
                dims = {name: _dims(name, tensor) for name, tensor in given.items()}
                dims |= {name: tuple(tensor.shape) for name, tensor in state.items()}
                self._recorded = Recorded(
                    self._differentiate, {**state, **given}, dims, self._compiler
                )
            if self._recorded.holds(B=b, N=n):
                run = self._recorded.__call__
        total, sums, counts, *others = run({**state, **given})
        predicted = dict(zip(self._predicted, others, strict=False))
        gradients = dict(zip(self._reached, others[len(predicted) :], strict=True))
        return LossValue(total, sums, counts), predicted, gradients

    def _differentiate(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The same operation by operation; what is recorded."""
        given = {name: inputs[name] for name in self._batch}
        state = {name: tensor for name, tensor in inputs.items() if name not in given}
        leaves = {name: state[name].detach().requires_grad_() for name in self._trained}
        arguments = (_Given(given, self._labels), given["whole"])
        value, predicted = functional_call(self._objective, {**state, **leaves}, arguments)
        found: tuple[Tensor | None, ...] = (None,) * len(leaves)
        if value.total.requires_grad:  # not where no molecule has a label of the loss
            found = torch.autograd.grad(value.total, list(leaves.values()), allow_unused=True)
        # laid out as parameters are, which is what autograd and optimizers expect
        gradients = {
            name: gradient.contiguous()
            for name, gradient in zip(leaves, found, strict=True)
            if gradient is not None
        }
        self._predicted, self._reached = tuple(predicted), tuple(gradients)
        results = (value.total, value.sums, value.counts, *predicted.values(), *gradients.values())
        return [tensor.detach() for tensor in results]
